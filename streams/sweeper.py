"""Time: what falls due without an event, shard by shard, as far as what has been read allows."""

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeVar

from schemas.program import Program
from streams.metrics import Metrics
from streams.protocols import (
    INPUTS,
    PURCHASES,
    Clock,
    FatalError,
    Log,
    RefusedError,
    ShardLostError,
    ShardState,
    UnavailableError,
)
from streams.settings import ClockKind, Settings
from streams.shard import Shard
from streams.shards import Shards

T = TypeVar("T")

log = logging.getLogger(__name__)

#: Customers that are moved to a changed program in one hold of the lane, and seconds between two looks for some.
_MOVED_AT_ONCE = 50
_LOOK_AGAIN = 0.5


class Sweeper:
    """Sweeps every shard of this worker, and moves their customers to a changed program."""

    def __init__(
        self, settings: Settings, program: Program, shards: Shards, log: Log, clock: Clock, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._lateness = program.allowed_lateness
        self._shards = shards
        self._log = log
        self._clock = clock
        self._metrics = metrics
        #: The time of each shard when it was last swept.
        self._clocks: dict[Shard, int] = {}
        self._unanswered = False

    async def sweep(self) -> None:
        """Once over all shards: let fall due what time alone brings, as far as the clock allows."""
        held = list(self._shards.held.values())
        if not held:
            return
        read = {shard: dict(shard.state.offsets) for shard in held}
        try:
            # The clock first: what is appended after it was asked cannot have been unread at that time.
            now = await self._clock.now()
            ends = await self._log.ends(shard.partition for shard in held)
        except UnavailableError as error:
            # Once: it is tried again at each interval, and a standstill of hours must not fill the disk.
            if not self._unanswered:
                log.warning("no sweep until they answer: %s", error)
            self._unanswered = True
            return
        if self._unanswered:
            log.info("sweeps go on")
            self._unanswered = False
        for shard in held:
            if any(at > ends[topic, shard.partition] for topic, at in read[shard].items()):
                self._shards.lose(shard, RefusedError("the log ends before what was read of it"))
        self._measure(held, now, ends)
        untils = {shard: self._until(shard, now, ends) for shard in held}
        self._clocks = {shard: until or 0 for shard, until in untils.items()}
        await asyncio.gather(*(self._sweep(shard, now, until) for shard, until in untils.items()))

    async def _sweep(self, shard: Shard, now: int, until: int | None) -> None:
        clock = now if self._settings.clock is ClockKind.WALL else until
        # Without a time to go to, the sweep still asks whether the shard is ours. What waits for allowed_lateness is
        # not late.
        late = 0 if clock is None else clock - self._lateness
        await self._try(shard, shard.sweep(0 if until is None else until - self._lateness, late))

    async def move(self) -> None:
        """For ever: move customers to a changed program, so many in a second, beside what is read."""
        pause = _MOVED_AT_ONCE / self._settings.move_rate
        while True:
            looked_at = 0
            for shard in list(self._shards.held.values()):
                if not shard.state.is_moving or shard not in self._clocks:
                    continue
                found = await self._try(shard, shard.move(self._clocks[shard], _MOVED_AT_ONCE))
                if found:
                    looked_at += found
                    await asyncio.sleep(pause)
            if not looked_at:
                await asyncio.sleep(_LOOK_AGAIN)

    async def _try(self, shard: Shard, work: Awaitable[T]) -> T | None:
        try:
            return await work
        except ShardLostError as error:
            self._shards.lose(shard, error)
        except FatalError as error:
            await self._shards.fail(error)
        return None

    def _until(self, shard: Shard, now: int, ends: Mapping[tuple[str, int], int]) -> int | None:
        """The shard's clock (contract, section 3), None where it has none yet."""
        state = shard.state
        if self._settings.clock is ClockKind.EVENT:
            return state.newest.get(PURCHASES)
        unread = [topic for topic in INPUTS if state.offsets[topic] < ends[topic, shard.partition]]
        if any(topic not in state.appended for topic in unread):
            return None
        return min([now, *(state.appended[topic] for topic in unread)])

    def _measure(self, held: Iterable[Shard], now: int, ends: Mapping[tuple[str, int], int]) -> None:
        self._metrics.last_sweep.set(now / 1000)
        for shard in held:
            self._metrics.outbox_entries.labels(shard.partition).set(len(shard.outbox))
            self._metrics.outbox_age.labels(shard.partition).set(shard.outbox.age)
            self._metrics.pending.labels(shard.partition).set(len(shard.healing))
            for topic in INPUTS:
                state: ShardState = shard.state
                unread = max(0, ends[topic, shard.partition] - state.offsets[topic])
                behind = now - state.appended[topic] if unread and topic in state.appended else 0
                self._metrics.lag_records.labels(topic, shard.partition).set(unread)
                self._metrics.lag_seconds.labels(topic, shard.partition).set(max(0, behind) / 1000)
                if topic in state.newest:
                    self._metrics.watermark.labels(topic, shard.partition).set(state.newest[topic] / 1000)
