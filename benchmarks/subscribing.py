"""Who reads beside a live load: the tier changes, or the purchases themselves, and when each probe was there."""

import threading
import time
from collections import Counter, defaultdict

import confluent_kafka
import msgspec

from benchmarks.live import PROBE, QUIET, LiveLoad
from benchmarks.phases import Probe
from streams.settings import Settings
from streams.topics import TIER_CHANGES


class _Program(msgspec.Struct):
    version: str


class _Change(msgspec.Struct):
    """As much of a tier change as is looked at."""

    customer_id: str
    tier_seq: int
    previous_tier: str
    tier: str
    reason: str
    effective_at: str
    program: _Program


class _Reader(threading.Thread):
    """Reads a topic, committed records only, from its start on."""

    def __init__(self, settings: Settings, topic: str, partitions: int, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": settings.brokers,
                "group.id": f"bench-{name}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
            | QUIET
        )
        self._consumer.assign(
            [confluent_kafka.TopicPartition(topic, partition, 0) for partition in range(partitions)]
        )
        self._ended = threading.Event()
        #: When the record of each probe was read.
        self.probes: dict[int, float] = {}
        #: Records that cannot be right.
        self.torn: list[str] = []
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Until `end`."""
        try:
            while not self._ended.is_set():
                message = self._consumer.poll(0.1)
                if message is None:
                    continue
                at = time.monotonic()
                if message.error():
                    raise RuntimeError(str(message.error()))
                self._take(message, at)
        except BaseException as error:
            self.failure = error
        finally:
            self._consumer.close()

    def _take(self, message: confluent_kafka.Message, at: float) -> None:
        raise NotImplementedError

    def _take_probe(self, customer_id: str, at: float) -> None:
        number = int(customer_id.removeprefix(PROBE))
        if number in self.probes:
            self.torn.append(f"{customer_id}: read twice")
        self.probes[number] = at

    def end(self) -> None:
        """Stop; nothing where it was not started."""
        self._ended.set()
        if self.is_alive():
            self.join()

    def check(self) -> None:
        """Raises what it failed with."""
        if self.failure is not None:
            raise RuntimeError(f"the subscriber failed: {self.failure}") from self.failure


class Subscriber(_Reader):
    """Reads the tier changes."""

    def __init__(self, settings: Settings, partitions: int, first_tier: str) -> None:
        super().__init__(settings, settings.topic(TIER_CHANGES), partitions, "subscriber")
        self._decode = msgspec.json.Decoder(_Change).decode
        self._first_tier = first_tier
        self._chains: dict[str, tuple[int, str]] = {}
        self.count = 0
        #: By which version of the program the changes of probes were decided.
        self.decided_by: Counter[str] = Counter()
        #: How often each customer was told of a change for a reason other than a purchase, by reason; and when each of
        #: these was read, and of how many it was said that they happened at which instant.
        self.told: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.told_at: defaultdict[str, list[float]] = defaultdict(list)
        self.effective: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def _take(self, message: confluent_kafka.Message, at: float) -> None:
        change = self._decode(message.value() or b"")
        who, reason = change.customer_id, change.reason
        if reason != "purchase":
            self.told[reason][who] += 1
            self.told_at[reason].append(at)
            self.effective[reason][change.effective_at] += 1
        elif who.startswith(PROBE):
            self._take_probe(who, at)
            self.decided_by[change.program.version] += 1
        seq, tier = self._chains.get(who, (0, self._first_tier))
        if (change.tier_seq, change.previous_tier) != (seq + 1, tier):
            self.torn.append(f"{who}: {change.tier_seq} from {change.previous_tier} after {seq} to {tier}")
        self._chains[who] = change.tier_seq, change.tier
        self.count += 1


class BareReader(_Reader):
    """Reads purchases as they were sent, and knows a probe by its key: produce and consume, nothing between."""

    def _take(self, message: confluent_kafka.Message, at: float) -> None:
        key = message.key()
        if key is not None and key.startswith(PROBE.encode()):
            self._take_probe(key.decode(), at)


def measured(load: LiveLoad, reader: Subscriber | BareReader) -> list[Probe]:
    """The probes that were read, in the order in which they were sent."""
    return [Probe(load.probes[number].at, read) for number, read in sorted(reader.probes.items())]


def first_read(load: LiveLoad, subscriber: Subscriber, since: int) -> float | None:
    """When the first change was read of a probe with this number or a higher one; None where none was."""
    read = subscriber.probes.copy()
    return min((at for number, at in read.items() if number >= since), default=None)
