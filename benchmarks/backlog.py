"""Purchases that are in Kafka and that nobody may read yet: all of them can be read from one instant on.

Workers that join on a topic that is full already do so one after the other: the first one takes everything, works, and
has to hand most of it over again. Where the topic is empty, it is the producer whose speed is measured. So all is
written in a transaction that is left open: a `read_committed` reader sees nothing of it until it is committed.
"""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Self

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from benchmarks.worker import BenchmarkError
from cli.demo.data import Event
from schemas.placing import place_of
from streams.protocols import PURCHASES
from streams.settings import Settings

#: Seconds within which the broker must have taken, or told, something.
_WITHIN = 120.0
_AGAIN = 0.05
#: Bytes of a batch of one partition: some 300 purchases.
_BATCH_BYTES = 65_536


class Backlog:
    """Purchases of one transaction. `first` and `counts`: its first position and how many, by partition."""

    def __init__(self, settings: Settings, partitions: int, name: str) -> None:
        """`name` must not be that of another backlog of these servers which is still held."""
        self._settings, self._partitions = settings, partitions
        self._topic = settings.topic(PURCHASES)
        self._producer = Producer(
            {
                "bootstrap.servers": settings.brokers,
                "transactional.id": name,
                # The most that a broker allows: workers may take their time to join.
                "transaction.timeout.ms": 900_000,
                "linger.ms": 20,
                "batch.size": _BATCH_BYTES,
                "log_level": 2,  # It tells of a coordinator that is not there yet, and of a broker that is stopped.
            }
        )
        self.first: list[int] = []
        self.counts: list[int] = []

    @property
    def events(self) -> int:
        """How many purchases it has."""
        return sum(self.counts)

    def hold(self, events: Iterable[Event]) -> Self:
        """Write them, and have the broker take them all. Raises BenchmarkError where it does not."""
        producer, counts = self._producer, Counter[int]()
        try:
            producer.init_transactions(_WITHIN)
            producer.begin_transaction()
            self.first = self._ends()
            for number, event in enumerate(events, 1):
                key, partition = place_of(event.key.decode(), self._partitions)
                counts[partition] += 1
                while True:
                    try:
                        producer.produce(self._topic, value=event.value, key=key, partition=partition)
                    except BufferError:
                        producer.poll(0.1)
                    else:
                        break
                if not number % 1_000:
                    producer.poll(0)
            left = producer.flush(_WITHIN)
        except KafkaException as error:
            raise BenchmarkError(f"the purchases cannot be published: {error}") from error
        self.counts = [counts[partition] for partition in range(self._partitions)]
        taken = [end - first for end, first in zip(self._ends(), self.first, strict=True)]
        if left or taken != self.counts:
            raise BenchmarkError(f"of {self.events:,} purchases the broker has taken {sum(taken):,}")
        return self

    def release(self) -> None:
        """From now on all of it can be read."""
        try:
            self._producer.commit_transaction(_WITHIN)
        except KafkaException as error:
            raise BenchmarkError(f"the transaction of the purchases is not committed: {error}") from error

    def read(self, watermarks: Iterable[int]) -> int:
        """How many of its purchases lie before these positions, of all partitions."""
        return read_of(watermarks, self.first, self.counts)

    def _ends(self) -> list[int]:
        """The end of each partition, with what is not committed."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._settings.brokers,
                "group.id": "bench-ends",  # Never joined.
                "isolation.level": "read_uncommitted",
            }
        )
        give_up = time.monotonic() + _WITHIN
        try:
            while True:
                try:
                    return [
                        consumer.get_watermark_offsets(
                            TopicPartition(self._topic, partition), timeout=_WITHIN
                        )[1]
                        for partition in range(self._partitions)
                    ]
                except KafkaException:
                    # A topic that was just made has no leader yet.
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(_AGAIN)
        finally:
            consumer.close()


def read_of(watermarks: Iterable[int], first: Sequence[int], counts: Sequence[int]) -> int:
    """Of so many records by partition, from a first position on, how many lie before these. What stands before and
    behind them, such as the marker of a transaction, is none of them."""
    return sum(
        min(max(0, at - begin), count) for at, begin, count in zip(watermarks, first, counts, strict=True)
    )
