"""One worker process: the real Shards and Sweeper, and a reader that feeds them as `streams.transport` does."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from streams.intake import Intake
from streams.metrics import Metrics
from streams.pacing import SLICE, Pace
from streams.protocols import (
    INPUTS,
    Batch,
    RefusedError,
    ShardLostError,
    UnavailableError,
)
from streams.shard import Domain
from streams.shards import Shards
from streams.sweeper import Sweeper
from tests.simulation.group import HEARTBEAT, Member
from tests.simulation.kafka import LogRecord
from tests.simulation.link import KAFKA, PROCESS, Link
from tests.simulation.outside import LinkedLog, LinkedStore

if TYPE_CHECKING:
    from tests.simulation.world import World

Positions = Mapping[tuple[str, int], int]

#: Seconds between two commits of the group's offsets, and at most how long a fetch waits for something.
_OFFSETS = 1.0
_FETCH_WAIT = 0.4


class Worker:
    """A process, from its start to its end. `name` is of this process alone."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.link = Link(world, name, self._is_healing)
        settings, program = world.settings, world.program
        self.metrics = Metrics()
        domain = Domain(program, Intake(settings, program, world.partitions), settings.falls_limit)
        # No clock of this machine: a seed gives the same run each time, and others have a turn in every batch.
        looks = count()
        domain.pace = Pace(lambda: next(looks) * SLICE / 3)
        store = LinkedStore(self.link, world.store)
        log = LinkedLog(self.link)
        self.shards = Shards(settings, domain, store, log, self.metrics, self._fail, world.binding)
        self.sweeper = Sweeper(settings, program, self.shards, log, store, self.metrics)
        self._member = Member(name, self._notice)
        self._noticed = asyncio.Event()
        self._generation = -1
        self._assigned: set[tuple[str, int]] = set()
        self._positions: dict[tuple[str, int], int] = {}
        self._epoch = 0
        #: Whether the inputs' ids are to be asked for before anything that was read is used.
        self._doubts = True
        self._flows = asyncio.Event()
        self._queues: dict[str, asyncio.Queue[Batch]] = {topic: asyncio.Queue(16) for topic in INPUTS}
        self._acknowledged: set[tuple[str, int]] = set()
        self.is_stopping = False
        #: While it is suspended: when the group gives it up.
        self.silent: asyncio.TimerHandle | None = None
        self._tasks = [
            self.spawn(self._belong),
            self.spawn(self._read),
            *(self.spawn(partial(self._agent, topic)) for topic in INPUTS),
            self.spawn(self.shards.publish),
            self.spawn(partial(self.shards.recover, self)),
            self.spawn(self.shards.watch_inputs),
            self.spawn(self._sweep),
            self.spawn(self._commit_offsets),
        ]

    def spawn(self, work: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        async def run() -> None:
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                await self._fail(error)

        return self.world.loop.create_task(run())

    async def _fail(self, error: BaseException) -> None:
        if self.link.alive:
            self.world.failed(self, error)

    # -- how it ends -----------------------------------------------------------------------------------------------

    @property
    def adoptions(self) -> int:
        """How many customers stood otherwise than what was published."""
        return int(self.metrics.registry.get_sample_value("kizuna_adoptions_total") or 0)

    @property
    def has_unfinished(self) -> bool:
        """Whether anything of what it does would be missed: a call under way, a batch in hand, an unpublished entry."""
        return (
            any(
                self.link.under_way.get(what)
                for what in ("commit", "take_over", "begin", "send", "decide", "trim")
            )
            or any(self.shards._in_hand.batches.values())
            or any(len(shard.outbox) for shard in self.shards.held.values())
        )

    def _is_healing(self) -> bool:
        return any(shard.healing for shard in self.shards.held.values())

    def kill(self) -> None:
        """Nothing of it goes on from here; its sockets close when the group has waited long enough."""
        self.link.alive = False
        if self.link.asleep is not None and not self.link.asleep.done():
            self.link.asleep.set_result(None)

    async def stop(self) -> None:
        """End in order, as at SIGTERM."""
        await self.shards.close()
        await self.link.awake()
        self.world.group.leave(self.name)
        self.kill()

    def suspend(self) -> None:
        self.link.asleep = self.world.loop.create_future()
        self.link.was_asleep = True

    def resume(self) -> None:
        if self.silent is not None:
            self.silent.cancel()
        asleep, self.link.asleep = self.link.asleep, None
        if asleep is not None and not asleep.done():
            asleep.set_result(None)
        if self.name not in self.world.group.members:
            self._notice()

    # -- the group's member ----------------------------------------------------------------------------------------

    def _notice(self) -> None:
        """The answer to the next heartbeat will say that it has to join again."""
        self.world.loop.call_later(self.world.rng.random() * HEARTBEAT, self._noticed.set)

    async def _belong(self) -> None:
        while True:
            await self.link.awake()
            self._noticed.clear()
            assignment = await self.world.group.join(self._member)
            await self.link.awake()
            if assignment is None:
                continue
            self._generation, self._assigned = assignment.generation, set(assignment.partitions)
            taking = self.spawn(self._take_over) if self._assigned else None
            await self._noticed.wait()
            await self.link.awake()
            self._flows.clear()
            for queue in self._queues.values():
                while not queue.empty():
                    queue.get_nowait()
            if taking is not None:
                taking.cancel()
                await asyncio.wait([taking])
            await self.shards.drop()
            self._assigned = set()
            self._positions = {}

    async def _take_over(self) -> None:
        await self.shards.take_over(self)
        self._flows.set()

    def assigned(self) -> set[tuple[str, int]]:
        return set(self._assigned)

    async def prove(self, positions: Positions) -> None:
        generation = self._generation
        await self.link.call(
            KAFKA, "prove", lambda: self.world.group.commit(self.name, generation, positions)
        )

    async def move(self, positions: Positions, epoch: int) -> None:
        await self.link.call(PROCESS, "move", lambda: self._move(positions, epoch))

    def _move(self, positions: Positions, epoch: int) -> None:
        if not set(positions) <= self._assigned:
            raise RefusedError("a partition is not assigned here any more")
        self._positions.update(positions)
        self._epoch = epoch
        self._doubts = True

    async def _commit_offsets(self) -> None:
        while True:
            await asyncio.sleep(_OFFSETS)
            done, self._acknowledged = self._acknowledged, set()
            offsets = {key: at for key in sorted(done) if (at := self.shards.watermark(*key)) is not None}
            if offsets:
                generation = self._generation
                try:
                    await self.link.call(
                        KAFKA,
                        "offsets",
                        lambda g=generation, o=offsets: self.world.group.commit(self.name, g, o),  # type: ignore[misc]
                    )
                except ShardLostError:
                    continue

    # -- reading ---------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """As `Consumer.getmany` and Faust's conductor behind it."""
        while True:
            await self._flows.wait()
            wanted = [key for key in sorted(self._positions) if self.shards.wants(*key)]
            if not wanted:
                await asyncio.sleep(0.02)
                continue
            if not any(self._readable(key) for key in wanted):
                before = self.world.loop.time()
                await self.world.something(_FETCH_WAIT if len(wanted) == len(self._positions) else 0.02)
                # The broker was silent for long.
                self._doubts |= self.world.loop.time() - before > _FETCH_WAIT * 0.9
            try:
                await self.link.call(KAFKA, "fetch", lambda: None)
            except UnavailableError:
                await asyncio.sleep(0.1)
                continue
            # Positions are the consumer's own: no await between them and the records.
            epoch, arrived = self._fetch(wanted)
            if arrived and self._doubts:
                self._doubts = False
                if not await self.shards.are_same(arrived):
                    continue
            for (topic, partition), (start, end, records) in arrived.items():
                if epoch != self.shards.epoch:
                    break
                batch = Batch(topic, partition, start, end, records, epoch)
                self.shards.reading(batch)
                await self._queues[topic].put(batch)

    def _readable(self, key: tuple[str, int]) -> bool:
        return key in self._positions and self._positions[key] < self.world.kafka.logs[key].stable

    def _fetch(
        self, wanted: list[tuple[str, int]]
    ) -> tuple[int, dict[tuple[str, int], tuple[int, int, list[LogRecord]]]]:
        arrived = {}
        for key in wanted:
            log = self.world.kafka.logs[key]
            start = self._positions.get(key)
            if start is None or start >= log.stable:
                continue
            end = min(log.stable, start + self.world.rng.randint(1, self.world.fetched_at_once))
            self._positions[key] = end
            arrived[key] = start, end, log.between(start, end)
        return self._epoch, arrived

    async def _agent(self, topic: str) -> None:
        queue = self._queues[topic]
        while True:
            batch = await queue.get()
            await self.link.awake()
            if self.world.rng.random() < 0.2:
                await asyncio.sleep(self.world.rng.random() * 0.05)
                await self.link.awake()
            self.shards.hand(batch, self._done(topic, batch.partition))

    def _done(self, topic: str, partition: int) -> Callable[[], object]:
        return lambda: self._acknowledged.add((topic, partition))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self.world.settings.sweep_interval)
            await self.link.awake()
            await self.sweeper.sweep()
            await self.link.awake()
