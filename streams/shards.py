"""The shards this worker holds: taking them over, handing them what was read, losing them."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import chain, repeat
from typing import Protocol

from streams.metrics import Metrics
from streams.outbox import Outbox
from streams.protocols import (
    COMMANDS,
    INPUTS,
    PURCHASES,
    Batch,
    FatalError,
    Log,
    RefusedError,
    ShardLostError,
    Store,
    Writer,
)
from streams.settings import Settings
from streams.shard import Domain, Shard

log = logging.getLogger(__name__)

#: A position in every input of every shard that is held.
Positions = dict[tuple[str, int], int]

#: Waits before trying again to take over, in seconds; the last one repeats.
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)


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


class Shards:
    """Which shards are here, and the one way by which they come and go.

    `fail` is called with what this worker cannot go on after.
    """

    def __init__(
        self,
        settings: Settings,
        domain: Domain,
        store: Store,
        log: Log,
        metrics: Metrics,
        fail: Callable[[BaseException], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._domain = domain
        self._store = store
        self._log = log
        self._metrics = metrics
        self.fail = fail
        self._held: dict[int, Shard] = {}
        self._moving = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        #: Set whenever a batch was committed, or shards went.
        self._progress = asyncio.Event()
        self._lost = asyncio.Event()
        self._in_hand: dict[tuple[str, int], int] = {}
        #: Where the inputs stood when the worker closed: the group is told at the very end.
        self._left: Positions = {}
        #: Counts the take-overs; what was read before the last one is void.
        self.epoch = 0

    @property
    def held(self) -> Mapping[int, Shard]:
        """The shards of this worker, by partition."""
        return self._held

    # -- coming and going ------------------------------------------------------------------------------------------

    async def take_over(self, reader: Reader) -> None:
        """Become the owner of every shard whose inputs are all assigned here; tries until it is done or cancelled."""
        await self._persist(self._take_over, reader)

    async def take_over_once(self, reader: Reader) -> None:
        """As `take_over`, and raises what it raises."""
        async with self._moving:
            await self._take_over(reader)

    async def until_lost(self) -> None:
        """Wait until a shard is lost."""
        await self._lost.wait()

    async def recover(self, reader: Reader) -> None:
        """For ever: when a shard is lost, take all over again, as soon as the group still counts this worker in."""

        async def if_lost(reader: Reader) -> None:
            if self._lost.is_set():  # else a rebalance has taken them over meanwhile
                await self._take_over(reader)

        while True:
            await self._lost.wait()
            try:
                await self._persist(if_lost, reader)
            except FatalError as error:
                return await self.fail(error)

    async def _persist(self, attempt: Callable[[Reader], Awaitable[None]], reader: Reader) -> None:
        for wait in chain(_BACKOFF, repeat(_BACKOFF[-1])):
            try:
                async with self._moving:
                    return await attempt(reader)
            except ShardLostError as error:
                log.warning("cannot take over yet, next try in %.1f s: %s", wait, error)
                await asyncio.sleep(wait)
        raise AssertionError("repeat() does not end")

    async def _take_over(self, reader: Reader) -> None:
        """One take-over.

        1. Prove membership by an offset commit (a suspended worker that comes back must not steal); 2. fence the
        predecessor's producer; 3. set a new token in the store, which trims the outbox to what was published;
        4. read on from the stored watermarks.
        """
        self._drop_all()
        assigned = reader.assigned()
        whole = sorted({p for _, p in assigned if all((topic, p) in assigned for topic in INPUTS)})
        if len(whole) * len(INPUTS) != len(assigned):
            log.warning("not all inputs of a shard are assigned here: %s", sorted(assigned))
        begin = await self._watermarks(whole)
        await reader.prove(begin)
        opened = await asyncio.gather(*map(self._log.writer, whole), return_exceptions=True)
        writers = [writer for writer in opened if not isinstance(writer, BaseException)]
        try:
            for failure in opened:
                if isinstance(failure, BaseException):
                    raise failure
            own = [self._own(p, w, begin, len(whole)) for p, w in zip(whole, writers, strict=True)]
            taken = await asyncio.gather(*own)
        except BaseException:
            for writer in writers:
                self._spawn(writer.close())
            raise
        positions = {(topic, s.partition): s.state.offsets[topic] for s in taken for topic in INPUTS}
        # From here on what the old epoch has read is void; then the reading moves.
        self.epoch += 1
        self._in_hand = {}
        self._held = {shard.partition: shard for shard in taken}
        await reader.move(positions, self.epoch)
        self._lost.clear()
        self._changed.set()
        self._metrics.take_overs.inc(len(taken))
        self._metrics.shards.set(len(taken))
        log.info("took over %d shards: %s", len(taken), ", ".join(map(str, whole)))

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
                        f"{name}: the store has read up to {at}, the log begins at {start}: records between are gone; "
                        "restore them or rebuild the state"
                    )
                if at > end:
                    raise FatalError(
                        f"{name}: the store has read up to {at}, the log ends at {end}: the topic is another or was "
                        "cut; restore it or rebuild the state"
                    )
                positions[topic, partition] = at
        return positions

    async def _begin(self, partition: int, starts: Mapping[tuple[str, int], int]) -> Positions:
        committed = await self._log.committed()
        for topic in INPUTS:
            at = committed.get((topic, partition), 0)
            if at > starts[topic, partition]:
                raise FatalError(
                    f"the store is empty, but group {self._settings.group} has read "
                    f"{self._settings.topic(topic)}-{partition} up to {at}: restore the store (another "
                    "KIZUNA_GROUP and KIZUNA_REDIS_PREFIX would read all anew and publish every change again)"
                )
        return {(topic, partition): starts[topic, partition] for topic in INPUTS}

    async def _own(self, partition: int, writer: Writer, begin: Positions, shards: int) -> Shard:
        token = secrets.token_hex(8)
        start = {topic: begin[topic, partition] for topic in INPUTS}
        state, pending = await self._store.take_over(partition, token, start, await writer.published())
        outbox = Outbox(state.outbox_last, pending, self._settings.outbox_bound, state.held)
        return Shard(
            partition,
            token,
            state,
            outbox,
            writer,
            self._store,
            self._domain,
            self._metrics,
            max(1, self._settings.cache_customers // shards),
        )

    def _drop_all(self) -> None:
        """Let go of every shard. What is under way in a lane is refused by the store from the next owner on."""
        for partition, shard in self._held.items():
            self._spawn(shard.close())
            self._metrics.forget(partition)
        self._held = {}
        self._in_hand = {}
        self._metrics.shards.set(0)
        self._changed.set()
        self._progress.set()

    async def drop(self) -> None:
        """The group takes the partitions away."""
        async with self._moving:
            self._drop_all()

    def lose(self, shard: Shard, error: ShardLostError) -> None:
        """A shard was refused, or nobody knows what became of a write: it is taken over again."""
        if self._held.get(shard.partition) is shard:
            log.warning("shard %d is lost and will be taken over again: %s", shard.partition, error)
            self._metrics.shards_lost.labels(
                "refused" if isinstance(error, RefusedError) else "unavailable"
            ).inc()
            self._lost.set()

    # -- the way of a batch ----------------------------------------------------------------------------------------

    def wants(self, topic: str, partition: int) -> bool:
        """Whether to read on there: two batches in hand at most, and none while the outbox is full."""
        shard = self._held.get(partition)
        return shard is not None and shard.outbox.has_room and self._in_hand.get((topic, partition), 0) < 2

    def reading(self, batch: Batch) -> None:
        """A batch was read and is on its way to `hand`."""
        key = batch.topic, batch.partition
        self._in_hand[key] = self._in_hand.get(key, 0) + 1

    def hand(self, batch: Batch, done: Callable[[], object]) -> None:
        """Give a batch to its shard's lane and return at once; `done` is called when it is committed."""
        shard = self._held.get(batch.partition)
        if shard is not None and batch.epoch == self.epoch:
            self._spawn(self._process(shard, batch, done))

    async def _process(self, shard: Shard, batch: Batch, done: Callable[[], object]) -> None:
        try:
            if batch.topic == COMMANDS:
                async with shard.commands:
                    if not await self._after_purchases(shard, batch):
                        return
                    await shard.process(batch)
            else:
                await shard.process(batch)
        except ShardLostError as error:
            self.lose(shard, error)
            return
        if self._held.get(shard.partition) is shard:
            self._in_hand[batch.topic, batch.partition] -= 1
            self._progress.set()
            done()

    async def _after_purchases(self, shard: Shard, batch: Batch) -> bool:
        """Wait until the purchases that were appended before some commands are committed; False where the shard went.

        A command moves its customer's time: a purchase that is only unread must not come too late for that.
        """
        if not batch.records:
            return self._held.get(shard.partition) is shard
        appended = batch.records[-1].timestamp
        ends = await self._log.ends([shard.partition])
        end, state = ends[PURCHASES, shard.partition], shard.state
        while self._held.get(shard.partition) is shard:
            if state.offsets[PURCHASES] >= end or state.appended.get(PURCHASES, -1) > appended:
                return True
            self._progress.clear()
            await self._progress.wait()
        return False

    def watermark(self, topic: str, partition: int) -> int | None:
        """Up to where the input is committed, None where the shard is not here."""
        shard = self._held.get(partition)
        return self._left.get((topic, partition)) if shard is None else shard.state.offsets[topic]

    def _spawn(self, work: Awaitable[None]) -> None:
        self._tasks.add(self._guarded(work))

    def _guarded(self, work: Awaitable[None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(self._guard(work))
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            # Neither lost nor refused: a bug, or something to stop for. Nothing is swallowed.
            await self.fail(error)

    # -- publishing ------------------------------------------------------------------------------------------------

    async def publish(self) -> None:
        """For ever: publish the outbox of every shard that is here."""
        publishing: dict[Shard, asyncio.Task[None]] = {}
        try:
            while True:
                self._changed.clear()
                for shard in list(publishing):
                    if self._held.get(shard.partition) is not shard:
                        publishing.pop(shard).cancel()
                for shard in self._held.values():
                    if shard not in publishing:
                        publishing[shard] = self._guarded(self._publish(shard))
                await self._changed.wait()
        finally:
            for task in publishing.values():
                task.cancel()

    async def _publish(self, shard: Shard) -> None:
        try:
            await shard.publish()
        except ShardLostError as error:
            self.lose(shard, error)

    async def close(self) -> None:
        """The worker ends: wait for what is in the lanes, then leave the writers."""
        deadline = time.monotonic() + 2
        async with self._moving:
            shards = list(self._held.values())
            self._held = {}
            self._changed.set()
            self._progress.set()
            tasks = [task for task in self._tasks if task is not asyncio.current_task()]
            if tasks:
                await asyncio.wait(tasks, timeout=max(0.1, deadline - time.monotonic()))
            self._left = {(t, s.partition): s.state.offsets[t] for s in shards for t in INPUTS}
            await asyncio.gather(*(shard.close() for shard in shards), return_exceptions=True)
