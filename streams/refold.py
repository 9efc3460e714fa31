"""The fold of a rebuild: records of all partitions, merged by append time, and what the output has told already.

It knows no Kafka and no Redis. A chunk of merged records goes through it in two steps: `read` says whose customers
are needed, `fold` applies the events to them. ADR 0013 says why it counts what it counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from loyalty.bond import BondChange
from loyalty.customer import Customer
from loyalty.packing import Packing
from loyalty.rules import Rules
from loyalty.views import Decision
from schemas.event_key import event_key
from schemas.events import InputEvent
from schemas.murmur2 import home
from schemas.placing import place_of
from schemas.program import Program
from schemas.rejection import Reason, RejectedError
from schemas.reroute import is_rerouted
from streams.awaiting import Cursor
from streams.intake import Intake
from streams.outbox import Entry, decision_entry, watermarks
from streams.protocols import COMMANDS, INPUTS, PURCHASES, TOUCHPOINTS, FatalError, Record
from streams.telling import Reached, Telling, Told, ToldOfBond

#: A record by where it stands: input, partition, offset, and append time, as a topic may have been made anew.
Place = tuple[str, int, int, int]


class Merged(NamedTuple):
    """One record of the merged log."""

    topic: str
    partition: int
    record: Record


@dataclass(slots=True)
class Read:
    """A record that is an event."""

    topic: str
    partition: int
    record: Record
    event: InputEvent
    #: The customer's partition now, and whether the record stands there under the right key.
    home: int
    is_placed: bool
    is_rerouted: bool

    @property
    def at(self) -> Place:
        """Where it stands."""
        return self.topic, self.partition, self.record.offset, self.record.timestamp

    @property
    def key(self) -> tuple[str, str, int]:
        """Under which the event counts once."""
        event: Any = self.event
        return self.topic, event.customer_id, event_key(event.source, event.event_id)


@dataclass(slots=True)
class Before:
    """The store that is still there: for how many partitions, up to when a rebuild made it, and what it has read."""

    partitions: int
    rebuilt: int
    watermarks: Cursor


class OfBond(NamedTuple):
    """Of whose bond something is to be published."""

    customer_id: str


class Decided(NamedTuple):
    """Something to publish: in which shard's outbox, and of which customer's tier or bond, or of which dead record."""

    shard: int
    of: "str | OfBond | Place"
    entry: Entry
    is_fall: bool = False


@dataclass(slots=True)
class Folded:
    """What one chunk has changed."""

    touched: set[str] = field(default_factory=set)
    entries: list["Decided"] = field(default_factory=list)


class Refold:
    """Folds all the inputs into the shards of a number of partitions, and keeps quiet about what was told before."""

    def __init__(
        self,
        program: Program,
        intake: Intake,
        partitions: int,
        telling: Telling,
        dead: "frozenset[Place] | set[Place]",
        all_dead_are_known: bool,
        before: Before | None = None,
    ) -> None:
        """`dead`: the records that are dead letters already; whether these are all that ever were."""
        self.rules = Rules(program)
        self.packing = Packing(self.rules)
        self.telling = telling
        self.partitions = partitions
        #: Up to where each partition is folded, and what of the log is: whatever was appended before that instant.
        self.cursor: dict[tuple[str, int], int] = {}
        self.merged_to: float = 0
        #: Newest `occurred_at` of each shard's events, and append time of the last record read, by input.
        self.newest: list[dict[str, int]] = [{} for _ in range(partitions)]
        self.appended: list[dict[str, int]] = [{} for _ in range(partitions)]
        #: Whatever was appended before this instant counts: the next millisecond after the newest record of all.
        self.rebuilt = 0
        self.counted = self.duplicates = self.adopted = 0
        self._ledger = program.ledger
        self._keeps_bonds = program.bonds is not None
        self._intake = intake
        self._dead = dead
        self._all_dead_are_known = all_dead_are_known
        self._before = before
        #: Records in the wrong place that do not count before the copy that was sent on does.
        self._in_transit: dict[tuple[str, str, int], Read] = {}
        self._made: list[tuple[int, Decision, bytes]] = []
        #: Up to where the present chunk is folded: what a decision is told to have known.
        self._read_up_to: dict[tuple[str, int], int] = {}
        self._known_before = 0
        #: Customers whose records about the bond are reached, and that of the tier is not.
        self._early_bonds: dict[str, ToldOfBond] = {}
        self._now = Folded()
        rules = self.rules
        self._apply: dict[str, Callable[[Customer, Any, int | None], Sequence[Decision] | None]] = {
            PURCHASES: rules.apply,
            TOUCHPOINTS: rules.touch,
            COMMANDS: rules.command,
        }

    # -- what is read ----------------------------------------------------------------------------------------------

    def read(self, records: Iterable[Merged]) -> list[Read]:
        """The events among the records; what is none becomes a dead letter, unless it is one."""
        found: list[Read] = []
        for topic, partition, record in records:
            self.appended[partition][topic] = record.timestamp
            self.rebuilt = max(self.rebuilt, record.timestamp + 1)
            if (topic, partition, record.offset, record.timestamp) in self._dead:
                continue
            try:
                event = self._intake.decode(topic, record)
                key, place = place_of(event.customer_id, self.partitions)
                read = Read(
                    topic,
                    partition,
                    record,
                    event,
                    place,
                    place == partition and record.key == key,
                    is_rerouted(record.headers),
                )
                if read.is_rerouted and not read.is_placed and not self._was_placed(read, key):
                    raise RejectedError(
                        Reason.MISROUTED, f"key: expected the customer_id, in partition {place}"
                    )
            except RejectedError as rejected:
                if not self._is_published(topic, partition, record):
                    self._bury(topic, partition, record, rejected)
            else:
                found.append(read)
        return found

    def _was_placed(self, read: Read, key: bytes) -> bool:
        """Whether a record that was sent on may have been in its place when there were fewer partitions."""
        if read.record.key != key:
            return False
        # What was decided of it is published, and it is no dead letter: so it was right.
        return self._is_published(read.topic, read.partition, read.record) or any(
            home(key, fewer) == read.partition for fewer in range(1, self.partitions)
        )

    def _is_published(self, topic: str, partition: int, record: Record) -> bool:
        """Whether all that was decided of a record, where it stands, is known to be published."""
        return record.offset < self.telling.frontier.get((topic, partition), 0)

    # -- what is folded --------------------------------------------------------------------------------------------

    def ready(self) -> Reached:
        """Of whom what was published is adopted before the next chunk is folded."""
        return self.telling.reached(self.cursor, self.merged_to)

    def fold(
        self,
        ready: Reached,
        events: Iterable[Read],
        customers: Mapping[str, Customer],
        cursor: Cursor,
        merged_to: float,
    ) -> Folded:
        """Adopt for those who are `ready`, then apply the events; `customers` holds everyone concerned.

        `cursor` and `merged_to` are how far the log is folded then.
        """
        if self._keeps_bonds:
            for customer_id, customer in customers.items():
                customer.bond_held = self.telling.holds_bond(customer_id)
            for customer_id in ready.bonds:
                if (early := self.telling.of_bond(customer_id)) is not None:
                    self._early_bonds[customer_id] = early
        self._read_up_to = dict(self.cursor)
        for customer_id in ready.tiers:
            self._adopt(customer_id, customers)
        for customer_id in ready.bonds:
            if customer_id in self._early_bonds and self.telling.of(customer_id) is None:
                self._adopt_bond(customer_id, customers)
        for read in events:
            self._read_up_to[read.topic, read.partition] = read.record.offset + 1
            self._known_before = max(self._known_before, read.record.timestamp + 1)
            self._take(read, customers)
        self.cursor = dict(cursor)
        self.merged_to = merged_to
        folded, self._now = self._now, Folded()
        for shard, decision, known in self._made:
            entry = decision_entry(decision, self.rules.change_body, shard, known)
            customer_id = decision.customer_id
            if isinstance(decision, BondChange):
                decided = Decided(shard, OfBond(customer_id), entry)
            else:
                decided = Decided(shard, customer_id, entry, decision.direction == "downgrade")
            folded.entries.append(decided)
        self._made = []
        return folded

    def leftovers(self) -> list[Read]:
        """At the very end: the records whose copies never came. They count where they stand, by `settle`."""
        return sorted(self._in_transit.values(), key=lambda read: read.record.timestamp)

    def settle(self, customers: Mapping[str, Customer]) -> Folded:
        """Count what was left over."""
        left, self._in_transit = self.leftovers(), {}
        self._read_up_to, self._known_before = dict(self.cursor), self.rebuilt
        for read in left:
            if read.at in self._dead:
                continue  # its dead letter was published while this was folded
            if self._is_too_late(read) and not self._is_published(read.topic, read.partition, read.record):
                self._too_late(read)
            else:
                self._count(read, customers)
        return self.fold(Reached([], []), (), customers, self.cursor, self.merged_to)

    def _adopt(self, customer_id: str, customers: Mapping[str, Customer]) -> None:
        told = self.telling.of(customer_id)
        assert told is not None  # it was ready
        try:
            self.rules.adopt(customers[customer_id], told.event, told.beneath)
        except ValueError as error:
            raise FatalError(
                f"customer {customer_id!r} was last told tier {told.event.tier!r}: {error}: rebuild with the program "
                f"file of version {told.event.program.version}, then `kizuna program apply`"
            ) from error
        self.telling.adopted(customer_id)
        self.adopted += 1
        self._now.touched.add(customer_id)
        # Not where more was told of the bond since, which is not reached yet.
        if self._keeps_bonds and self._early_bonds.get(customer_id) is self.telling.of_bond(customer_id):
            self._adopt_bond(customer_id, customers)
        for read in told.kept:
            self._count(read, customers)

    def _adopt_bond(self, customer_id: str, customers: Mapping[str, Customer]) -> None:
        """Take over what was told of a bond, or nothing where it was held for the tier's sake alone."""
        told = self.telling.of_bond(customer_id)
        try:
            made = self.rules.adopt_bond(customers[customer_id], [] if told is None else told.records())
        except ValueError as error:
            raise FatalError(
                f"what was published of customer {customer_id!r} does not fit: {error}: rebuild with the program file "
                "that it was published by, then `kizuna program apply`"
            ) from error
        if told is not None:
            self.telling.bond_adopted(customer_id)
            self._early_bonds.pop(customer_id, None)
        self._now.touched.add(customer_id)
        self._tell(home(customer_id.encode(), self.partitions), made)

    def _take(self, read: Read, customers: Mapping[str, Customer]) -> None:
        if read.is_rerouted:
            self._in_transit.pop(read.key, None)
        elif self._is_sent_on(read) or (not read.is_placed and self._is_too_late(read)):
            self._in_transit[read.key] = read
            return
        if self._is_too_late(read) and not (
            read.is_placed
            and self._all_dead_are_known
            and self._is_published(read.topic, read.partition, read.record)
        ):
            self._too_late(read)
            return
        told = self.telling.of(read.event.customer_id)
        if told is not None and read.topic != TOUCHPOINTS and _came_after(told, read):
            told.kept.append(read)
            self._move_clock(read)
        else:
            self._count(read, customers)

    def _is_sent_on(self, read: Read) -> bool:
        """Whether the store that is still there has sent the record on, and counts the copy alone."""
        before = self._before
        if before is None or read.record.timestamp < before.rebuilt:
            return False
        if read.record.offset >= before.watermarks.get((read.topic, read.partition), 0):
            return False
        key = read.event.customer_id.encode()
        return read.record.key != key or home(key, before.partitions) != read.partition

    def _is_too_late(self, read: Read) -> bool:
        newest = self.newest[read.home].get(read.topic)
        return newest is not None and read.event.occurred_at < newest - self._ledger

    def _too_late(self, read: Read) -> None:
        detail = "occurred_at: expected a time within the program's ledger before the newest of its partition"
        self._bury(read.topic, read.partition, read.record, RejectedError(Reason.TOO_LATE, detail))

    def _bury(self, topic: str, partition: int, record: Record, why: RejectedError) -> None:
        letter = self._intake.dead_letter(topic, partition, record, why.reason, why.detail)
        of = topic, partition, record.offset, record.timestamp
        # In the outbox of the record's own shard: what is published there later says that this is, too.
        self._now.entries.append(Decided(partition, of, letter))

    def _count(self, read: Read, customers: Mapping[str, Customer]) -> None:
        """Apply an event; its changes are told unless they were before."""
        customer_id = read.event.customer_id
        made = self._apply[read.topic](
            customers[customer_id], read.event, self.newest[read.home].get(read.topic)
        )
        if made is None:
            self.duplicates += 1
            return
        self.counted += 1
        self._now.touched.add(customer_id)
        self._move_clock(read)
        if not read.is_placed:
            self.telling.folded_elsewhere(customer_id, read.record.timestamp)
        if made and self.telling.of(customer_id) is None:
            self._tell(read.home, made)

    def _tell(self, shard: int, made: Iterable[Decision]) -> None:
        """Publish decisions, with what was known then: of what comes later in the chunk a record says nothing, and who
        adopts it must not take it for all there is."""
        offsets = {topic: self._read_up_to.get((topic, shard), 0) for topic in INPUTS}
        known = watermarks(offsets, self._known_before)
        self._made += [(shard, decision, known) for decision in made]

    def _move_clock(self, read: Read) -> None:
        newest = self.newest[read.home]
        newest[read.topic] = max(read.event.occurred_at, newest.get(read.topic, read.event.occurred_at))


def _came_after(told: Told, read: Read) -> bool:
    """Whether an event was not known yet when a record was decided."""
    if read.partition == told.partition and read.record.key == read.event.customer_id.encode():
        return read.record.offset >= told.watermarks[read.topic]
    # It stands where it did not belong then, and counted when its copy did.
    return read.record.timestamp >= told.rebuilt
