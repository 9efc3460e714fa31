"""What the tests of the commands send and find."""

import json
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from cli.local_stack import LocalStack
from tests.cli.conftest import PARTITIONS, ROOT

GROCERY = ROOT / "examples" / "grocery.toml"
LOYAL = ROOT / "examples" / "loyal.toml"


def purchase(event_id: str, customer_id: str, **given: Any) -> str:
    return json.dumps(
        {
            "event_id": event_id,
            "type": "purchase",
            "customer_id": customer_id,
            "occurred_at": "2024-01-05T10:00:00Z",
            "order_id": event_id,
            "amount": "5.00",
            "currency": "USD",
            **given,
        }
    )


def records(stack: LocalStack, topic: str, count: int) -> list[Any]:
    """All records of a topic, which are so many."""
    consumer = KafkaConsumer(
        bootstrap_servers=stack.brokers, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
    found = [next(consumer) for _ in range(count)]
    assert sum(consumer.end_offsets(list(consumer.assignment())).values()) == count
    consumer.close()
    return found
