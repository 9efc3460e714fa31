"""The store that a rebuild makes beside the one that is there.

It stands under a prefix of its own, in the same shape, until it is whole. Nothing in it counts before: a rebuild that
dies begins it anew. `streams.switch` puts it in the place of the other.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import msgspec
from redis.asyncio import Redis

from loyalty.customer import Customer
from schemas.murmur2 import home
from streams.keys import ShardKeys, partition_of, pattern
from streams.outbox import NOTHING, Entry, decode, encode, whole
from streams.protocols import COMMANDS, PURCHASES, TOUCHPOINTS, Binding
from streams.redis_nodes import RedisNodes
from streams.redis_store import RedisStore, answers
from streams.refold import Decided, Folded, OfBond, Place, Refold
from streams.settings import Settings

#: Customers, or keys, in one pipeline.
_PART = 500


def staging_prefix(settings: Settings) -> str:
    """The prefix of the new store's keys."""
    return settings.redis_prefix + "~rebuild"


class Staging:
    """The new store, as `refold` fills it. Every method raises UnavailableError."""

    def __init__(self, nodes: RedisNodes, settings: Settings, refold: Refold) -> None:
        self._nodes = nodes
        self._refold = refold
        self._limit = settings.cache_customers
        prefix = staging_prefix(settings)
        # Read by its rules alone: nothing is taken over there.
        self._store = RedisStore(nodes, prefix, Binding("", "", "", 0, "", ""))
        self._keys = [ShardKeys(prefix, p) for p in range(refold.partitions)]
        #: Decoded customers, least recently used first, and those of them that differ from what is written.
        self._cache: dict[str, Customer] = {}
        self._changed: set[str] = set()
        #: How many customers there are, and outbox entries, by shard.
        self.customers = [0] * refold.partitions
        self.entries = [0] * refold.partitions
        #: How many of the entries are falls, by shard: they may be too many for the circuit breaker.
        self.falls = [0] * refold.partitions
        #: Where in which outbox stands what was decided of a customer or a dead record, and whether it is a fall.
        self._decided: dict[str | OfBond | Place, list[tuple[int, int, bool]]] = {}

    async def load(self, customer_ids: Iterable[str]) -> dict[str, Customer]:
        """Customers by id, new ones where nothing is known of them."""
        cache = self._cache
        found: dict[str, Customer] = {}
        missing: dict[int, list[str]] = {}
        for customer_id in customer_ids:
            customer = cache.pop(customer_id, None)
            if customer is None:
                missing.setdefault(self._partition(customer_id), []).append(customer_id)
            else:
                cache[customer_id] = found[customer_id] = customer
        for partition, ids in missing.items():
            for customer in await self._store.load(partition, ids, self._refold.packing):
                cache[customer.customer_id] = found[customer.customer_id] = customer
        return found

    async def note(self, folded: Folded) -> None:
        """Customers have changed, and something is to be published: as one, as one commit would be."""
        for customer_id in folded.touched:
            self._changed.add(customer_id)
            customer = self._cache[customer_id]
            if not customer.is_stored:  # but will be, before it leaves the cache
                customer.is_stored = True
                self.customers[self._partition(customer_id)] += 1
        await self._publish(folded.entries)
        await self._evict(self._limit)

    async def _publish(self, decided: Iterable[Decided]) -> None:
        by_shard: dict[int, list[Entry]] = {}
        for shard, of, entry, is_fall in decided:
            entries = by_shard.setdefault(shard, [])
            self._decided.setdefault(of, []).append((shard, self.entries[shard] + len(entries), is_fall))
            self.falls[shard] += is_fall
            entries.append(entry)
        with answers(self._nodes):
            for shard, entries in by_shard.items():
                raw = [encode(entry) for entry in whole(entries)]
                redis = await self._nodes.of(shard)
                for start in range(0, len(raw), _PART):
                    await cast(Any, redis.rpush(self._keys[shard].outbox, *raw[start : start + _PART]))
                self.entries[shard] += len(raw)

    async def withdraw(self, of: str | OfBond | Place) -> None:
        """Take out of the outbox what was decided of a customer's tier or bond, or a dead record: it was published
        meanwhile."""
        for shard, index, is_fall in self._decided.pop(of, ()):
            self.falls[shard] -= is_fall
            key = self._keys[shard].outbox
            with answers(self._nodes):
                redis = await self._nodes.of(shard)
                held = decode(await cast(Any, redis.lindex(key, index)))
                nothing = msgspec.structs.replace(NOTHING, more=held.more)
                await cast(Any, redis).lset(key, index, encode(nothing))

    async def flush(self) -> None:
        """Write every customer that differs from what is written."""
        await self._write([self._cache[customer_id] for customer_id in self._changed])
        self._changed.clear()

    async def _evict(self, limit: int) -> None:
        excess = len(self._cache) - limit
        if excess <= 0:
            return
        # Some more at once, so that writing goes in large parts.
        gone = [self._cache[i] for i, _ in zip(self._cache, range(excess + limit // 10), strict=False)]
        await self._write([customer for customer in gone if customer.customer_id in self._changed])
        for customer in gone:
            del self._cache[customer.customer_id]
            self._changed.discard(customer.customer_id)

    def _partition(self, customer_id: str) -> int:
        return home(customer_id.encode(), self._refold.partitions)

    async def _write(self, customers: Sequence[Customer]) -> None:
        at_home = [(self._partition(customer.customer_id), customer) for customer in customers]
        with answers(self._nodes):
            for redis, here in await self._nodes.by_server(at_home):
                for start in range(0, len(here), _PART):
                    await self._write_part(redis, here[start : start + _PART])

    async def _write_part(self, redis: "Redis", customers: Sequence[tuple[int, Customer]]) -> None:
        rules, packing = self._refold.rules, self._refold.packing
        async with redis.pipeline(transaction=False) as pipeline:
            pipe = cast(Any, pipeline)
            for shard, customer in customers:
                customer_id = customer.customer_id
                keys, seen = self._keys[shard], self._refold.newest[shard]
                packed = packing.pack(
                    customer, seen.get(PURCHASES), seen.get(TOUCHPOINTS), seen.get(COMMANDS)
                )
                pipe.set(keys.state(customer_id), packed.head)
                if packed.written:
                    pipe.hset(keys.pages(customer_id), mapping=packed.written)
                if packed.dropped:
                    pipe.hdel(keys.pages(customer_id), *packed.dropped)
                pipe.hset(
                    keys.customer(customer_id), mapping=dict(zip(*rules.readable(customer), strict=True))
                )
                due = rules.next_due(customer)
                if due is None:
                    pipe.zrem(keys.due, customer_id)
                else:
                    pipe.zadd(keys.due, {customer_id: due})
            await pipe.execute()

    async def finish(self, shards: Sequence[Mapping[str, str | int]]) -> None:
        """Write what is left, and the hash of every shard: then it is whole."""
        await self.flush()
        with answers(self._nodes):
            for shard, (keys, fields) in enumerate(zip(self._keys, shards, strict=True)):
                redis = await self._nodes.of(shard)
                await cast(Any, redis).hset(keys.shard, mapping=dict(fields))


async def discard(nodes: RedisNodes, settings: Settings) -> None:
    """Forget what another rebuild has left under the new store's prefix."""
    prefix = staging_prefix(settings)
    found: dict[int, list[bytes]] = {}
    with answers(nodes):
        async for key in nodes.scan(pattern(prefix, "*")):
            partition = partition_of(prefix, key)
            part = found.setdefault(partition, [])
            part.append(key)
            if len(part) == _PART:
                await (await nodes.of(partition)).unlink(*found.pop(partition))
        for partition, part in found.items():
            await (await nodes.of(partition)).unlink(*part)
