"""A writer whose transaction ends under its hands loses its shard, and no more: aiokafka says that in several ways."""

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, ProducerFenced
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.producer.transaction_manager import TransactionManager

from streams.kafka_log import KafkaWriter
from streams.protocols import Mark, OutRecord, RefusedError
from streams.settings import Settings
from streams.topics import TIER_CHANGES


class Producer:
    """aiokafka's, with its own transaction manager, which another worker fences at the second batch."""

    def __init__(self, notices_by: str) -> None:
        self.transaction = TransactionManager("kizuna-0", 10_000)
        self.transaction.set_pid_and_epoch(1, 0)
        self._notices_by = notices_by
        self._sent = 0

    async def begin_transaction(self) -> None:
        self.transaction.begin_transaction()

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(1_000, 0, is_transactional=True)

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> Any:
        self._sent += 1
        if self._sent == 2:
            self.transaction.fatal_error(ProducerFenced())
            self.transaction.wait_for_transaction_end().exception()
        if self._notices_by == "state" and not self.transaction.is_in_transaction():
            raise IllegalOperation("Can't send messages while not in transaction")
        self.transaction.maybe_add_partition_to_txn(TopicPartition(topic, partition))


@pytest.mark.parametrize("notices_by", ["state", "assertion"])
async def test_a_transaction_that_is_fenced_between_two_batches_is_refused(notices_by: str) -> None:
    writer: Any = object.__new__(KafkaWriter)
    writer._settings, writer._producer = Settings(), Producer(notices_by)
    records = [OutRecord(TIER_CHANGES, 0, b"900", b"x" * 600, ()) for _ in range(3)]
    with pytest.raises(RefusedError, match="the transaction was over"):
        await writer.publish(records, Mark(3, 0))
