"""A load of events in the order of time, sent for as long as it is told to, so that a fault always finds work."""

import json
import random
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.faults.marketing import Marketing
from tests.space import TOPICS, Space, purchase, refund, touchpoint

START = 1_500_000_000_000
#: Time from one event to the next: a month, which is the window of `PROGRAM`, holds 8,640.
STEP = 300_000


class Sent(NamedTuple):
    topic: str
    key: bytes
    value: bytes


def stream(seed: int, customers: int = 250, start: int = START, step: int = STEP) -> Iterator[Sent]:
    """Purchases, refunds (in part, in full, too much, of an order that never was), touchpoints of every kind that bonds
    ask for, second sends of what was just sent, and now and then what is no event: for ever, each purchase and refund
    later than the one before."""
    random_ = random.Random(seed)
    orders: dict[str, list[str]] = {}
    last: Sent | None = None
    number = 0
    while True:
        number += 1
        customer, at = f"c{random_.randrange(customers)}", start + number * step
        kind = random_.random()
        if kind < 0.16:
            event: dict[str, Any] = touched(random_, customer, number, at)
        elif kind < 0.24 and orders.get(customer):
            event = refund(
                customer, number, random_.choice(orders[customer][-6:]), random_.choice(("3.00", "31.00")), at
            )
        elif kind < 0.25:
            event = refund(customer, number, f"never{number}", "5.00", at)
        elif kind < 0.28 and last is not None:
            yield last
            continue
        elif kind < 0.285:
            yield Sent("purchases", customer.encode(), b"{no event %d" % number)
            continue
        else:
            event = purchase(customer, number, f"{random_.randrange(3_000) / 100:.2f}", at, **bought(random_))
            orders.setdefault(customer, []).append(event["order_id"])
        last = Sent(TOPICS.get(event["type"], "purchases"), customer.encode(), json.dumps(event).encode())
        yield last


CAMPAIGNS = (None, "spring", "summer", "coupon")
SUBSCRIPTIONS = ("coffee", "tea")


def touched(random_: random.Random, customer: str, number: int, at: int) -> dict[str, Any]:
    """A touchpoint. One that pauses, resumes or cancels names its subscription: without one it means those that are
    known when it is read, and between two topics that is nobody's promise."""
    if random_.random() < 0.6:
        channel, way = random_.choice(("email", "web", "store", "store")), "inbound"
        action = random_.choice((None, "visit", "visit", "review", "pause", "resume", "cancel"))
    else:
        channel, way = random_.choice(("email", "web", "sns")), "outbound"
        action = random_.choice((None, None, "receipt"))
    is_of_subscription = action in ("pause", "resume", "cancel")
    said = {
        "action": action,
        "campaign_id": random_.choice(CAMPAIGNS),
        "store_id": random_.choice((None, "s1", "s2")) if channel == "store" else None,
        "subscription_id": random_.choice(SUBSCRIPTIONS) if is_of_subscription else None,
        "timezone": random_.choice(("Asia/Tokyo", "America/New_York")) if random_.random() < 0.05 else None,
    }
    return touchpoint(customer, number, channel, way, at) | _present(said)


def bought(random_: random.Random) -> dict[str, Any]:
    """What a purchase says beside its order and its amount."""
    channel = random_.choice((None, "web", "store"))
    return _present(
        {
            "channel": channel,
            "store_id": random_.choice((None, "s1", "s2")) if channel != "web" else None,
            "campaign_id": random_.choice(CAMPAIGNS),
            "subscription_id": random_.choice((*SUBSCRIPTIONS, *[None] * 6)),
        }
    )


def _present(said: dict[str, str | None]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


class Load:
    """Sends a stream in a thread of its own, `rate` events a second; a context manager that ends with all
    acknowledged.

    The producer is idempotent, so a broker that goes away meanwhile changes neither what stands in the log nor its
    order. Where the program has scenarios, marketing works beside it, from `start` to `stop`.
    """

    def __init__(self, space: Space, events: Iterator[Sent], rate: float = 400) -> None:
        self.sent = 0
        self._space, self._events, self._rate = space, events, rate
        self._producer = space.confluent(
            **{
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 290_000,
                "log_level": 0,
            }
        )
        self._stop = threading.Event()
        self._failed: list[str] = []
        self._thread: threading.Thread | None = None
        bonds = space.program.bonds
        self.marketing = Marketing(space) if bonds is not None and bonds.scenarios else None

    def send(self, count: int) -> None:
        """Send so many at once, from the caller's thread; only while the load does not run."""
        for _ in range(count):
            self._one()
        self.flush()

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        left = self._producer.flush(120)
        assert left == 0, f"{left} events were not taken"
        assert not self._failed, self._failed[:3]
        if self.marketing is not None:
            self.marketing.flush()

    def _one(self) -> None:
        sent = next(self._events)
        while True:
            try:
                self._producer.produce(
                    self._space.topic(sent.topic), sent.value, sent.key, on_delivery=self._told
                )
                break
            except BufferError:  # the broker is away: it waits for room
                self._producer.poll(0.2)
        self.sent += 1
        self._producer.poll(0)

    def _told(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failed.append(str(error))

    def _run(self) -> None:
        started, before = time.monotonic(), self.sent
        while not self._stop.is_set():
            behind = (time.monotonic() - started) * self._rate - (self.sent - before)
            for _ in range(max(0, int(behind))):
                self._one()
            self._stop.wait(0.02)

    def start(self) -> None:
        """Begin, or go on."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()
        if self.marketing is not None:
            self.marketing.start()

    def stop(self) -> None:
        """Pause; all that was sent is acknowledged."""
        self.quit()
        self.flush()

    def quit(self) -> None:
        """Pause, and wait for nothing: the test is over."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(30)
            self._thread = None
        if self.marketing is not None:
            self.marketing.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.quit()
        if error is None:
            self.flush()
