"""One worker process: the real Shards and Sweeper, and a reader that feeds them as `streams.transport` does."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from loyalty.customer import Customer
from loyalty.packing import Packing
from streams.intake import Intake
from streams.metrics import Metrics
from streams.placement import home
from streams.protocols import (
    INPUTS,
    Batch,
    Commit,
    Due,
    FatalError,
    Mark,
    OutRecord,
    Published,
    RefusedError,
    ShardLostError,
    ShardState,
    Stop,
    UnavailableError,
)
from streams.shard import Domain
from streams.shards import Shards
from streams.sweeper import Sweeper
from streams.topics import TIER_CHANGES
from tests.simulation.group import HEARTBEAT, Member
from tests.simulation.kafka import LogRecord
from tests.simulation.link import KAFKA, PROCESS, REDIS, Link
from tests.simulation.store import MemoryStore

if TYPE_CHECKING:
    from tests.simulation.world import World

Positions = Mapping[tuple[str, int], int]

#: The ids of the input topics.
INPUT_IDS = "one two three"
#: Seconds after which the broker aborts a transaction that was left open.
TRANSACTION = 6.0
#: Seconds between two commits of the group's offsets, and at most how long a fetch waits for something.
_OFFSETS = 1.0
_FETCH_WAIT = 0.4
#: How often the end of the output is asked for before Kafka counts as not answering.
_TOLD_TRIES = 300


class LinkedStore:
    """`streams.protocols.Store` and `Clock` at the other end of a link."""

    def __init__(self, link: Link, store: MemoryStore) -> None:
        self._link = link
        self._store = store

    async def now(self) -> int:
        return await self._link.call(REDIS, "now", self._link.world.now)

    async def peek(self, partition: int) -> ShardState | None:
        return await self._link.call(REDIS, "peek", lambda: self._store.peek(partition))

    async def take_over(
        self, partition: int, token: str, begin: Mapping[str, int], published: Mark
    ) -> tuple[ShardState, list[bytes]]:
        return await self._link.call(
            REDIS, "take_over", lambda: self._store.take_over(partition, token, begin, published)
        )

    async def restore(
        self, partition: int, token: str, outbox: Sequence[bytes], published: Mark
    ) -> ShardState:
        return await self._link.call(
            REDIS, "restore", lambda: self._store.restore(partition, token, outbox, published)
        )

    async def load(self, partition: int, customer_ids: Sequence[str], packing: Packing) -> list[Customer]:
        if not customer_ids:
            return []
        return await self._link.call(
            REDIS, "load", lambda: self._store.load(partition, customer_ids, packing)
        )

    async def commit(self, partition: int, token: str, version: int, commit: Commit) -> None:
        await self._link.call(REDIS, "commit", lambda: self._store.commit(partition, token, version, commit))

    async def trim(self, partition: int, token: str, published: int, output: int | None) -> None:
        await self._link.call(REDIS, "trim", lambda: self._store.trim(partition, token, published, output))

    async def due(self, partition: int, token: str, version: int, until: int, limit: int) -> Due:
        return await self._link.call(
            REDIS, "due", lambda: self._store.due(partition, token, version, until, limit)
        )

    async def unmoved(self, partition: int, token: str, limit: int) -> tuple[list[str], int]:
        return await self._link.call(REDIS, "unmoved", lambda: self._store.unmoved(partition, token, limit))


class LinkedLog:
    """`streams.protocols.Log` at the other end of a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._kafka = link.world.kafka

    async def starts(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        wanted = [(topic, p) for p in partitions for topic in INPUTS]
        return await self._link.call(
            KAFKA, "starts", lambda: {key: self._kafka.logs[key].start for key in wanted}
        )

    async def ends(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        wanted = [(topic, p) for p in partitions for topic in INPUTS]
        return await self._link.call(
            KAFKA, "ends", lambda: {key: self._kafka.logs[key].end for key in wanted}
        )

    async def inputs(self) -> tuple[str, int]:
        return await self._link.call(KAFKA, "inputs", lambda: (INPUT_IDS, self._link.world.partitions))

    async def told(self, positions: Mapping[int, int]) -> dict[int, list[Published]]:
        ends = await self._link.call(
            KAFKA, "told ends", lambda: {p: self._end(p, at) for p, at in positions.items()}
        )
        # Whoever asks has initialised the partition's writer. What is open now is a later owner's.
        for _ in range(_TOLD_TRIES):
            found = await self._link.call(
                KAFKA, "told", lambda: {p: self._told(p, at, ends[p]) for p, at in positions.items()}
            )
            if all(records is not None for records in found.values()):
                if any(found.values()):
                    self._link.world.count("take-overs with something published since")
                return {p: records for p, records in found.items() if records}
            await asyncio.sleep(0.1)
        raise UnavailableError("tier-changes could not be read to its end")

    def _end(self, partition: int, at: int) -> int:
        end = self._kafka.log(TIER_CHANGES, partition).end
        if at > end:
            raise FatalError(f"tier-changes-{partition} ends at {end}, not at {at}", Stop.LOG_ENDS_BEFORE)
        return end

    def _told(self, partition: int, at: int, end: int) -> list[Published] | None:
        """None where an open transaction hides some of it."""
        log = self._kafka.log(TIER_CHANGES, partition)
        if log.stable < end:
            return None
        return [Published(r.value, r.headers) for r in log.between(max(at, log.start), end)]

    async def committed(self) -> dict[tuple[str, int], int]:
        return await self._link.call(KAFKA, "committed", lambda: dict(self._link.world.group.offsets))

    async def writer(self, partition: int) -> "LinkedWriter":
        name = self.transactional_id(partition)
        while True:
            epoch = await self._link.call(KAFKA, "initialise", lambda: self._initialise(name))
            if epoch is not None:
                return LinkedWriter(self._link, partition, name, epoch)
            await asyncio.sleep(0.02)

    def transactional_id(self, partition: int) -> str:
        """The same in every process: whoever initialises it fences the others."""
        return f"{self._link.world.settings.group}-{partition}"

    def _initialise(self, name: str) -> int | None:
        """None where a decided transaction is not carried out yet: the client asks again."""
        return self._kafka.initialise(name) if self._kafka.is_settled(name) else None


class LinkedWriter:
    """`streams.protocols.Writer`: the steps of `KafkaWriter.publish`, each an await of its own."""

    def __init__(self, link: Link, partition: int, name: str, epoch: int) -> None:
        self._link = link
        self._kafka = link.world.kafka
        self._partition = partition
        self._name = name
        self._epoch = epoch
        self._group = f"{link.world.settings.group}.outbox"

    async def published(self) -> Mark:
        return await self._link.call(
            KAFKA, "published", lambda: self._kafka.numbers.get((self._group, self._partition), Mark())
        )

    async def publish(self, records: Iterable[OutRecord], upto: Mark) -> int | None:
        link, kafka, name, epoch = self._link, self._kafka, self._name, self._epoch
        world = link.world
        by_target: dict[tuple[str, int], list[OutRecord]] = {}
        for record in records:
            by_target.setdefault((record.topic, self._target(record)), []).append(record)
        while not kafka.is_settled(name):
            await asyncio.sleep(0.005)
            await link.awake()
        transaction = await link.call(KAFKA, "begin", lambda: kafka.begin(name, epoch))
        world.loop.call_later(TRANSACTION, lambda: kafka.expire(name, transaction))
        behind: int | None = None

        def send(partition: int, batch: list[OutRecord]) -> LogRecord:
            return [kafka.send(name, epoch, partition, record) for record in batch][-1]

        for (topic, partition), batch in by_target.items():
            made = await link.call(KAFKA, "send", lambda p=partition, b=batch: send(p, b))  # type: ignore[misc]
            if topic == TIER_CHANGES:
                behind = made.offset + 1

        def number() -> None:
            kafka.check(name, epoch, transaction)
            transaction.numbers[self._group, self._partition] = upto

        await link.call(KAFKA, "number", number)
        await link.call(KAFKA, "decide", self._decide)
        return behind

    def _decide(self) -> None:
        kafka, world = self._kafka, self._link.world
        kafka.decide(self._name, self._epoch, commits=True)
        producer = kafka.producers[self._name]
        if delay := world.delay():
            world.loop.call_later(delay, kafka.carry_out, producer)
        else:
            kafka.carry_out(producer)

    def _target(self, record: OutRecord) -> int:
        if record.partition is not None:
            return record.partition
        count = self._link.world.partitions_of(record.topic)
        return self._partition % count if record.key is None else home(record.key, count)

    async def close(self) -> None:
        """An open transaction is aborted by whoever initialises the name next, or by the broker."""
        await self._link.awake()


class Worker:
    """A process, from its start to its end. `name` is of this process alone."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.link = Link(world, name, self._is_healing)
        settings, program = world.settings, world.program
        self.metrics = Metrics()
        domain = Domain(program, Intake(settings, program, world.placement), settings.falls_limit)
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
            or any(self.shards._in_hand.values())
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
                await self.world.something(_FETCH_WAIT if len(wanted) == len(self._positions) else 0.02)
            try:
                await self.link.call(KAFKA, "fetch", lambda: None)
            except UnavailableError:
                await asyncio.sleep(0.1)
                continue
            # Positions are the consumer's own: no await between them and the records.
            epoch, arrived = self._fetch(wanted)
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
