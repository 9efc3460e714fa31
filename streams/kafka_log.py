"""Kafka beside the reading: positions, what the group has committed, and a transactional writer per shard."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from schemas.murmur2 import home
from streams.protocols import (
    INPUTS,
    FatalError,
    Mark,
    OutRecord,
    Published,
    RefusedError,
    Stop,
    UnavailableError,
)
from streams.settings import Settings
from streams.topics import BOND_TOPICS, TIER_CHANGES, administration, describe_inputs

T = TypeVar("T")

#: Producer batches are closed at this size; a single larger record still goes, alone, up to the topic's own limit.
_BATCH_BYTES = 512 * 1024
#: Above the dead-letter topic's limit, so that the broker and not the client judges a record's size.
_REQUEST_BYTES = 4 * 1024 * 1024
#: A request that times out in the client while the broker still works on it can wedge an idempotent producer
#: (aiokafka 1017), so the client waits long; a vanished broker is noticed by its closed connection.
_REQUEST_TIMEOUT_MS = 120_000
#: Seconds without anything new while the output is read to its end, after which Kafka counts as not answering.
_READ_TIMEOUT = 30.0
#: After this long the broker aborts what a vanished worker left open; a take-over does so at once.
_TRANSACTION_TIMEOUT_MS = 60_000


class KafkaLog:
    """`streams.protocols.Log` on one cluster. Start it before use, stop it at the end."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._settings = settings
        self._partitions = partitions
        self._probe: Any = None
        self._output: Any = None
        self._admin: Any = None
        self._reading_output = asyncio.Lock()

    async def start(self) -> None:
        """Connect. Raises UnavailableError."""
        brokers = self._settings.broker_list()
        async with answers():
            # Reads no records: only asks where partitions begin and end, open transactions included.
            self._probe = AIOKafkaConsumer(bootstrap_servers=brokers, isolation_level="read_uncommitted")
            # Reads what was published, at take-overs.
            self._output = AIOKafkaConsumer(
                bootstrap_servers=brokers,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="none",
                fetch_max_wait_ms=50,
            )
            self._admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
            await self._probe.start()
            await self._output.start()
            await self._admin.start()

    async def stop(self) -> None:
        """Close the connections."""
        if self._probe is not None:
            await self._probe.stop()
            await self._output.stop()
            await self._admin.close()

    async def starts(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        """First position there is."""
        async with answers():
            return self._named(await self._probe.beginning_offsets(self._inputs(partitions)))

    async def ends(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        """Position behind the last record, open transactions included."""
        async with answers():
            return self._named(await self._probe.end_offsets(self._inputs(partitions)))

    async def inputs(self) -> tuple[str, int]:
        """The input topics, as the brokers have them now."""
        return await asyncio.to_thread(self._inputs_now)

    def _inputs_now(self) -> tuple[str, int]:
        # aiokafka cannot tell.
        try:
            with administration(self._settings) as admin:
                return describe_inputs(admin, self._settings)
        except FatalError as error:
            raise UnavailableError(str(error)) from error

    async def told(self, positions: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], list[Published]]:
        """What stands in output topics from these positions on, up to the ends there are now."""
        wanted = {TopicPartition(self._settings.topic(name), p): at for (name, p), at in positions.items()}
        async with answers(), self._reading_output:
            ends = await self._probe.end_offsets(list(wanted))
            starts = await self._probe.beginning_offsets(list(wanted))
            for tp, at in wanted.items():
                if at > ends[tp]:
                    raise _output_lost(tp, at, ends[tp])
            # The last position of a transaction is its marker's: where only that is left, there is nothing to read.
            unread = {tp: max(at, starts[tp]) for tp, at in wanted.items() if at + 1 < ends[tp]}
            found = await self._read(unread, ends) if unread else {}
        return self._named({tp: records for tp, records in found.items() if records})

    async def _read(
        self, positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, list[Published]]:
        consumer, loop = self._output, asyncio.get_running_loop()
        found: dict[TopicPartition, list[Published]] = {tp: [] for tp in positions}
        consumer.assign(list(positions))
        for tp, at in positions.items():
            consumer.seek(tp, at)
        left, moved_at = dict(positions), loop.time()
        while left:
            for tp, records in (await consumer.getmany(*left, timeout_ms=100)).items():
                found[tp] += (Published(record.offset, record.value, record.headers) for record in records)
            for tp, before in list(left.items()):
                # Positions move over markers, too.
                if (at := await consumer.position(tp)) != before:
                    left[tp], moved_at = at, loop.time()
                if at >= ends[tp]:
                    del left[tp]
            if loop.time() - moved_at > _READ_TIMEOUT:
                raise UnavailableError(f"{next(iter(left))} could not be read to its end")
        return found

    async def committed(self) -> dict[tuple[str, int], int]:
        """What the group has committed on the inputs."""
        async with answers():
            held = await self._admin.list_consumer_group_offsets(self._settings.group)
        inputs = set(self._inputs(range(self._partitions)))
        return self._named({tp: at.offset for tp, at in held.items() if tp in inputs and at.offset >= 0})

    async def writer(self, partition: int) -> "KafkaWriter":
        """The shard's transactional producer, initialised: fences a predecessor and settles what it left open."""
        writer = KafkaWriter(self._settings, self._admin, partition)
        await writer.start()
        return writer

    def _inputs(self, partitions: Iterable[int]) -> list[TopicPartition]:
        held = list(partitions)
        return [TopicPartition(self._settings.topic(name), p) for name in INPUTS for p in held]

    def _named(self, found: Mapping[TopicPartition, T]) -> dict[tuple[str, int], T]:
        cut = len(self._settings.topic_prefix)
        return {(tp.topic[cut:], tp.partition): one for tp, one in found.items()}


def _output_lost(tp: TopicPartition, at: int, end: int) -> FatalError:
    return FatalError(
        f"{tp.topic}-{tp.partition}: the store knows what was published up to {at}, the log ends at {end}: it lost "
        "records or is another; restore it, or make the state anew with `kizuna rebuild`",
        Stop.LOG_ENDS_BEFORE,
    )


class KafkaWriter:
    """The only producer that may publish a shard's outbox: `transactional.id` is `<group>-<partition>`."""

    def __init__(self, settings: Settings, admin: AIOKafkaAdminClient, partition: int) -> None:
        self._settings = settings
        self._admin = admin
        self._group = f"{settings.group}.outbox"
        self._output = TopicPartition(settings.topic(TIER_CHANGES), partition)
        self._outputs = {
            TopicPartition(settings.topic(name), partition): name for name in (TIER_CHANGES, *BOND_TOPICS)
        }
        #: Positions there behind what this writer published last.
        self._ends: dict[TopicPartition, int] = {}
        #: Partitions of the topics whose records go by key.
        self._counts: dict[str, int] = {}
        self._producer = AIOKafkaProducer(
            bootstrap_servers=settings.broker_list(),
            transactional_id=f"{settings.group}-{partition}",
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=_REQUEST_TIMEOUT_MS,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
            acks="all",
        )

    async def start(self) -> None:
        """Fence the predecessor. Raises UnavailableError."""
        try:
            async with answers():
                await self._producer.start()
        except BaseException:
            await self.close()
            raise

    async def published(self) -> Mark:
        """Up to where the outbox was published."""
        async with answers():
            held = await self._admin.list_consumer_group_offsets(self._group, partitions=[self._output])
        if self._output not in held or held[self._output].offset < 0:
            return Mark()
        return Mark(held[self._output].offset, int(held[self._output].metadata or 0))

    async def publish(self, records: Iterable[OutRecord], upto: Mark) -> dict[str, int]:
        """All records and the number of the last entry, in one transaction; see `streams.protocols.Writer`.

        Raises FatalError where an output was deleted and made anew since the last time: nobody else writes it, so it
        only grows. The transaction is left to be aborted.
        """
        producer = self._producer
        async with _transaction(producer):
            sent: dict[TopicPartition, list[tuple[asyncio.Future[Any], int]]] = {}
            building: dict[TopicPartition, Any] = {}
            for record in records:
                target = await self._target(record)
                batch = building.get(target)
                if batch is None:
                    batch = building[target] = producer.create_batch()
                if not _append(batch, record):
                    sent.setdefault(target, []).append(await self._send(batch, target))
                    batch = building[target] = producer.create_batch()
                    _append(batch, record)
            for target, batch in building.items():
                sent.setdefault(target, []).append(await self._send(batch, target))
            behind: dict[str, int] = {}
            for target, batches in sent.items():
                name = self._outputs.get(target)
                for future, count in batches:
                    metadata = await future
                    if name is not None:
                        if metadata.offset < (end := self._ends.get(target, 0)):
                            raise _output_lost(target, end, metadata.offset)
                        behind[name] = self._ends[target] = metadata.offset + count
            # Only now, not beside the records: a broker verifies the transaction of what it is to write, and while the
            # group is being added to it it answers with an error, after which aiokafka waits 100 ms.
            await producer.send_offsets_to_transaction(
                {self._output: OffsetAndMetadata(upto.number, str(upto.reign))}, self._group
            )
            await producer.commit_transaction()
        return behind

    async def _send(self, batch: Any, target: TopicPartition) -> "tuple[asyncio.Future[Any], int]":
        """Its future gives the offset of its first record; and how many there are."""
        batch.close()
        future: asyncio.Future[Any] = await self._producer.send_batch(
            batch, target.topic, partition=target.partition
        )
        return future, batch.record_count()

    async def _target(self, record: OutRecord) -> TopicPartition:
        topic = self._settings.topic(record.topic)
        if record.partition is not None:
            return TopicPartition(topic, record.partition)
        count = self._counts.get(topic)
        if count is None:
            count = self._counts[topic] = len(await self._producer.partitions_for(topic))
        # A dead letter without a key stays beside its shard's others; with one, Kafka's own default decides.
        key = record.key
        return TopicPartition(topic, self._output.partition % count if key is None else home(key, count))

    async def close(self) -> None:
        """Leave the producer; an open transaction is aborted by whoever initialises the id next."""
        try:
            await asyncio.wait_for(self._producer.stop(), timeout=5)
        except (KafkaError, OSError, TimeoutError):
            # It was fenced or the broker is gone: the next owner settles what is open.
            return


def _append(batch: Any, record: OutRecord) -> bool:
    return (
        batch.append(timestamp=None, key=record.key, value=record.value, headers=list(record.headers))
        is not None
    )


@asynccontextmanager
async def _transaction(producer: AIOKafkaProducer) -> AsyncIterator[None]:
    """A transaction that is begun; with what `answers` does."""
    async with answers():
        await producer.begin_transaction()
        try:
            yield
        except (IllegalOperation, AssertionError) as error:
            # So aiokafka says it where it was fenced, or the transaction failed, between two calls of one transaction.
            raise RefusedError(f"the transaction was over before all was in it: {error}") from error


@asynccontextmanager
async def answers() -> AsyncIterator[None]:
    """Turns Kafka's errors into what they mean for a shard."""
    try:
        yield
    except ProducerFenced as error:
        raise RefusedError("another worker has initialised the shard's transactional producer") from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Kafka did not answer: {type(error).__name__}: {error}") from error
