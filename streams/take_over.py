"""How a worker becomes the owner of shards: whoever had them is fenced, and nothing is lost or doubled."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from streams.bonds_told import read_all_bonds
from streams.healing import Healing, read_all, unpublished
from streams.metrics import Metrics
from streams.outbox import Outbox, decode, encode
from streams.protocols import (
    INPUTS,
    Binding,
    FatalError,
    Log,
    Mark,
    Published,
    RefusedError,
    ShardState,
    Stop,
    Store,
    Writer,
)
from streams.settings import Settings
from streams.shard import Domain, Shard
from streams.topics import BOND_TOPICS, TIER_CHANGES, outputs, topics_remade

log = logging.getLogger(__name__)

#: A position in every input of every shard that is held.
Positions = dict[tuple[str, int], int]


class Reader(Protocol):
    """The group member that reads the inputs."""

    def assigned(self) -> set[tuple[str, int]]:
        """The input partitions that the group gives this member now."""
        ...

    async def prove(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Commit offsets in the present generation. Raises RefusedError where this is no member any more."""
        ...

    async def move(self, positions: Mapping[tuple[str, int], int], epoch: int) -> None:
        """Read on from here; batches read from now on carry `epoch`."""
        ...


class TakeOver:
    """Takes shards over; all of it may be tried again after any failure."""

    def __init__(
        self,
        settings: Settings,
        domain: Domain,
        store: Store,
        log: Log,
        metrics: Metrics,
        bound: Binding,
        spawn: Callable[[Awaitable[None]], object],
    ) -> None:
        """`bound`: what this worker found as it started. `spawn` is given what need not be waited for."""
        self._settings = settings
        self._domain = domain
        self._store = store
        self._log = log
        self._metrics = metrics
        self._bound = bound
        self._spawn = spawn
        self._outputs = outputs(domain.program)

    async def take(self, partitions: list[int], reader: Reader) -> list[Shard]:
        """Become the owner of these shards.

        1. Compare the stored watermarks with the log; 2. prove membership by an offset commit (a suspended worker
        that comes back must not steal); 3. fence the predecessor's producer; 4. set a new token in the store, which
        trims the outbox to what was published; 5. read in the output what the store may have lost.

        Raises FatalError where store and log cannot fit each other, ShardLostError's kinds where it may be tried
        again.
        """
        await self.check_inputs()
        begin = await self._watermarks(partitions)
        await reader.prove(begin)
        opened = await asyncio.gather(*map(self._log.writer, partitions), return_exceptions=True)
        writers = [writer for writer in opened if not isinstance(writer, BaseException)]
        try:
            for failure in opened:
                if isinstance(failure, BaseException):
                    raise failure
            own = [self._own(p, w, begin) for p, w in zip(partitions, writers, strict=True)]
            return await self._heal(await asyncio.gather(*own))
        except BaseException:
            for writer in writers:
                self._spawn(writer.close())
            raise

    async def check_inputs(self) -> None:
        """Raises FatalError where an input topic is not the one any more that this worker began to read, or has other
        partitions.

        Name and positions do not tell: a topic that was made anew may be as long as the one before.
        """
        bound = self._bound
        inputs, partitions = await self._log.inputs()
        if inputs != bound.inputs:
            raise topics_remade(self._settings.topic_prefix, bound.inputs, inputs)
        if partitions != bound.partitions:
            raise FatalError(
                f"an input has {partitions} partitions now, the store was built for {bound.partitions}: give all "
                "inputs, tier-changes and customer-tiers as many, and make the state anew with `kizuna rebuild`",
                Stop.STORE_BOUND,
            )

    async def _watermarks(self, partitions: list[int]) -> Positions:
        """Where each shard stands; where it was never begun, the start of the log."""
        starts = await self._log.starts(partitions)
        states = await asyncio.gather(*map(self._store.peek, partitions))
        # The ends last: the owner before may read on meanwhile.
        ends = await self._log.ends(partitions)
        positions: Positions = {}
        for partition, state in zip(partitions, states, strict=True):
            if state is None:
                positions |= await self._begin(partition, starts)
                continue
            for topic in INPUTS:
                at, start, end = state.offsets[topic], starts[topic, partition], ends[topic, partition]
                name = f"{self._settings.topic(topic)}-{partition}"
                if at < start:
                    raise FatalError(
                        f"{name}: the store has read up to {at}, the log begins at {start}: records between are gone "
                        "unread; restore them, or make the state anew from what is left with `kizuna rebuild`",
                        Stop.RECORDS_GONE,
                    )
                if at > end:
                    raise FatalError(
                        f"{name}: the store has read up to {at}, the log ends at {end}: the topic is another or was "
                        "cut; restore it, or make the state anew with `kizuna rebuild`",
                        Stop.LOG_ENDS_BEFORE,
                    )
                positions[topic, partition] = at
        return positions

    async def _begin(self, partition: int, starts: Mapping[tuple[str, int], int]) -> Positions:
        committed = await self._log.committed()
        for topic in INPUTS:
            at = committed.get((topic, partition), 0)
            if at > starts[topic, partition]:
                if await self._store.peek(partition) is not None:
                    # Another member has begun the shard, and read on, since this one looked.
                    raise RefusedError(f"shard {partition} was begun by another worker meanwhile")
                raise FatalError(
                    f"the store is empty, but group {self._settings.group} has read "
                    f"{self._settings.topic(topic)}-{partition} up to {at}: restore the store, or make it anew from "
                    "the log with `kizuna rebuild` (another KIZUNA_GROUP and KIZUNA_REDIS_PREFIX would publish every "
                    "change again)",
                    Stop.STORE_EMPTY,
                )
        return {(topic, partition): starts[topic, partition] for topic in INPUTS}

    async def _own(self, partition: int, writer: Writer, begin: Positions) -> "_Owned":
        token = secrets.token_hex(8)
        published = await writer.published()
        start = {topic: begin[topic, partition] for topic in INPUTS}
        state, pending = await self._store.take_over(partition, token, start, published)
        return _Owned(partition, token, writer, published, state, pending)

    async def _heal(self, owned: Sequence["_Owned"]) -> list[Shard]:
        """Let each shard know what was published and its state may not know."""
        told = await self._log.told(
            {
                (topic, one.partition): one.state.outputs.get(topic, 0)
                for one in owned
                for topic in self._outputs
            }
        )
        cache_customers = max(1, self._settings.cache_customers // max(1, len(owned)))
        shards = [await self._shard(one, told, cache_customers) for one in owned]
        healing = [shard for shard in shards if shard.healing]
        if not healing:
            return shards
        # Asked for now: the owner before may have read on until it was fenced.
        ends = await self._log.ends(shard.partition for shard in healing)
        for shard in healing:
            shard.healing.check(shard.partition, ends)
            log.warning(
                "shard %d: the store has lost what %d customers were told: their events are read again, and what was "
                "published holds",
                shard.partition,
                len(shard.healing),
            )
        return shards

    async def _shard(
        self, owned: "_Owned", published: Mapping[tuple[str, int], Sequence[Published]], cache_customers: int
    ) -> Shard:
        partition, token, state = owned.partition, owned.token, owned.state
        told = read_all(partition, published.get((TIER_CHANGES, partition), ()))
        bonds = None
        if self._domain.program.bonds is not None:
            bonds = read_all_bonds(
                partition, [one for topic in BOND_TOPICS for one in published.get((topic, partition), ())]
            )
        entries = [decode(raw) for raw in owned.pending]
        kept = unpublished(entries, told, bonds)
        if state.reign < owned.published.reign or len(kept) < len(entries):
            state = await self._store.restore(partition, token, [encode(e) for e in kept], owned.published)
        outbox = Outbox(state.outbox_last, kept, self._settings.outbox_bound, state.held)
        shard = Shard(
            partition,
            token,
            state,
            outbox,
            owned.writer,
            self._store,
            self._domain,
            self._metrics,
            cache_customers,
        )
        shard.outputs |= {
            topic: records[-1].offset + 1
            for (topic, where), records in published.items()
            if where == partition and records
        }
        if told or bonds:
            shard.healing = Healing(
                told, outbox.customers({TIER_CHANGES}), bonds, outbox.customers(BOND_TOPICS)
            )
            await shard.heal()
        return shard


class _Owned(NamedTuple):
    """A shard that is ours, before it is known what it lacks."""

    partition: int
    token: str
    writer: Writer
    published: Mark
    state: ShardState
    pending: Sequence[bytes]
