"""One schedule: servers, workers, what is fed in, what goes wrong; from the first record until all is quiet."""

import asyncio
import zlib
from collections import Counter
from functools import partial
from random import Random

from schemas.program import Program
from streams.protocols import INPUTS, PURCHASES, Binding, Mark, RefusedError
from streams.settings import ClockKind, Settings
from streams.topics import DEAD_LETTERS, copartitioned
from tests.simulation.faults import Fault, Faults, draw
from tests.simulation.group import SESSION, Group
from tests.simulation.inputs import Feed, Scenario
from tests.simulation.kafka import Kafka, PartitionLog
from tests.simulation.link import Link
from tests.simulation.marketing import Marketing
from tests.simulation.outside import INPUT_IDS
from tests.simulation.store import MemoryStore, Server
from tests.simulation.virtual_time import VirtualLoop
from tests.simulation.worker import Worker

#: Virtual seconds after which a quiet world that is not done is stuck.
_PATIENCE = 120.0


class StuckError(Exception):
    """All faults are over, and still something is unread, unpublished or not swept."""


class World:
    """Everything of one schedule."""

    def __init__(
        self, loop: VirtualLoop, rng: Random, scenario: Scenario, kinds: dict[str, int], tell: bool
    ) -> None:
        self.loop = loop
        self.rng = rng
        self.scenario = scenario
        self.program: Program = scenario.program
        self.partitions = scenario.partitions
        self.settings = Settings(
            clock=scenario.clock,
            cache_customers=rng.choice((1, 2, 100)),
            outbox_bound=rng.choice((1, 3, 100)),
            sweep_interval=rng.choice((0.1, 0.3, 0.7, 1.0)),
            falls_limit=rng.choice((0.0, 0.0, 0.0, 0.0, 0.3)),
        )
        #: How slow the network is, and how many records a fetch brings at most.
        self._slowness = rng.choice((1, 1, 1, 10))
        self.fetched_at_once = rng.choice((1, 3, 6, 100))
        self.never: asyncio.Future[None] = loop.create_future()
        self.is_calm = False
        self._frozen: int | None = None
        self.kafka = Kafka(self.wall)
        for topic in copartitioned(self.program):
            for partition in range(scenario.partitions):
                self.kafka.logs[topic, partition] = PartitionLog(rng.choice((0, 0, 7)))
        for partition in range(scenario.letter_partitions):
            self.kafka.logs[DEAD_LETTERS, partition] = PartitionLog()
        self.kafka.moved = self._moved
        self._readers: list[asyncio.Future[None]] = []
        self.server = Server()
        self.binding = Binding(
            "cluster",
            self.settings.topic_prefix,
            self.settings.group,
            scenario.partitions,
            self.program.id,
            "v",
            INPUT_IDS,
        )
        self.store = MemoryStore(self.server, self.settings.redis_prefix, self.binding)
        self.group = Group(loop, scenario.partitions)
        self.down: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        #: By value of an outbox entry: up to where each input had been read before it was decided, at the least.
        self.known: dict[bytes, dict[str, int]] = {}
        self.failures: list[str] = []
        self.lost_writes = False
        #: How often somebody put back falls that nobody had been told of.
        self.drops = 0
        self.workers: list[Worker] = []
        #: Those that are gone, too: what hangs in them is cancelled in the end, and not earlier.
        self.ever: list[Worker] = []
        self._born = 0
        self._due_to_come = 0
        self.digest = 0
        self.told: list[str] | None = [] if tell else None
        self.faults = Faults(self, draw(rng, scenario.span, scenario.partitions, kinds))
        self.feed = Feed(self, scenario)
        self.marketing = Marketing(self)

    # -- time ------------------------------------------------------------------------------------------------------

    def wall(self) -> int:
        """The brokers' clock, epoch milliseconds."""
        return self.scenario.start + round(self.loop.time() * 1000)

    def now(self) -> int:
        """The Redis server's clock."""
        return self.wall() if self._frozen is None else self._frozen

    def delay(self) -> float:
        """How long a message is on its way, in seconds."""
        drawn = self.rng.random()
        if drawn < 0.55:
            return 0.0
        if drawn < 0.93:
            return drawn * 0.004 * self._slowness
        if drawn < 0.99 or self.is_calm:
            return drawn * 0.05 * self._slowness
        return self.rng.random() * 1.5

    async def something(self, timeout: float) -> None:
        """Wait until something was appended somewhere, for so many seconds at most."""
        waiting = self.loop.create_future()
        self._readers.append(waiting)
        timer = self.loop.call_later(timeout, _done, waiting)
        await waiting
        timer.cancel()

    def _moved(self) -> None:
        readers, self._readers = self._readers, []
        for waiting in readers:
            _done(waiting)

    # -- what is told ----------------------------------------------------------------------------------------------

    def trace(self, *parts: str) -> None:
        """Note that something happened: the same seed always gives the same trace."""
        line = f"{self.loop.time():.6f} {' '.join(parts)}"
        self.digest = zlib.crc32(line.encode(), self.digest)
        if self.told is not None:
            self.told.append(line)

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def refused(self, link: Link, what: str, error: RefusedError) -> None:
        self.trace(link.name, what, "refused", str(error))
        self.count(f"refused: {what}")
        if link.was_asleep:
            self.count("zombies refused")

    def failed(self, worker: Worker, error: BaseException) -> None:
        """A worker could not go on: in a world where everything comes back none may."""
        import traceback

        told = "".join(traceback.format_exception(error))
        self.trace(worker.name, "failed", repr(error))
        self.failures.append(f"{worker.name} stopped: {error!r}\n{told}")

    def partitions_of(self, topic: str) -> int:
        return self.scenario.letter_partitions if topic == DEAD_LETTERS else self.partitions

    # -- faults ----------------------------------------------------------------------------------------------------

    def trouble(self, side: str) -> str | None:
        """How a call to a server fails just now, if it does."""
        until = self.down.get(side)
        if until is None or self.loop.time() >= until:
            return None
        return self.rng.choice(("before", "before", "before", "after", "late", None))

    def _worker_of(self, link: Link) -> Worker:
        return next(worker for worker in self.workers if worker.link is link)

    def begin_worker(self) -> None:
        """Start a process."""
        self._born += 1
        self.trace("start", f"w{self._born}")
        worker = Worker(self, f"w{self._born}")
        self.workers.append(worker)
        self.ever.append(worker)

    def _come_later(self, seconds: float) -> None:
        self._due_to_come += 1

        def come() -> None:
            if self._due_to_come:
                self._due_to_come -= 1
                self.begin_worker()

        self.loop.call_later(seconds, come)

    def _end(self, worker: Worker) -> None:
        worker.kill()
        self.workers.remove(worker)
        self.loop.call_later(SESSION, self.group.leave, worker.name)

    def kill(self, link: Link, fault: Fault) -> None:
        """`kill -9`; another process comes in its place."""
        if not link.alive:
            return
        worker = self._worker_of(link)
        self.count("kills")
        if worker.has_unfinished:
            self.count("kills that hit")
        self._end(worker)
        self._come_later(fault.lasts)

    def suspend(self, link: Link, seconds: float) -> None:
        """`kill -STOP`, and `kill -CONT` after a while."""
        if not link.alive or link.asleep is not None:
            return
        worker = self._worker_of(link)
        self.count("zombies")
        worker.suspend()
        worker.silent = self.loop.call_later(SESSION, self.group.leave, worker.name)

        def resume() -> None:
            if link.alive and link.asleep is not None:
                self.trace("resume", link.name)
                worker.resume()

        self.loop.call_later(seconds, resume)

    def stop(self, link: Link, seconds: float) -> None:
        """`kill -TERM`; another process comes in its place."""
        if not link.alive:
            return
        worker = self._worker_of(link)
        if worker.is_stopping:
            return
        self.count("stops")
        if worker.has_unfinished:
            self.count("stops that hit")
        worker.is_stopping = True
        worker.spawn(partial(self._stop, worker))
        self._come_later(seconds)

    async def _stop(self, worker: Worker) -> None:
        await worker.stop()
        self.workers.remove(worker)

    def join(self) -> None:
        """One more worker, as long as there are few."""
        if len(self.workers) < 3:
            self.count("joins")
            self.begin_worker()

    def lose(self, fault: Fault) -> None:
        """Redis loses its last writes."""
        lost = self.server.journal.lose(fault.writes, fault.partition)
        if not lost:
            return
        self.lost_writes = True
        self.count("losses")
        self.trace("lost", *(f"{write.what}-{write.partition}" for write in lost))
        if any(write.what == "commit" for write in lost):
            self.count("losses of commits")
        for partition in range(self.partitions):
            if self.published(partition) > int(self.store.shard(partition).hash.get("outbox_last", 0)):
                self.count("losses of what was published")

    def published(self, partition: int) -> int:
        """Number of the last outbox entry that is out."""
        return self.kafka.numbers.get((f"{self.settings.group}.outbox", partition), Mark()).number

    # -- the run ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Everything, until all is read, published and swept."""
        for _ in range(self.rng.choice((1, 1, 2, 2, 3))):
            self.begin_worker()
        self.feed.begin()
        others = [self.loop.create_task(work()) for work in (self._operate, self._send)]
        try:
            await self._run()
        finally:
            for other in others:
                other.cancel()

    async def _run(self) -> None:
        await asyncio.sleep(self.scenario.span)
        self._calm()
        await self._until(self._is_read, "read and published")
        self._frozen = self.wall() + self.scenario.beyond
        await self._until(self._is_swept, "swept")

    async def _send(self) -> None:
        while True:
            await asyncio.sleep(0.15)
            self.marketing.look()

    async def _operate(self) -> None:
        """Where the circuit breaker has paused publishing, somebody decides after a while, as `decide.lua` has it."""
        while True:
            await asyncio.sleep(0.6 + self.rng.random())
            for partition in range(self.partitions):
                held = self.store.shard(partition).hash
                if held.get("held"):
                    decision = self.rng.choice(("release", f"drop {self.now() + 5 * self.program.window}"))
                    self.count("pauses")
                    self.drops += decision != "release"
                    self.trace("decided", decision)
                    self.server.journal.begin("decide", partition)
                    self.server.journal.set(held, "decision", decision)

    def _calm(self) -> None:
        self.is_calm = True
        self.trace("calm")
        self.faults.disarm()
        self.down.clear()
        for worker in self.workers:
            if worker.link.asleep is not None:
                worker.resume()
        while self._due_to_come or not self.workers:
            self._due_to_come = max(0, self._due_to_come - 1)
            self.begin_worker()

    def tear_down(self) -> None:
        """Let what still hangs be cancelled without a trace."""
        for worker in self.ever:
            worker.kill()
            self.counts["adoptions"] += worker.adoptions

    async def _until(self, done: object, what: str) -> None:
        deadline = self.loop.time() + _PATIENCE
        while True:
            await asyncio.sleep(0.25)
            if self.failures:
                return
            missing = done()  # type: ignore[operator]
            if missing is None:
                return
            if self.loop.time() > deadline:
                raise StuckError(f"not {what} after {_PATIENCE} s: {missing}")

    def _is_read(self) -> str | None:
        if self.feed.is_feeding or self.marketing.is_sending:
            return "records are yet to come"
        for partition in range(self.partitions):
            shard = self.store.shard(partition)
            if not shard.hash:
                return f"shard {partition} was never begun"
            for topic in INPUTS:
                at, end = int(shard.hash[f"offset:{topic}"]), self.kafka.log(topic, partition).end
                if at != end:
                    return f"{topic}-{partition} is read up to {at} of {end}"
            if int(shard.hash["outbox_last"]) != self.published(partition):
                return f"the outbox of {partition} is not published"
            # A lost trim is made up for by the next one.
            if shard.outbox and not self.lost_writes:
                return f"the outbox of {partition} is not trimmed"
        return None

    def clock_of(self, partition: int) -> int | None:
        """Up to when a shard is swept in the end."""
        if self.scenario.clock is ClockKind.WALL:
            return self.now()
        newest = self.store.shard(partition).hash.get(f"newest:{PURCHASES}")
        return None if newest is None else int(newest)

    def _is_swept(self) -> str | None:
        for partition in range(self.partitions):
            clock = self.clock_of(partition)
            if clock is None:
                continue
            until = clock - self.program.allowed_lateness
            late = [c for c, at in self.store.shard(partition).due.items() if at < until]
            if late:
                return f"of shard {partition} {late} are due before {until}"
        return self._is_read()


def _done(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)
