"""Store, clock, log and writer, as a worker's shards have them: at the other end of a link."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from loyalty.customer import Customer
from loyalty.packing import Packing
from schemas.murmur2 import home
from streams.outbox import decode
from streams.protocols import (
    INPUTS,
    Commit,
    Due,
    FatalError,
    Mark,
    OutRecord,
    Published,
    ShardState,
    Stop,
    UnavailableError,
)
from streams.topics import BOND_TOPICS, TIER_CHANGES
from tests.simulation.kafka import LogRecord
from tests.simulation.link import KAFKA, REDIS, Link
from tests.simulation.store import MemoryStore

#: The ids of the input topics.
INPUT_IDS = "one two three"
_OUTPUTS = (TIER_CHANGES, *BOND_TOPICS)
#: Seconds after which the broker aborts a transaction that was left open.
TRANSACTION = 6.0
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
        await self._link.call(REDIS, "commit", lambda: self._commit(partition, token, version, commit))

    def _commit(self, partition: int, token: str, version: int, commit: Commit) -> None:
        held, known = self._store.shard(partition).hash, self._link.world.known
        before = {topic: int(held.get(f"offset:{topic}", 0)) for topic in INPUTS}
        self._store.commit(partition, token, version, commit)
        for raw in commit.outbox:
            if (value := decode(raw).value) is not None:
                least = known.get(value, before)
                known[value] = {topic: min(at, least[topic]) for topic, at in before.items()}

    async def trim(
        self, partition: int, token: str, version: int, published: int, outputs: Mapping[str, int]
    ) -> None:
        await self._link.call(
            REDIS, "trim", lambda: self._store.trim(partition, token, version, published, outputs)
        )

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

    async def told(self, positions: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], list[Published]]:
        ends = await self._link.call(
            KAFKA, "told ends", lambda: {key: self._end(key, at) for key, at in positions.items()}
        )
        # Whoever asks has initialised the partition's writer. What is open now is a later owner's.
        for _ in range(_TOLD_TRIES):
            found = await self._link.call(
                KAFKA, "told", lambda: {key: self._told(key, at, ends[key]) for key, at in positions.items()}
            )
            if all(records is not None for records in found.values()):
                if any(found.values()):
                    self._link.world.count("take-overs with something published since")
                return {key: records for key, records in found.items() if records}
            await asyncio.sleep(0.1)
        raise UnavailableError("an output could not be read to its end")

    def _end(self, key: tuple[str, int], at: int) -> int:
        end = self._kafka.log(*key).end
        if at > end:
            raise FatalError(f"{key[0]}-{key[1]} ends at {end}, not at {at}", Stop.LOG_ENDS_BEFORE)
        return end

    def _told(self, key: tuple[str, int], at: int, end: int) -> list[Published] | None:
        """None where an open transaction hides some of it."""
        log = self._kafka.log(*key)
        if log.stable < end:
            return None
        return [Published(r.offset, r.value, r.headers) for r in log.between(max(at, log.start), end)]

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

    async def publish(self, records: Iterable[OutRecord], upto: Mark) -> dict[str, int]:
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
        behind: dict[str, int] = {}

        def send(partition: int, batch: list[OutRecord]) -> LogRecord:
            return [kafka.send(name, epoch, partition, record) for record in batch][-1]

        for (topic, partition), batch in by_target.items():
            made = await link.call(KAFKA, "send", lambda p=partition, b=batch: send(p, b))  # type: ignore[misc]
            if topic in _OUTPUTS:
                behind[topic] = made.offset + 1

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
