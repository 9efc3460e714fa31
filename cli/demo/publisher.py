"""Publishes the year in order of time."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from cli.demo.data import Event
from schemas.murmur2 import home
from streams.protocols import PURCHASES, TOUCHPOINTS
from streams.settings import Settings

#: What the year is published to.
REPLAYED = (PURCHASES, TOUCHPOINTS)

#: Events published at a time, and how large a batch of one partition may become: all of them, if need be.
_PART = 2_000
_BATCH_BYTES = 1_000_000


class Publisher:
    """Publishes `events`, in this order, as fast as it can or as far ahead of the worker as it is let."""

    def __init__(self, settings: Settings, partitions: int, events: Sequence[Event]) -> None:
        self._settings = settings
        self._partitions = partitions
        self._events = events
        self._read = 0
        self._limit = len(events)
        #: How many the broker has.
        self.acknowledged = 0

    def keep_to(self, read: int, limit: int) -> None:
        """Stay within `limit` for now, unless the worker has `read` everything: then one part more."""
        self._read, self._limit = read, limit

    async def run(self) -> None:
        """All of them; a customer's events go to its partition, so that their order is kept."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.brokers, enable_idempotence=True, max_batch_size=_BATCH_BYTES
        )
        await producer.start()
        try:
            while self.acknowledged < len(self._events):
                if self._read < self.acknowledged and self.acknowledged >= self._limit:
                    await asyncio.sleep(0.005)
                    continue
                part = self._events[self.acknowledged : self.acknowledged + _PART]
                await asyncio.gather(*await self._send(producer, part))
                self.acknowledged += len(part)
        finally:
            await producer.stop()

    async def _send(self, producer: Any, part: Sequence[Event]) -> list[Awaitable[object]]:
        # One batch for each partition, made here: the producer's own way, record by record, is slower than
        # the worker.
        batches: dict[tuple[str, int], Any] = {}
        for topic, key, value, _ in part:
            to = topic, home(key, self._partitions)
            batch = batches.get(to)
            if batch is None:
                batch = batches[to] = producer.create_batch()
            if batch.append(key=key, value=value, timestamp=None) is None:
                raise ValueError(f"a batch of {_BATCH_BYTES} bytes is too small for {_PART} events")
        sent = []
        for (topic, partition), batch in batches.items():
            batch.close()
            sent.append(await producer.send_batch(batch, self._settings.topic(topic), partition=partition))
        return sent

    async def held(self) -> int:
        """Records that the input topics hold."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self._settings.brokers)
        await consumer.start()
        try:
            partitions = [
                TopicPartition(self._settings.topic(topic), partition)
                for topic in REPLAYED
                for partition in range(self._partitions)
            ]
            return sum((await consumer.end_offsets(partitions)).values())
        finally:
            await consumer.stop()
