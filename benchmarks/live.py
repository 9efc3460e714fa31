"""A live load: purchases that are sent at a steady rate, some of them probes."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import confluent_kafka

from schemas.placing import place_of
from schemas.times import format_ms
from streams.protocols import PURCHASES
from streams.settings import Settings

#: Every so many events one is a probe: a customer of its own, who buys enough for the second tier at once.
PROBE_EVERY = 10
#: What its customer's id begins with.
PROBE = "probe-"
#: What is not acknowledged or cannot be read is an error here; the library need not tell of a broker that was stopped.
QUIET = {"log_level": 2}
#: Seconds between two looks at what is to be sent by now.
TICK = 0.002

#: A program of two tiers, of which the higher takes so much money.
PROGRAM = """
[program]
id = "bench"
currency = "USD"
window = "365d"
ledger = "2000d"

[[tiers]]
name = "member"
[[tiers]]
name = "silver"
min_monetary = "{silver}"

[scores]
recency_days = [7, 30, 90, 180]
frequency = [2, 5, 10, 20]
monetary = ["50", "200", "500", "1500"]
"""


def customer(number: int) -> str:
    """One of those who were there before."""
    return f"c{number:07d}"


def _purchase(customer_id: str, order: str, amount: str, at: str) -> bytes:
    return (
        f'{{"event_id":"e{order}","type":"purchase","customer_id":"{customer_id}","occurred_at":"{at}",'
        f'"order_id":"o{order}","amount":"{amount}","currency":"USD","channel":"store","store_id":"367"}}'
    ).encode()


def now_ms() -> int:
    """The wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000


class Sender:
    """Sends purchases to a topic, each to its customer's partition."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": settings.brokers, "enable.idempotence": True, "linger.ms": 1} | QUIET
        )
        self._partitions = partitions
        #: Where to.
        self.topic = settings.topic(PURCHASES)
        self.failure: str | None = None

    def send(self, customer_id: str, order: str, amount: str, at: str) -> None:
        """One purchase, without waiting for it."""
        key, partition = place_of(customer_id, self._partitions)
        value = _purchase(customer_id, order, amount, at)
        while True:
            try:
                self._producer.produce(
                    self.topic, value=value, key=key, partition=partition, on_delivery=self._told
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def poll(self) -> None:
        """Take what the broker has acknowledged."""
        self._producer.poll(0)

    def finish(self) -> None:
        """Wait until everything is acknowledged. Raises RuntimeError where something is not."""
        left = self._producer.flush(60)
        if left or self.failure:
            raise RuntimeError(f"{left} purchases were not acknowledged: {self.failure or 'no answer'}")

    def _told(self, error: object, _: object) -> None:
        if error is not None:
            self.failure = str(error)


def load(settings: Settings, partitions: int, purchases: Iterable[tuple[str, str]], at: int) -> int:
    """One purchase of each customer, by customer and amount, all of them made at one instant (epoch ms); how many."""
    sender = Sender(settings, partitions)
    made, count = format_ms(at), 0
    for count, (customer_id, amount) in enumerate(purchases, 1):
        sender.send(customer_id, f"b{count}", amount, made)
        if not count % 1000:
            sender.poll()
    sender.finish()
    return count


def at_random(numbers: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Who is there buys for a cent: customers and amounts, for ever."""
    chosen = random.Random(1)
    while True:
        yield customer(chosen.choice(numbers)), "0.01"


class SentProbe(NamedTuple):
    """When a probe was sent, and to which topic."""

    at: float
    topic: str


class LiveLoad(threading.Thread):
    """So many purchases in a second: those who are there buy, and one in so many is a probe."""

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        rate: float,
        buyers: Iterator[tuple[str, str]],
        probe_every: int = PROBE_EVERY,
        tick: float = TICK,
    ) -> None:
        """`buyers`: customers and amounts, for ever. `tick`: seconds from one part of what is sent to the next."""
        super().__init__(name="live-load", daemon=True)
        self._sender = Sender(settings, partitions)
        self._topic = self._sender.topic
        self._rate = rate
        self._buyers = buyers
        self._probe_every = probe_every
        self._tick = tick
        self._ended = threading.Event()
        self.count = 0
        #: How many were sent to each topic.
        self.sent: Counter[str] = Counter()
        #: When each probe was sent, by its number.
        self.probes: list[SentProbe] = []
        #: Seconds by which the load was behind its rate, at most.
        self.behind = 0.0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Until `end`."""
        try:
            started = time.monotonic()
            while not self._ended.wait(self._tick):
                self._sender.topic = self._topic
                wanted = int((time.monotonic() - started) * self._rate)
                self.behind = max(self.behind, (wanted - self.count) / self._rate)
                at = format_ms(now_ms())
                while self.count < wanted:
                    if self.count % self._probe_every:
                        self._send(*next(self._buyers), f"l{self.count}", at)
                    else:
                        self._probe(at)
                self._sender.poll()
            self._sender.finish()
        except BaseException as error:
            self.failure = error

    def _send(self, customer_id: str, amount: str, order: str, at: str) -> None:
        self.count += 1
        self.sent[self._sender.topic] += 1
        self._sender.send(customer_id, order, amount, at)

    def _probe(self, at: str) -> int:
        number = len(self.probes)
        # Its time first: whoever looks finds every probe that can have been read.
        self.probes.append(SentProbe(time.monotonic(), self._sender.topic))
        self._send(f"{PROBE}{number}", "500.00", f"p{number}", at)
        return number

    def turn_to(self, topic: str) -> None:
        """From the next look at what is to be sent on, send to this topic."""
        self._topic = topic

    def end(self) -> None:
        """Stop, and wait until everything is acknowledged; nothing where it was not started."""
        self._ended.set()
        if self.is_alive():
            self.join()

    def single(self) -> int:
        """After the end: send one more probe, and nothing else; its number."""
        self._sender.topic = self._topic
        number = self._probe(format_ms(now_ms()))
        self._sender.finish()
        return number

    def check(self) -> None:
        """Raises what it failed with."""
        if self.failure is not None:
            raise RuntimeError(f"the load failed: {self.failure}") from self.failure
