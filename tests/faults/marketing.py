"""Marketing automation: sends what the triggers ask for, so that it comes back as touchpoints."""

import json
import random
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from tests.space import Space, now_ms, text_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: How often a message comes back, drawn for each: mostly once.
TIMES = (0, 1, 1, 1, 2)
#: How long after its trigger, in milliseconds.
LATER = (0, 1, 60_000, 7_200_000)


def ms_of(text: str) -> int:
    """Epoch milliseconds of what the contract writes; independent of the product's own."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(milliseconds=1)


class Marketing:
    """Follows nurturing-triggers with a client that reads what is committed only, in a thread of its own.

    Of those that are `sent` some never come back, some twice; drawn from the trigger's id, so that a second sight of
    one would change nothing.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        #: How many triggers were seen, by status, and by how often they came back.
        self.seen: Counter[str] = Counter()
        self.came_back: Counter[int] = Counter()
        self._next: dict[int, int] = {}
        self._stop = threading.Event()
        self._failed: list[str] = []
        self._thread: threading.Thread | None = None
        self._producer = space.confluent(
            **{
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 290_000,
                "log_level": 0,
            }
        )

    def start(self) -> None:
        """Begin, or go on."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="marketing", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Pause, and wait for nothing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            assert not self._thread.is_alive(), "marketing does not stop"
            self._thread = None

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        left = self._producer.flush(120)
        assert left == 0, f"{left} touchpoints were not taken"
        assert not self._failed, self._failed[:3]

    def _run(self) -> None:
        topic = self._space.topic("nurturing-triggers")
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self._space.stack.brokers,
                "group.id": "marketing",  # never joined: partitions are assigned by hand
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        try:
            consumer.assign(
                [
                    TopicPartition(topic, p, self._next.get(p, OFFSET_BEGINNING))
                    for p in range(self._space.partitions)
                ]
            )
            while not self._stop.is_set():
                for message in consumer.consume(500, 0.1):
                    if message.error() is None:  # else the broker is away: it comes back
                        self._next[message.partition()] = message.offset() + 1
                        self._see(json.loads(message.value()))
        except Exception as error:
            self._failed.append(repr(error))
        finally:
            consumer.close()

    def _see(self, trigger: dict[str, Any]) -> None:
        self.seen[trigger["status"]] += 1
        if trigger["status"] != "sent":
            return
        draw = random.Random(trigger["event_id"])
        times = draw.choice(TIMES)
        self.came_back[times] += 1
        for number in range(times):
            self._send(trigger, number, draw)

    def _send(self, trigger: dict[str, Any], number: int, draw: random.Random) -> None:
        at = ms_of(trigger["effective_at"]) + draw.choice(LATER)
        touch = {
            "event_id": f"{trigger['event_id']}#{number}",
            "source": "marketing",
            "type": "touchpoint",
            "customer_id": trigger["customer_id"],
            "occurred_at": text_of(min(at, now_ms())),
            "channel": trigger["channel"],
            "direction": "outbound",
            "campaign_id": trigger["content"],
            "trigger_id": trigger["event_id"],
        }
        topic, key = self._space.topic("touchpoints"), trigger["customer_id"].encode()
        while not self._stop.is_set():
            try:
                self._producer.produce(topic, json.dumps(touch).encode(), key, on_delivery=self._told)
                break
            except BufferError:  # the broker is away: it waits for room
                self._producer.poll(0.2)
        self._producer.poll(0)

    def _told(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(str(error))
