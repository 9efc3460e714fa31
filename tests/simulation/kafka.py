"""A Kafka in memory: partitions, transactions, a group's committed numbers. It loses nothing.

A record of an open transaction hides everything behind it from a `read_committed` reader until its marker is there.
Offsets are taken by markers, aborted records and compaction holes, too.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from streams.protocols import Mark, OutRecord, RefusedError
from streams.topics import TIER_CHANGES

Headers = Sequence[tuple[str, bytes | None]]


class Fate(Enum):
    """What became of an offset."""

    COMMITTED = auto()
    OPEN = auto()
    ABORTED = auto()
    MARKER = auto()
    HOLE = auto()


@dataclass(slots=True)
class LogRecord:
    """What stands at one offset. `transaction` is 0 outside of any; `ours`: a worker's."""

    offset: int
    timestamp: int
    fate: Fate
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()
    transaction: int = 0
    ours: bool = False


class PartitionLog:
    """One partition."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.records: list[LogRecord] = []
        #: Offsets of open transactions' records.
        self.open: set[int] = set()

    @property
    def end(self) -> int:
        """Behind the last record, open transactions included."""
        return self.start + len(self.records)

    @property
    def stable(self) -> int:
        """How far a `read_committed` reader may read."""
        return min(self.open, default=self.end)

    def append(self, timestamp: int, fate: Fate, **given: Any) -> LogRecord:
        record = LogRecord(self.end, timestamp, fate, **given)
        self.records.append(record)
        if fate is Fate.OPEN:
            self.open.add(record.offset)
        return record

    def settle(self, record: LogRecord, fate: Fate) -> None:
        record.fate = fate
        self.open.discard(record.offset)

    def between(self, first: int, end: int) -> list[LogRecord]:
        """The committed records at these offsets."""
        return [r for r in self.records[first - self.start : end - self.start] if r.fate is Fate.COMMITTED]

    def committed(self) -> list[LogRecord]:
        """All that a `read_committed` reader sees."""
        return self.between(self.start, self.stable)


@dataclass(slots=True)
class Transaction:
    """One transaction of one producer."""

    number: int
    records: list[tuple[PartitionLog, LogRecord]] = field(default_factory=list)
    #: What it commits for groups, by group and partition.
    numbers: dict[tuple[str, int], Mark] = field(default_factory=dict)
    #: Decided and not carried out everywhere yet: to commit, or to abort.
    decided: bool | None = None


class Producer:
    """What the transaction coordinator knows under one `transactional.id`."""

    def __init__(self) -> None:
        self.epoch = 0
        self.open: Transaction | None = None


class Kafka:
    """The broker. `now` is its clock, in epoch milliseconds."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self.logs: dict[tuple[str, int], PartitionLog] = {}
        self.producers: dict[str, Producer] = {}
        #: Committed numbers, by group and partition of tier-changes or input.
        self.numbers: dict[tuple[str, int], Mark] = {}
        self.transactions = 0
        self.fenced = 0
        #: Called whenever a reader may find something new.
        self.moved: Callable[[], None] = lambda: None

    def log(self, topic: str, partition: int) -> PartitionLog:
        return self.logs[topic, partition]

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> LogRecord:
        """A record outside of any transaction."""
        record = self.log(topic, partition).append(
            self._now(), Fate.COMMITTED, key=key, value=value, headers=headers
        )
        self.moved()
        return record

    def hole(self, topic: str, partition: int) -> None:
        """An offset that compaction has emptied."""
        self.log(topic, partition).append(self._now(), Fate.HOLE)
        self.moved()

    # -- transactions ----------------------------------------------------------------------------------------------

    def is_settled(self, name: str) -> bool:
        """Whether a decided transaction of this producer has been carried out: before, nobody may initialise it."""
        producer = self.producers.get(name)
        return producer is None or producer.open is None or producer.open.decided is None

    def initialise(self, name: str) -> int:
        """A new epoch; what the one before left open is aborted."""
        producer = self.producers.setdefault(name, Producer())
        if producer.open is not None:
            assert producer.open.decided is None
            producer.open.decided = False
            self.carry_out(producer)
        producer.epoch += 1
        return producer.epoch

    def _own(self, name: str, epoch: int) -> Producer:
        producer = self.producers[name]
        if producer.epoch != epoch:
            self.fenced += 1
            raise RefusedError("another worker has initialised the shard's transactional producer")
        return producer

    def begin(self, name: str, epoch: int) -> Transaction:
        producer = self._own(name, epoch)
        assert producer.open is None
        self.transactions += 1
        producer.open = Transaction(self.transactions)
        return producer.open

    def send(self, name: str, epoch: int, partition: int, record: OutRecord) -> LogRecord:
        """Append a record to the open transaction."""
        transaction = self.check(name, epoch)
        log = self.log(record.topic, partition)
        made = log.append(
            self._now(),
            Fate.OPEN,
            key=record.key,
            value=record.value,
            headers=record.headers,
            transaction=transaction.number,
            ours=True,
        )
        transaction.records.append((log, made))
        return made

    def check(self, name: str, epoch: int, transaction: Transaction | None = None) -> Transaction:
        """The producer's open transaction. Raises RefusedError where there is none, or another."""
        held = self._own(name, epoch).open
        if held is None or held.decided is not None or (transaction is not None and held is not transaction):
            raise RefusedError("the transaction is over: it took too long")
        return held

    def decide(self, name: str, epoch: int, commits: bool) -> None:
        """From here on the transaction will be committed, or aborted, whatever dies; `carry_out` makes it so."""
        self.check(name, epoch).decided = commits

    def carry_out(self, producer: Producer) -> None:
        """Write the markers, and the numbers that belong to it."""
        transaction = producer.open
        assert transaction is not None
        assert transaction.decided is not None
        fate = Fate.COMMITTED if transaction.decided else Fate.ABORTED
        for log, record in transaction.records:
            log.settle(record, fate)
        for log in dict.fromkeys(log for log, _ in transaction.records):
            log.append(self._now(), Fate.MARKER)
        if transaction.decided:
            self.numbers |= transaction.numbers
        producer.open = None
        self.moved()

    def expire(self, name: str, transaction: Transaction) -> bool:
        """Abort a transaction that was left open for too long, as the broker does; whether it was."""
        producer = self.producers[name]
        if producer.open is not transaction or transaction.decided is not None:
            return False
        producer.epoch += 1
        transaction.decided = False
        self.carry_out(producer)
        return True

    # -- a shop's own transactions ---------------------------------------------------------------------------------

    def shop(self, records: Iterable[tuple[str, int, bytes | None, bytes | None, Headers]]) -> Transaction:
        """Append some records in an open transaction of some producer that is not ours."""
        self.transactions += 1
        transaction = Transaction(self.transactions)
        for topic, partition, key, value, headers in records:
            log = self.log(topic, partition)
            made = log.append(
                self._now(), Fate.OPEN, key=key, value=value, headers=headers, transaction=transaction.number
            )
            transaction.records.append((log, made))
        self.moved()
        return transaction

    def end_shop(self, transaction: Transaction, commits: bool) -> None:
        """Commit or abort it."""
        transaction.decided = commits
        producer = Producer()
        producer.open = transaction
        self.carry_out(producer)

    # -- for the verdict -------------------------------------------------------------------------------------------

    def published(self, topic: str = TIER_CHANGES) -> list[tuple[int, LogRecord]]:
        """Every committed record of a topic, by partition, in order."""
        found = []
        for (name, partition), log in sorted(self.logs.items()):
            if name == topic:
                found += [(partition, record) for record in log.committed()]
        return found
