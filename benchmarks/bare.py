"""The least that any reader in Python would do: fetch every record with aiokafka and decode it. A process of its own.

python -m benchmarks.bare BROKERS TOPIC PARTITIONS EVENTS prints one JSON object.
"""

import json
import sys
import time

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition


class Purchase(msgspec.Struct, gc=False):
    """As much of a purchase as the worker decodes."""

    event_id: str
    type: str
    customer_id: str
    occurred_at: str
    order_id: str
    amount: str
    currency: str
    channel: str | None = None
    store_id: str | None = None


async def read(brokers: str, topic: str, partitions: int, events: int) -> dict[str, float]:
    """Read and decode `events` records, from the start of the topic on."""
    # Fetched as the worker fetches.
    consumer = AIOKafkaConsumer(
        bootstrap_servers=brokers,
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * 1024 * 1024,
        fetch_max_wait_ms=50,
        enable_auto_commit=False,
    )
    decode = msgspec.json.Decoder(Purchase).decode
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, partition) for partition in range(partitions)])
        await consumer.seek_to_beginning()
        done, fifth = 0, (0, 0.0)
        started, cpu = time.monotonic(), time.process_time()
        while done < events:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    decode(record.value)
                done += len(records)
            if not fifth[0] and done >= events // 5:
                fifth = done, time.monotonic()
        ended, cpu = time.monotonic(), time.process_time() - cpu
    finally:
        await consumer.stop()
    return {
        "seconds": ended - started,
        "whole_per_second": done / (ended - started),
        "steady_per_second": (done - fifth[0]) / max(1e-9, ended - fifth[1]),
        "cpu_us_per_event": cpu / done * 1e6,
    }


if __name__ == "__main__":
    brokers, topic, partitions, events = sys.argv[1:]
    print(json.dumps(uvloop.run(read(brokers, topic, int(partitions), int(events)))))
