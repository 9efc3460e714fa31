"""How the store that a rebuild has made takes the place of the one that is there.

It goes in steps, each of which may be broken off and done again; how far it is stands in the store:

1. `fence`: every shard refuses its owner, and whoever would take it over. Until the end of this step the old store is
   whole, and `lift` sets it free. 2. `clear`: customers whom the new store does not have in that shard are forgotten.
   3. `rename`: the new customers take the place of the old ones, each at once. 4. `activate`: shard by shard, the rest
   of it is replaced and the way is free.
"""

from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Any

from streams.keys import ShardKeys, partition_and_customer, partition_of, pattern, state_pattern
from streams.redis_nodes import RedisNodes, script_of
from streams.redis_store import answers, script
from streams.settings import Settings
from streams.staging import staging_prefix

#: Customers in one script: it must not hold Redis up for long.
_PART = 200

Advance = Callable[[int], None]


class Step(StrEnum):
    """How far a switch is, as it stands in the store."""

    FENCED = "fenced"
    CLEARING = "clearing"
    RENAMING = "renaming"


class Switch:
    """One switch. Every method raises UnavailableError."""

    def __init__(self, nodes: RedisNodes, settings: Settings) -> None:
        self._nodes = nodes
        self._prefix, self._staged = settings.redis_prefix, staging_prefix(settings)
        self._fence = script_of(script("fence"))
        self._clear = script_of(script("clear"))
        self._replace = script_of(script("replace"))
        self._activate = script_of(script("activate"))

    async def shards(self) -> set[int]:
        """The shards of the store that is there."""
        return await self._partitions(self._prefix, "shard")

    async def step(self) -> Step | None:
        """How far a switch is that was begun; None where there is none."""
        found: set[Step] = set()
        with answers(self._nodes):
            for partition in await self._partitions(self._prefix, "switching"):
                redis = await self._nodes.of(partition)
                raw: Any = await redis.get(self._keys(partition).switching)
                if raw is not None:
                    found.add(Step(raw.decode()))
        # Shards that are activated have no mark any more; while marking, the first ones are ahead of the others.
        for step in (Step.RENAMING, Step.CLEARING, Step.FENCED):
            if step in found:
                return step
        return None

    async def fence(self, partitions: int) -> None:
        """From now on nobody writes the shards that are there, nor those of the new store."""
        await self._mark(Step.FENCED, await self.shards() | set(range(partitions)))

    async def lift(self) -> None:
        """Set the old store free again: nothing of it has changed."""
        with answers(self._nodes):
            for partition in await self._partitions(self._prefix, "switching"):
                redis = await self._nodes.of(partition)
                await redis.delete(self._keys(partition).switching)

    async def clear(self, advance: Advance) -> None:
        """The new store is whole: forget the customers who are not in it. There is no way back from here."""
        await self._mark(Step.CLEARING, await self._partitions(self._prefix, "switching"))
        done = 0
        async for partition, ids in self._customers(self._prefix):
            old, new = self._keys(partition), ShardKeys(self._staged, partition)
            keys = [key for i in ids for key in (new.state(i), old.state(i), old.pages(i), old.customer(i))]
            with answers(self._nodes):
                await self._nodes.run(self._clear, partition, keys, [])
            done += len(ids)
            advance(done)
        # A shard that the new store does not have is gone with its customers.
        staged = await self._partitions(self._staged, "shard")
        for partition in await self.shards() - staged:
            old = self._keys(partition)
            with answers(self._nodes):
                redis = await self._nodes.of(partition)
                await redis.unlink(old.shard, old.due, old.outbox, old.unmoved)

    async def rename(self, advance: Advance) -> None:
        """Put the new customers in the place of the old ones."""
        # Not those that are activated: they may be at work again.
        await self._mark(Step.RENAMING, await self._partitions(self._prefix, "switching"))
        done = 0
        async for partition, ids in self._customers(self._staged):
            old, new = self._keys(partition), ShardKeys(self._staged, partition)
            keys = [
                key
                for i in ids
                for keys in (new, old)
                for key in (keys.state(i), keys.pages(i), keys.customer(i))
            ]
            with answers(self._nodes):
                await self._nodes.run(self._replace, partition, keys, [])
            done += len(ids)
            advance(done)

    async def activate(self) -> None:
        """The shards may be taken over, one after the other."""
        for partition in sorted(await self._partitions(self._prefix, "switching")):
            old, new = self._keys(partition), ShardKeys(self._staged, partition)
            keys = [
                old.switching,
                *(key for keys in (new, old) for key in (keys.shard, keys.due, keys.outbox, keys.unmoved)),
            ]
            with answers(self._nodes):
                await self._nodes.run(self._activate, partition, keys, [])

    async def _mark(self, step: Step, partitions: set[int]) -> None:
        with answers(self._nodes):
            for partition in sorted(partitions):
                keys = self._keys(partition)
                await self._nodes.run(self._fence, partition, [keys.shard, keys.switching], [step.value])

    async def _partitions(self, prefix: str, name: str) -> set[int]:
        with answers(self._nodes):
            return {partition_of(prefix, key) async for key in self._nodes.scan(pattern(prefix, name))}

    async def _customers(self, prefix: str) -> AsyncIterator[tuple[int, list[str]]]:
        """Every customer under a prefix, in parts of one shard each; now and then one twice."""
        parts: dict[int, list[str]] = {}
        with answers(self._nodes):
            async for key in self._nodes.scan(state_pattern(prefix)):
                partition, customer_id = partition_and_customer(prefix, key)
                part = parts.setdefault(partition, [])
                part.append(customer_id)
                if len(part) == _PART:
                    yield partition, parts.pop(partition)
        for partition, part in parts.items():
            yield partition, part

    def _keys(self, partition: int) -> ShardKeys:
        return ShardKeys(self._prefix, partition)
