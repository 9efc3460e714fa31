"""What a shard needs of the outside: a log, a store and a clock.

The real ones are `streams.kafka_log`, `streams.redis_store` (store and clock); everything between them is plain
async code, so that a simulator can stand in for all three.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from loyalty.customer import Customer
from loyalty.packing import Packing
from loyalty.saving import CustomerWrite
from schemas import events

#: The inputs of a shard, by the contract's names. Partition p of each belongs to shard p.
PURCHASES = "purchases"
TOUCHPOINTS = "touchpoints"
COMMANDS = "customer-commands"
INPUTS = (PURCHASES, TOUCHPOINTS, COMMANDS)


class ShardLostError(Exception):
    """This worker may no longer write the shard, or cannot know what became of a write.

    The shard is dropped, and taken over again only by a member of the group.
    """


class RefusedError(ShardLostError):
    """The store or the log has another owner, version or watermark than this worker believes."""


class UnavailableError(ShardLostError):
    """The store or the log did not answer, or not with a result: whether the write happened is unknown."""


class Stop(StrEnum):
    """Why a worker stops by itself: the value of `kizuna_stopped`'s label. docs/runbook.md has an entry for each."""

    #: The log begins behind the watermark: records were deleted before they were read.
    RECORDS_GONE = "records-gone"
    #: The log ends before the watermark.
    LOG_ENDS_BEFORE = "log-ends-before"
    #: A published change was decided at a watermark that the log does not reach.
    PUBLISHED_UNREAD = "published-unread"
    #: A published change names a tier that the program does not have.
    PUBLISHED_UNKNOWN = "published-unknown"
    #: A topic is not the one that the store has read: it was deleted and made anew.
    TOPIC_REMADE = "topic-remade"
    STORE_EMPTY = "store-empty"
    #: The store was built for another cluster, prefix, group, number of partitions or program.
    STORE_BOUND = "store-bound"
    #: The store is on another version of the program: the worker gives way.
    PROGRAM_CHANGED = "program-changed"
    REDIS_EVICTS = "redis-evicts"
    #: More dead letters than the operator allows.
    DEAD_LETTERS = "dead-letters"
    #: Topics are missing, or not as the worker needs them.
    TOPICS = "topics"
    PROGRAM = "program"
    PORT = "port"
    REDIS = "redis"
    KAFKA = "kafka"
    #: An error of the worker's own.
    OTHER = "other"


class FatalError(Exception):
    """Going on would lose or double something. The worker stops; the message says what, why and what to do."""

    def __init__(self, message: str, stop: Stop = Stop.OTHER) -> None:
        super().__init__(message)
        self.stop = stop


class MovedOnError(FatalError):
    """The store is on another version of the program. A worker that was at work gives way."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Stop.PROGRAM_CHANGED)


class Record(events.Record, Protocol):
    """One record of an input topic, as it was read: what the wire reads of it, and where it stood."""

    @property
    def offset(self) -> int: ...


@dataclass(slots=True)
class Batch:
    """What was read of one input partition, from position `start` up to, not including, position `end`.

    It may hold no records: positions pass over transaction markers, aborted records and compaction holes.
    """

    topic: str
    partition: int
    start: int
    end: int
    records: Sequence[Record]
    #: The take-over after which it was read; what was read before another take-over is void.
    epoch: int = 0


@dataclass(slots=True)
class ShardState:
    """What the store holds of a shard, besides its customers. Times in epoch milliseconds."""

    version: int = 0
    #: The watermark: next position to read, by input.
    offsets: dict[str, int] = field(default_factory=dict)
    #: Newest `occurred_at` of valid, rightly placed events, by input.
    newest: dict[str, int] = field(default_factory=dict)
    #: Append time of the last record that was read, by input.
    appended: dict[str, int] = field(default_factory=dict)
    #: Counts the take-overs, as far as the store knows of them.
    reign: int = 0
    #: Number of the newest outbox entry ever made.
    outbox_last: int = 0
    #: By output topic (`streams.topics.outputs`): the position in the shard's partition up to which the state knows all
    #: that was published; 0 where there is none.
    outputs: dict[str, int] = field(default_factory=dict)
    #: How many customers there are.
    customers: int = 0
    #: A rebuild made the shard: what was appended to any partition before that instant counts in it. 0: none did.
    rebuilt: int = 0
    #: How often the program was changed, and after which change all customers had been moved.
    generation: int = 0
    moved: int = 0
    #: While customers are moved: the program before (its file), the instant of the change, and until when those who
    #: were there are protected.
    program_before: str = ""
    program_at: int = 0
    protect_until: int | None = None
    #: Publishing is paused behind this outbox entry; None where it is not.
    held: int | None = None
    #: Falls by minute (epoch minutes) of the last hour that saw any, where a share of them would pause publishing.
    falls: dict[int, int] = field(default_factory=dict)

    @property
    def is_moving(self) -> bool:
        """Whether there may be customers who are still on the program before."""
        return self.moved < self.generation


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where an outbox is published: the number of the last entry, and in whose reign that was."""

    number: int = 0
    reign: int = 0


@dataclass(frozen=True, slots=True)
class Binding:
    """What a store was built for. Any other worker is refused."""

    cluster: str
    topics: str
    group: str
    partitions: int
    program: str
    version: str
    #: Kafka's ids of the input topics, in the order of INPUTS, with blanks between.
    inputs: str = ""


@dataclass(slots=True)
class Commit:
    """Everything one batch or one sweep changes, to be written whole or not at all."""

    #: The input that was read, or None for a sweep.
    topic: str | None = None
    start: int = 0
    end: int = 0
    newest: int | None = None
    appended: int | None = None
    customers: list[CustomerWrite] = field(default_factory=list)
    #: Encoded outbox entries, numbered on from `ShardState.outbox_last`.
    outbox: list[bytes] = field(default_factory=list)
    #: Outbox entries that are not yet published and become others, by number.
    replaced: dict[int, bytes] = field(default_factory=dict)
    #: Further fields of the shard: to set, and to add to.
    fields: dict[str, str | int] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    #: Customers who need not be moved to the present program any more.
    moved: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Due:
    """What a sweep finds: who is due, the earliest instant of all, and what an operator has decided."""

    customers: list[str]
    first: int | None
    decision: str


class Store(Protocol):
    """Where a shard's state lives. Every write names the owner's token; all raise ShardLostError's kinds."""

    async def peek(self, partition: int) -> ShardState | None:
        """The shard as it stands, or None where it was never begun. Raises FatalError where it is bound elsewhere."""
        ...

    async def take_over(
        self, partition: int, token: str, begin: Mapping[str, int], published: Mark
    ) -> tuple[ShardState, list[bytes]]:
        """Become the owner: the shard, begun at `begin` if it is new, and its outbox behind what is published.

        Where the store does not know the reign in which that was, it has lost a take-over, and whoever owned it before
        may have written since: numbers say nothing then, and reign and outbox stay as they are, for `restore`.
        """
        ...

    async def restore(
        self, partition: int, token: str, outbox: Sequence[bytes], published: Mark
    ) -> ShardState:
        """The outbox becomes these entries, numbered above all before, in a reign of its own; the shard then.

        version + 1: whoever goes on from it is refused where the store has lost it.
        """
        ...

    async def load(self, partition: int, customer_ids: Sequence[str], packing: Packing) -> list[Customer]:
        """The customers in the order asked for, as `packing` unpacks them; new ones where there are none yet."""
        ...

    async def commit(self, partition: int, token: str, version: int, commit: Commit) -> None:
        """Write it whole, if the token, the version and the watermark are as the caller believes; version + 1."""
        ...

    async def trim(
        self, partition: int, token: str, version: int, published: int, outputs: Mapping[str, int]
    ) -> None:
        """Forget outbox entries up to number `published`; leaves the version. `outputs`: see `ShardState`; of what it
        does not name nothing changes.

        Refused where the store does not stand at `version` or above: it has lost a commit of what the caller goes by,
        be it the one that gave that number, or the one with which the state knew all up to `outputs`.
        """
        ...

    async def due(self, partition: int, token: str, version: int, until: int, limit: int) -> Due:
        """Who is due strictly before `until`, earliest first, at most `limit`."""
        ...

    async def unmoved(self, partition: int, token: str, limit: int) -> tuple[list[str], int]:
        """Customers who may still be on the program before, at most `limit`; and `ShardState.moved` as it is now."""
        ...


class Clock(Protocol):
    """The one clock that decides what fell due."""

    async def now(self) -> int:
        """Epoch milliseconds."""
        ...


@dataclass(slots=True)
class OutRecord:
    """A record to publish. `partition` None: by the key, as Kafka does."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Writer(Protocol):
    """The one transactional producer of a shard; making it fences its predecessor."""

    async def published(self) -> Mark:
        """Up to where the outbox was published."""
        ...

    async def publish(self, records: Iterable[OutRecord], upto: Mark) -> dict[str, int]:
        """In one transaction: the records, and that entries up to `upto` are published.

        Returns the positions behind the last records, by output topic; those of which there was none are left out.
        Raises RefusedError where another writer has taken over, UnavailableError where the outcome is unknown.
        """
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Published:
    """A record of an output topic, as a `read_committed` reader gets it."""

    offset: int
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Log(Protocol):
    """Kafka, as the shards see it beside their reading."""

    async def inputs(self) -> tuple[str, int]:
        """The input topics as they are now: their ids (see `Binding.inputs`; a missing topic has an empty one), and
        how many partitions the largest has."""
        ...

    async def told(self, positions: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], list[Published]]:
        """What stands in output topics from these positions on, by topic and partition, in order.

        Asked for after the partition's writer was initialised, so nothing of ours is open there.
        Raises FatalError where a partition ends before its position.
        """
        ...

    async def starts(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        """First position there is, by input and partition."""
        ...

    async def ends(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        """Position behind the last record, open transactions included, by input and partition."""
        ...

    async def committed(self) -> dict[tuple[str, int], int]:
        """What the group has committed, by input and partition."""
        ...

    async def writer(self, partition: int) -> Writer: ...
