"""What the output has told of each customer, and when a rebuild has read as much as was known then."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from sys import intern
from typing import Any, NamedTuple

import msgspec

from loyalty.customer import Customer
from loyalty.views import Beneath
from schemas.tier_change import Rfm, TierEvent
from schemas.times import format_ms
from streams.awaiting import Awaiting, Cursor
from streams.bonds_told import Marked, marked
from streams.healing import told_of
from streams.outbox import BOND_HEADER, Headers, positions_of
from streams.protocols import Published

#: Of a record that is adopted only the standing is kept: there is one for each customer.
_NO_RFM = Rfm(None, 0, "0", "XXX", 0, 0, 0)


@dataclass(slots=True)
class Told:
    """The newest published record of a customer, and what was known when it was decided."""

    #: The partition in which it stands, and up to where each input of that partition had been read.
    partition: int
    watermarks: dict[str, int]
    event: TierEvent
    beneath: Beneath | None = None
    #: What was appended before this instant (epoch milliseconds) was known whatever partition it stands in.
    rebuilt: int = 0
    #: What came since and has to wait until the record is adopted, in the order in which it was read.
    kept: list[Any] = field(default_factory=list)


def read_told(partition: int, record: Published) -> Told:
    """A record of customer-tiers. Raises ValueError where it is none of ours."""
    told = told_of(record)
    event = told.body
    lean = msgspec.structs.replace(
        event,
        event_id="",
        tier=intern(event.tier),
        previous_tier="",
        rfm=_NO_RFM,
        contacts={},
        cause_event_id=None,
    )
    return Told(partition, dict(told.read_up_to), lean, told.beneath, told.rebuilt)


@dataclass(frozen=True, slots=True)
class ToldOfBond:
    """All published records of a customer's bond that are not adopted yet, and what was known with the last of them."""

    partition: int
    watermarks: dict[str, int]
    #: The `seq` of the last of them.
    seq: int
    rebuilt: int
    #: As they were read, in no order: there are many, and most wait for long.
    raw: list[tuple[Headers, bytes | None]]

    def records(self) -> list[Marked]:
        """The records, in the order in which they were decided."""
        return sorted((marked(*record) for record in self.raw), key=lambda one: one[0].seq)

    def and_(self, other: "ToldOfBond") -> "ToldOfBond":
        """These records and some more."""
        self.raw.extend(other.raw)
        last = max(self, other, key=lambda told: told.seq)
        return ToldOfBond(last.partition, last.watermarks, last.seq, last.rebuilt, self.raw)


def read_bond_told(partition: int, record: Published) -> tuple[str, ToldOfBond]:
    """A record of one of the topics of bonds, and whose it is. Raises ValueError where it is none of ours."""
    mark, body = marked(record.headers, record.value)
    read_up_to, rebuilt = positions_of(record.headers)
    headers = [(name, value) for name, value in record.headers if name in ("ce_type", BOND_HEADER)]
    return body.customer_id, ToldOfBond(partition, read_up_to, mark.seq, rebuilt, [(headers, record.value)])


class OvertakenError(Exception):
    """A change was published of a customer whose later events are counted already."""


class Reached(NamedTuple):
    """Of whom what was published may be adopted now."""

    tiers: list[str]
    bonds: list[str]

    @property
    def customers(self) -> set[str]:
        """All of them."""
        return {*self.tiers, *self.bonds}


class Telling:
    """The customers whose records are not adopted yet, by what their records wait for."""

    def __init__(self) -> None:
        self._tiers: Awaiting[Told] = Awaiting()
        self._bonds: Awaiting[ToldOfBond] = Awaiting()
        #: `tier_seq` of each customer's newest record, adopted or not.
        self._seqs: dict[str, int] = {}
        #: Up to where each input was read when the newest changes were decided: what was decided below is published.
        self.frontier: dict[tuple[str, int], int] = {}
        #: When the newest event was appended that is folded where it did not belong, by customer.
        self._elsewhere: dict[str, int] = {}

    def __len__(self) -> int:
        """How many are not adopted yet: tiers, and bonds."""
        return len(self._tiers) + len(self._bonds)

    def of(self, customer_id: str) -> Told | None:
        """What is told of a customer's tier and not adopted yet."""
        return self._tiers.get(customer_id)

    def of_bond(self, customer_id: str) -> ToldOfBond | None:
        """What is told of a customer's bond and not adopted yet."""
        return self._bonds.get(customer_id)

    def holds_bond(self, customer_id: str) -> bool:
        """Whether nothing is to be decided of a customer's bond yet: it rests on the tier, too."""
        return self._bonds.get(customer_id) is not None or self._tiers.get(customer_id) is not None

    def pending(self) -> Iterator[tuple[str, Told]]:
        """Everyone whose tier is not adopted yet."""
        return self._tiers.items()

    def pending_bonds(self) -> Iterator[tuple[str, ToldOfBond]]:
        """Everyone whose bond is not adopted yet."""
        return self._bonds.items()

    def tell(self, told: Told, cursor: Cursor) -> bool:
        """Note a published record of a tier; whether it is news. `cursor`: up to where was folded already.

        Raises OvertakenError where the record was decided before what is folded already.
        """
        customer_id = told.event.customer_id
        self._advance(told)
        # A customer's records stand in several partitions where their number has changed: the largest number holds.
        if told.event.tier_seq <= self._seqs.get(customer_id, 0):
            return False
        self._check_overtaken(customer_id, told, cursor)
        self._seqs[customer_id] = told.event.tier_seq
        before = self._tiers.get(customer_id)
        if before is not None:
            told.kept = before.kept
        self._tiers.put(customer_id, told)
        return True

    def tell_bond(self, customer_id: str, told: ToldOfBond, cursor: Cursor) -> None:
        """Note published records of a bond, each told once. Raises as `tell` does."""
        self._advance(told)
        self._check_overtaken(customer_id, told, cursor)
        before = self._bonds.get(customer_id)
        self._bonds.put(customer_id, told if before is None else before.and_(told))

    def folded_elsewhere(self, customer_id: str, timestamp: int) -> None:
        """Note that an event is folded that stands in another partition than the customer's, or under another key."""
        self._elsewhere[customer_id] = max(timestamp, self._elsewhere.get(customer_id, timestamp))

    def _check_overtaken(self, customer_id: str, told: Told | ToldOfBond, cursor: Cursor) -> None:
        is_overtaken = any(
            at < cursor.get((topic, told.partition), 0) for topic, at in told.watermarks.items()
        )
        if is_overtaken or self._elsewhere.get(customer_id, -1) >= told.rebuilt:
            raise OvertakenError(f"customer {customer_id!r} was told something that was decided before")

    def _advance(self, told: Told | ToldOfBond) -> None:
        for topic, at in told.watermarks.items():
            key = topic, told.partition
            self.frontier[key] = max(at, self.frontier.get(key, 0))

    def amend(
        self,
        customer: Customer,
        beneath: Beneath | None,
        partition: int,
        read_up_to: dict[str, int],
        rebuilt: int,
    ) -> None:
        """A store knows more of a customer than the newest record: what is beneath, having read its partition so far.

        Nothing where there is no record, or another one is the newest. Before anything is folded.
        """
        customer_id = customer.customer_id
        told = self._tiers.get(customer_id)
        if told is None or told.event.tier_seq != customer.tier_seq or customer.time is None:
            return
        event = msgspec.structs.replace(told.event, effective_at=format_ms(customer.time))
        self._tiers.put(customer_id, Told(partition, read_up_to, event, beneath, rebuilt))

    def adopted(self, customer_id: str) -> None:
        """The record of the tier is adopted."""
        self._tiers.remove(customer_id)

    def bond_adopted(self, customer_id: str) -> None:
        """The records of the bond are adopted."""
        self._bonds.remove(customer_id)

    def reached(self, cursor: Cursor, merged_to: float) -> Reached:
        """Whose records may be adopted now, each told once; see `Awaiting.reached`."""
        return Reached(self._tiers.reached(cursor, merged_to), self._bonds.reached(cursor, merged_to))
