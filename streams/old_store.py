"""The store that is there when a rebuild begins: what it was built for, how far it has read, who is protected in it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

from loyalty.customer import Customer
from loyalty.packing import Packing
from loyalty.rules import Rules
from schemas.program import Program
from streams.keys import ShardKeys
from streams.protocols import INPUTS, Binding, FatalError, ShardState
from streams.redis_nodes import RedisNodes
from streams.redis_store import (
    RedisStore,
    all_customers,
    answers,
    binding_fields,
    bound_elsewhere,
    read_binding,
    shard_state,
)
from streams.settings import Settings

_LOOK_AGAIN = 0.2
_PART = 500

#: Another number of partitions, and topics that were made anew, are what a rebuild is for.
_MAY_DIFFER = ("bound:partitions", "bound:inputs")

Positions = dict[tuple[str, int], int]


class OldStore:
    """Reads it only. Every method raises UnavailableError where Redis does not answer."""

    def __init__(self, nodes: RedisNodes, settings: Settings) -> None:
        self._nodes = nodes
        self._settings = settings
        #: Its shards, as they were when they were looked at.
        self.states: dict[int, ShardState] = {}
        #: What it was built for; None where there is none.
        self.bound: Binding | None = None
        #: Inputs that were made anew since it read them.
        self.remade: list[str] = []
        #: Up to where it had read, when that was asked last.
        self.watermarks: Positions = {}

    async def look(self, partitions: Iterable[int], wanted: Binding) -> None:
        """Look at its shards.

        Raises FatalError where it is not this group's and program's, or must be left alone for now.
        """
        for partition in sorted(partitions):
            if not (held := await self._held(partition)):
                continue  # it was emptied just now
            state, bound = shard_state(held), read_binding(held)
            self.states[partition], self.bound = state, bound
            for name, value in binding_fields(wanted):
                if name not in _MAY_DIFFER and (found := held.get(name.encode(), b"").decode()) != value:
                    raise bound_elsewhere(name, found, value)
            if bound.inputs and wanted.inputs:
                pairs = zip(INPUTS, bound.inputs.split(" "), wanted.inputs.split(" "), strict=True)
                self.remade = [topic for topic, old, new in pairs if old != new]
            if state.is_moving:
                raise FatalError(
                    "a change of the program is under way: end it first, by `kizuna program apply`"
                )
            if state.held is not None:
                raise FatalError(
                    f"publishing of shard {partition} is paused: decide first, by `kizuna outbox release` or `drop`"
                )

    @property
    def customers(self) -> int:
        """How many customers it had."""
        return sum(state.customers for state in self.states.values())

    @property
    def rebuilt(self) -> int:
        """See `ShardState.rebuilt`."""
        return max((state.rebuilt for state in self.states.values()), default=0)

    @property
    def may_protect(self) -> bool:
        """Whether a change of its program has protected customers: no record tells of that (ADR 0009)."""
        return any(state.protect_until is not None for state in self.states.values())

    def reign(self, partition: int) -> int:
        """See `ShardState.reign`."""
        return self.states[partition].reign if partition in self.states else 0

    async def read_up_to(self, ends: Mapping[tuple[str, int], int]) -> Positions:
        """Where it stands now, as far as the log goes; 0 where it has no shard."""
        cut = dict.fromkeys(ends, 0)
        for partition in self.states:
            for topic, at in shard_state(await self._held(partition)).offsets.items():
                if (topic, partition) in cut and topic not in self.remade:
                    cut[topic, partition] = min(at, ends[topic, partition])
        self.watermarks.update(cut)
        return cut

    async def published(self, within: float, go_on: Callable[[], Awaitable[object]]) -> None:
        """Wait until all is published that is decided now: so many seconds at most, while `go_on` says so."""
        wanted = {p: shard_state(await self._held(p)).outbox_last for p in self.states}
        give_up_at = time.monotonic() + within
        while wanted and time.monotonic() < give_up_at and await go_on():
            for partition, last in list(wanted.items()):
                with answers(self._nodes):
                    redis = await self._nodes.of(partition)
                    waiting = await cast(Any, redis.llen(self._keys(partition).outbox))
                # Asked for later than the waiting ones, so never more than is published.
                if shard_state(await self._held(partition)).outbox_last - waiting >= last:
                    del wanted[partition]
            if wanted:
                await asyncio.sleep(_LOOK_AGAIN)

    async def protected(self, program: Program) -> AsyncIterator[tuple[int, Rules, Customer]]:
        """Every customer whom a protection holds, with its shard and the rules that know it."""
        store = RedisStore(self._nodes, self._settings.redis_prefix, Binding("", "", "", 0, "", ""))
        rules = {p: Rules(program, state.generation) for p, state in self.states.items()}
        parts: dict[int, list[str]] = {p: [] for p in self.states}
        async for partition, customer_id in all_customers(self._nodes, self._settings.redis_prefix):
            part = parts.setdefault(partition, [])
            part.append(customer_id)
            if len(part) < _PART:
                continue
            parts[partition] = []
            for customer in await store.load(partition, part, Packing(rules[partition])):
                if customer.protection is not None:
                    yield partition, rules[partition], customer
        for partition, part in parts.items():
            for customer in await store.load(partition, part, Packing(rules[partition])):
                if customer.protection is not None:
                    yield partition, rules[partition], customer

    async def _held(self, partition: int) -> dict[bytes, bytes]:
        with answers(self._nodes):
            redis = await self._nodes.of(partition)
            return cast("dict[bytes, bytes]", await cast(Any, redis.hgetall(self._keys(partition).shard)))

    def _keys(self, partition: int) -> ShardKeys:
        return ShardKeys(self._settings.redis_prefix, partition)
