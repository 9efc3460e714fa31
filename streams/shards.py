"""The shards this worker holds: taking them over, handing them what was read, losing them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from itertools import chain, repeat

from streams.metrics import Metrics
from streams.protocols import (
    COMMANDS,
    INPUTS,
    PURCHASES,
    Batch,
    Binding,
    FatalError,
    Log,
    RefusedError,
    ShardLostError,
    Store,
)
from streams.settings import Settings
from streams.shard import Domain, Shard
from streams.take_over import Positions, Reader, TakeOver

log = logging.getLogger(__name__)

#: Waits before trying again to take over, in seconds; the last one repeats.
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)
#: Shards that are lost again within so many seconds after a take-over are taken over with the same waits.
_STEADY = 10.0
#: Records in hand, over all partitions, from which on none has a second batch: there is enough to do while one waits
#: for the store, and each takes some 600 bytes.
_MANY_RECORDS = 20_000
#: Seconds between two looks whether the input topics are still the same.
_WATCH_SECONDS = 5.0


class _InHand:
    """What is read and not committed: batches by input and partition, and the records of all of them."""

    def __init__(self) -> None:
        self.batches: dict[tuple[str, int], int] = {}
        self.records = 0

    def add(self, batch: Batch) -> None:
        """A batch was read."""
        key = batch.topic, batch.partition
        self.batches[key] = self.batches.get(key, 0) + 1
        self.records += len(batch.records)

    def remove(self, batch: Batch) -> None:
        """A batch is committed."""
        self.batches[batch.topic, batch.partition] -= 1
        self.records -= len(batch.records)


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
        bound: Binding,
    ) -> None:
        """`bound`: see `TakeOver`."""
        self._taking = TakeOver(settings, domain, store, log, metrics, bound, self._spawn)
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
        self._given_up = False
        self._failing: asyncio.Future[None] | None = None
        self._in_hand = _InHand()
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

        waits = chain(_BACKOFF, repeat(_BACKOFF[-1]))
        while True:
            taken_at = asyncio.get_running_loop().time()
            await self._lost.wait()
            if asyncio.get_running_loop().time() - taken_at < _STEADY:
                # What lost them may still be there, such as a topic that takes no records.
                await asyncio.sleep(next(waits))
            else:
                waits = chain(_BACKOFF, repeat(_BACKOFF[-1]))
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
        self._drop_all()
        if self._given_up:
            return
        assigned = reader.assigned()
        whole = sorted({p for _, p in assigned if all((topic, p) in assigned for topic in INPUTS)})
        if len(whole) * len(INPUTS) != len(assigned):
            log.warning("not all inputs of a shard are assigned here: %s", sorted(assigned))
        taken = await self._taking.take(whole, reader)
        positions = {(topic, s.partition): s.state.offsets[topic] for s in taken for topic in INPUTS}
        # From here on what the old epoch has read is void; then the reading moves.
        self.epoch += 1
        self._in_hand = _InHand()
        # Before anything of them can be lost again: batches may come while the move is still being answered.
        self._lost.clear()
        self._held = {shard.partition: shard for shard in taken}
        try:
            await reader.move(positions, self.epoch)
        except ShardLostError:
            self._lost.set()
            raise
        self._changed.set()
        self._metrics.take_overs.inc(len(taken))
        self._metrics.shards.set(len(taken))
        log.info("took over %d shards: %s", len(taken), ", ".join(map(str, whole)))

    async def watch_inputs(self) -> None:
        """For ever: look whether the input topics are still the same. Their names do not tell."""
        while not self._given_up:
            await asyncio.sleep(_WATCH_SECONDS)
            try:
                await self._taking.check_inputs()
            except FatalError as error:
                await self.fail(error)
            except ShardLostError as error:
                log.debug("cannot look at the topics: %s", error)

    async def are_same(self, read: Iterable[tuple[str, int]]) -> bool:
        """Whether the inputs are still the same, asked now; where not, or where nobody answers, what was `read` must
        not be used, and is read again."""
        try:
            await self._taking.check_inputs()
        except FatalError as error:
            await self.fail(error)
            return False
        except ShardLostError as error:
            for _, partition in read:
                if (shard := self._held.get(partition)) is not None:
                    self.lose(shard, error)
            return False
        return True

    def _drop_all(self) -> None:
        """Let go of every shard. What is under way in a lane is refused by the store from the next owner on."""
        for partition, shard in self._held.items():
            self._spawn(shard.close())
            self._metrics.forget(partition)
        self._held = {}
        self._in_hand = _InHand()
        self._metrics.shards.set(0)
        self._changed.set()
        self._progress.set()

    async def drop(self) -> None:
        """The group takes the partitions away."""
        async with self._moving:
            self._drop_all()

    async def give_up(self) -> None:
        """Let go of every shard for good: this worker stops."""
        self._given_up = True
        async with self._moving:
            self._drop_all()

    def lose_position(self, topic: str, partition: int) -> None:
        """The log does not have what is to be read next: the next take-over says why."""
        if (shard := self._held.get(partition)) is not None:
            self.lose(shard, RefusedError(f"{topic}: the log does not have the position that is to be read"))

    def lose(self, shard: Shard, error: ShardLostError) -> None:
        """A shard was refused, or nobody knows what became of a write: it is taken over again."""
        if self._held.get(shard.partition) is shard and not shard.is_lost:
            shard.is_lost = True
            log.warning("shard %d is lost and will be taken over again: %s", shard.partition, error)
            self._metrics.shards_lost.labels(
                "refused" if isinstance(error, RefusedError) else "unavailable"
            ).inc()
            self._lost.set()

    # -- the way of a batch ----------------------------------------------------------------------------------------

    def wants(self, topic: str, partition: int) -> bool:
        """Whether to read on there: two batches in hand at most, one where much is in hand anyhow, and none while the
        outbox is full."""
        shard = self._held.get(partition)
        if shard is None or shard.is_lost or not shard.outbox.has_room:
            return False
        in_hand = self._in_hand.batches.get((topic, partition), 0)
        return in_hand == 0 or (in_hand == 1 and self._in_hand.records < _MANY_RECORDS)

    def reading(self, batch: Batch) -> None:
        """A batch was read and is on its way to `hand`."""
        self._in_hand.add(batch)

    def hand(self, batch: Batch, done: Callable[[], object]) -> None:
        """Give a batch to its shard's lane and return at once; `done` is called when it is committed."""
        shard = self._held.get(batch.partition)
        if shard is not None and batch.epoch == self.epoch:
            self._spawn(self._process(shard, batch, done))

    async def _process(self, shard: Shard, batch: Batch, done: Callable[[], object]) -> None:
        try:
            async with shard.turns[batch.topic]:
                for_the_lane: Batch | None = batch
                while for_the_lane is not None:
                    part, for_the_lane = cut(for_the_lane, shard.healing.limit(batch.topic))
                    if part is None:
                        # What is pending has to be reached by the other inputs, too, before this one goes on.
                        goes_on = await self._progressed(shard)
                    elif part.topic == COMMANDS and not await self._after_purchases(shard, part):
                        goes_on = False
                    else:
                        await shard.process(part)
                        goes_on = self._held.get(shard.partition) is shard
                        self._progress.set()
                    if not goes_on:
                        return
        except ShardLostError as error:
            self.lose(shard, error)
            return
        self._in_hand.remove(batch)
        self._progress.set()
        done()

    async def _progressed(self, shard: Shard) -> bool:
        """Wait until something was committed; False where the shard went."""
        self._progress.clear()
        await self._progress.wait()
        return self._held.get(shard.partition) is shard

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
            # Where purchases must not go on, it is for these commands that they wait.
            at, limit = state.offsets[PURCHASES], shard.healing.limit(PURCHASES)
            if (
                at >= end
                or state.appended.get(PURCHASES, -1) > appended
                or (limit is not None and at >= limit)
            ):
                return True
            await self._progressed(shard)
        return False

    async def let(self, shard: Shard, work: Callable[[], Awaitable[None]]) -> None:
        """Have something done in a shard's lane, to its end even where whoever asked for it leaves: what breaks off in
        a lane costs the shard. Raises what `work` raises, and notes it."""

        async def do() -> None:
            try:
                await work()
            except ShardLostError as error:
                self.lose(shard, error)
                raise
            except Exception as error:
                self._failing = self._failing or asyncio.ensure_future(self.fail(error))
                raise

        doing = asyncio.ensure_future(do())
        self._tasks.add(doing)
        doing.add_done_callback(self._tasks.discard)
        # Whoever has left does not ask what became of it.
        doing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(doing)

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
            # Neither lost nor refused: a bug, or something to stop for. Nothing is swallowed. In a task of its own: a
            # publisher's is cancelled as soon as its shard is given up.
            self._failing = self._failing or asyncio.ensure_future(self.fail(error))
            await asyncio.shield(self._failing)

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
        deadline = asyncio.get_running_loop().time() + 2
        async with self._moving:
            shards = list(self._held.values())
            self._held = {}
            self._changed.set()
            self._progress.set()
            tasks = [task for task in self._tasks if task is not asyncio.current_task()]
            if tasks:
                await asyncio.wait(tasks, timeout=max(0.1, deadline - asyncio.get_running_loop().time()))
            self._left = {(t, s.partition): s.state.offsets[t] for s in shards for t in INPUTS}
            await asyncio.gather(*(shard.close() for shard in shards), return_exceptions=True)


def cut(batch: Batch, limit: int | None) -> tuple[Batch | None, Batch | None]:
    """What of a batch lies before a position (None: no limit), and what behind it; None for nothing."""
    if limit is None or batch.end <= limit:
        return batch, None
    if limit <= batch.start:
        return None, batch
    before = [record for record in batch.records if record.offset < limit]
    behind = batch.records[len(before) :]
    return replace(batch, end=limit, records=before), replace(batch, start=limit, records=behind)
