"""How the peers on aiokafka read and publish: as Kizuna's worker does, without transactions."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from benchmarks.peers.work import Place


async def batches(place: Place) -> AsyncIterator[tuple[int, Sequence[Any]]]:
    """All records of the input from the beginning on, batch by batch, each with its partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=place.brokers,
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * 1024 * 1024,
        fetch_max_wait_ms=50,
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(place.input, partition) for partition in range(place.partitions)])
        await consumer.seek_to_beginning()
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=1000)).items():
                yield partition.partition, records
    finally:
        await consumer.stop()


class Publishing:
    """A plain producer: a record is sent when there is a batch of them or a few milliseconds have passed."""

    def __init__(self, place: Place) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=place.brokers, linger_ms=5, max_batch_size=256 * 1024
        )
        self._topic = place.output

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def send(self, partition: int, customer_id: str, value: bytes) -> None:
        """Hand a record on; nobody waits for the broker."""
        await self._producer.send(self._topic, value, customer_id.encode(), partition=partition)

    async def stop(self) -> None:
        """Send what is left."""
        await self._producer.stop()
