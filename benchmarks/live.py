"""A live load beside a subscriber: what is sent at a steady rate, and when what came of it was read."""

import random
import threading
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

import confluent_kafka
import msgspec

from benchmarks.phases import Probe
from streams.placement import Placement
from streams.protocols import PURCHASES
from streams.settings import Settings
from streams.topics import TIER_CHANGES

#: Every so many events one is a probe: a customer of its own, who buys enough for the second tier at once.
PROBE_EVERY = 10
_PROBE = "probe-"
#: Seconds between two looks at what is to be sent by now.
_TICK = 0.002


def customer(number: int) -> str:
    """One of those who were there before."""
    return f"c{number:07d}"


def _purchase(customer_id: str, order: str, amount: str, at: str) -> bytes:
    return (
        f'{{"event_id":"e{order}","type":"purchase","customer_id":"{customer_id}","occurred_at":"{at}",'
        f'"order_id":"o{order}","amount":"{amount}","currency":"USD"}}'
    ).encode()


def _text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Sender:
    """Sends purchases, each to its customer's partition."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._producer = confluent_kafka.Producer(
            {"bootstrap.servers": settings.brokers, "enable.idempotence": True, "linger.ms": 1}
        )
        self._topic = settings.topic(PURCHASES)
        self._place = Placement(partitions).of
        self.failure: str | None = None

    def send(self, customer_id: str, order: str, amount: str, at: str) -> None:
        """One purchase, without waiting for it."""
        key, partition = self._place(customer_id)
        value = _purchase(customer_id, order, amount, at)
        while True:
            try:
                self._producer.produce(
                    self._topic, value=value, key=key, partition=partition, on_delivery=self._told
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


def load(settings: Settings, partitions: int, amounts: Iterable[str]) -> int:
    """One purchase of each customer; how many."""
    sender = Sender(settings, partitions)
    at, count = _text(time.time() - 1), 0
    for count, amount in enumerate(amounts, 1):
        sender.send(customer(count - 1), f"b{count}", amount, at)
        if not count % 1000:
            sender.poll()
    sender.finish()
    return count


class LiveLoad(threading.Thread):
    """So many purchases in a second: those who are there buy for a cent, and every tenth is a probe."""

    def __init__(self, settings: Settings, partitions: int, rate: int, customers: int) -> None:
        super().__init__(name="live-load", daemon=True)
        self._sender = Sender(settings, partitions)
        self._rate = rate
        self._customers = customers
        self._random = random.Random(1)
        self._ended = threading.Event()
        self.count = 0
        #: When each probe was sent, by its number.
        self.probes: list[float] = []
        #: Seconds by which the load was behind its rate, at most.
        self.behind = 0.0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Until `end`."""
        try:
            started = time.monotonic()
            while not self._ended.wait(_TICK):
                wanted = int((time.monotonic() - started) * self._rate)
                self.behind = max(self.behind, (wanted - self.count) / self._rate)
                at = _text(time.time())
                while self.count < wanted:
                    self._one(at)
                self._sender.poll()
            self._sender.finish()
        except BaseException as error:
            self.failure = error

    def _one(self, at: str) -> None:
        number = self.count
        self.count += 1
        if number % PROBE_EVERY:
            self._sender.send(customer(self._random.randrange(self._customers)), f"l{number}", "0.01", at)
        else:
            # Its time first: whoever looks finds every probe that can have been read.
            self.probes.append(time.monotonic())
            self._sender.send(f"{_PROBE}{len(self.probes) - 1}", f"p{number}", "500.00", at)

    def end(self) -> None:
        """Stop, and wait until everything is acknowledged."""
        self._ended.set()
        self.join()

    def check(self) -> None:
        """Raises what it failed with."""
        if self.failure is not None:
            raise RuntimeError(f"the load failed: {self.failure}") from self.failure


class _Program(msgspec.Struct):
    version: str


class _Change(msgspec.Struct):
    """As much of a tier change as is looked at."""

    customer_id: str
    tier_seq: int
    previous_tier: str
    tier: str
    reason: str
    program: _Program


class Subscriber(threading.Thread):
    """Reads the tier changes, committed ones only, from the start of the topic on."""

    def __init__(self, settings: Settings, partitions: int, first_tier: str) -> None:
        super().__init__(name="subscriber", daemon=True)
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": settings.brokers,
                "group.id": "bench-subscriber",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        self._consumer.assign(
            [
                confluent_kafka.TopicPartition(settings.topic(TIER_CHANGES), partition, 0)
                for partition in range(partitions)
            ]
        )
        self._first_tier = first_tier
        self._ended = threading.Event()
        self._chains: dict[str, tuple[int, str]] = {}
        self.count = 0
        #: When the change of each probe was read, and by which version of the program it was decided.
        self.probes: dict[int, float] = {}
        self.decided_by: Counter[str] = Counter()
        #: How often each customer was told of a change of the program.
        self.moved: Counter[str] = Counter()
        #: Records that do not follow the one before of their customer.
        self.torn: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Until `end`."""
        decode = msgspec.json.Decoder(_Change).decode
        try:
            while not self._ended.is_set():
                message = self._consumer.poll(0.1)
                if message is None:
                    continue
                at = time.monotonic()
                if message.error():
                    raise RuntimeError(str(message.error()))
                self._take(decode(message.value() or b""), at)
        except BaseException as error:
            self.failure = error
        finally:
            self._consumer.close()

    def _take(self, change: _Change, at: float) -> None:
        who = change.customer_id
        if who.startswith(_PROBE) and change.reason == "purchase":
            self.probes[int(who.removeprefix(_PROBE))] = at
            self.decided_by[change.program.version] += 1
        elif change.reason == "program_change":
            self.moved[who] += 1
        seq, tier = self._chains.get(who, (0, self._first_tier))
        if (change.tier_seq, change.previous_tier) != (seq + 1, tier):
            self.torn.append(f"{who}: {change.tier_seq} from {change.previous_tier} after {seq} to {tier}")
        self._chains[who] = change.tier_seq, change.tier
        self.count += 1

    def end(self) -> None:
        """Stop."""
        self._ended.set()
        self.join()

    def check(self) -> None:
        """Raises what it failed with."""
        if self.failure is not None:
            raise RuntimeError(f"the subscriber failed: {self.failure}") from self.failure


def measured(load: LiveLoad, subscriber: Subscriber) -> list[Probe]:
    """The probes whose change was read, in the order in which they were sent."""
    return [Probe(load.probes[number], read) for number, read in sorted(subscriber.probes.items())]


def first_read(load: LiveLoad, subscriber: Subscriber, since: int) -> float | None:
    """When the first change was read of a probe with this number or a higher one; None where none was."""
    read = subscriber.probes.copy()
    return min((at for number, at in read.items() if number >= since), default=None)
