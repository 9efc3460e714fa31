"""What was published and the store may have lost: a Redis that lost its last writes is healed from the output.

The events since are read again, and what is out stays true: tier and tier_seq are taken from it, for each customer
when its inputs have been read again as far as they had been when the record was decided. ADR 0012. So is the bond, from
all of its records (ADR 0014).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

import msgspec

from loyalty.customer import Customer
from loyalty.rules import Rules
from loyalty.views import Beneath
from schemas.tier_change import TierEvent, decode
from schemas.times import parse_rfc3339
from streams.bonds_told import BondsTold, marked
from streams.outbox import BENEATH_HEADER, Entry, positions_of
from streams.protocols import FatalError, Published, Stop
from streams.topics import BOND_TOPICS, TIER_CHANGES

log = logging.getLogger(__name__)

_beneath = msgspec.json.Decoder(Beneath)


@dataclass(frozen=True, slots=True)
class Told:
    """A published record: what it says, what stands beneath it, and up to where each input had been read."""

    body: TierEvent
    beneath: Beneath | None
    read_up_to: Mapping[str, int]
    #: See `ShardState.rebuilt`.
    rebuilt: int = 0


def told_of(record: Published) -> Told:
    """A record of tier-changes, read. Raises ValueError where it is none of ours."""
    if record.value is None:
        raise ValueError("expected a value")
    read_up_to, rebuilt = positions_of(record.headers)
    beneath = dict(record.headers).get(BENEATH_HEADER)
    try:
        below = None if beneath is None else _beneath.decode(beneath)
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected {BENEATH_HEADER}: {error}") from error
    return Told(decode(record.value), below, read_up_to, rebuilt)


def agrees(customer: Customer, told: Told, rules: Rules) -> bool:
    """Whether the state says of the customer what the record says."""
    shown = rules.shown(customer)
    body = told.body
    at_risk = body.at_risk_until
    return (
        shown == (body.tier, body.tier_seq, None if at_risk is msgspec.UNSET else parse_rfc3339(str(at_risk)))
        and customer.time is not None
        and customer.time >= parse_rfc3339(body.effective_at)
    )


def read_all(partition: int, published: Iterable[Published]) -> dict[str, Told]:
    """Of each customer the last record, by what was published of a partition, in the order of the log."""
    found: dict[str, Told] = {}
    for record in published:
        try:
            told = told_of(record)
        except ValueError as error:
            log.warning(
                "partition %d of the output holds a record that is none of ours: %s", partition, error
            )
            continue
        found[told.body.customer_id] = told
    return found


def unpublished(
    entries: Sequence[Entry], told: Mapping[str, Told], bonds: Mapping[str, BondsTold] | None = None
) -> list[Entry]:
    """The entries of an outbox that are not out, by what was told of each customer: of its tier last, of its
    bond at all.

    Numbers say it, but where the store has lost a take-over. Of what is neither nothing tells: it may come twice.
    """
    if not told and not bonds:
        return list(entries)
    refuted: dict[str, set[str]] = {"tier": set(), "bond": set()}
    kept: list[Entry] = []
    for entry in entries:
        is_out = None
        if entry.topic == TIER_CHANGES and entry.value is not None:
            kind, is_out = "tier", _tier_is_out(entry.value, told)
        elif entry.topic in BOND_TOPICS and entry.value is not None:
            kind, is_out = "bond", _bond_is_out(entry, bonds or {})
        if is_out is not None and entry.key is not None:
            customer_id = entry.key.decode()
            if is_out is Out.OTHERWISE:
                # Decided otherwise than what is out, and all that follows from it with it.
                refuted[kind].add(customer_id)
            if is_out is not Out.NOT or customer_id in refuted[kind]:
                continue
        kept.append(entry)
    return kept


class Out(Enum):
    """Whether what an entry says was published: as it stands, otherwise under the same number, or not."""

    SO = auto()
    OTHERWISE = auto()
    NOT = auto()


def _tier_is_out(value: bytes, told: Mapping[str, Told]) -> Out:
    body = decode(value)
    last = told.get(body.customer_id)
    if last is None or body.tier_seq > last.body.tier_seq:
        return Out.NOT
    return Out.OTHERWISE if body.tier_seq == last.body.tier_seq and not same(body, last.body) else Out.SO


def _bond_is_out(entry: Entry, told: Mapping[str, BondsTold]) -> Out:
    mark, body = marked(entry.headers, entry.value)
    last = told.get(body.customer_id)
    if last is None or mark.seq > last.records[-1][0].seq:
        return Out.NOT
    published = [(m, b) for m, b in last.records if m.seq == mark.seq]
    return Out.OTHERWISE if published and published != [(mark, body)] else Out.SO


def same(one: TierEvent, other: TierEvent) -> bool:
    """Whether two bodies say the same, but for what rests on another input: contacts and segment."""
    return _of_purchases(one) == _of_purchases(other)


def _of_purchases(body: TierEvent) -> TierEvent:
    return msgspec.structs.replace(body, contacts={}, segment=msgspec.UNSET)


class _Waits(Protocol):
    """Something that was decided when each input had been read so far."""

    @property
    def read_up_to(self) -> Mapping[str, int]: ...


T = TypeVar("T", bound=_Waits)


class Pending(Generic[T]):
    """What is pending of one kind, by customer."""

    def __init__(self, told: Mapping[str, T]) -> None:
        self._told = dict(told)
        # They were decided in commits one after another: what is less in one input is not more in another.
        self._order = sorted(self._told, key=lambda c: sum(self._told[c].read_up_to.values()), reverse=True)

    def __len__(self) -> int:
        return len(self._told)

    def __contains__(self, customer_id: object) -> bool:
        return customer_id in self._told

    def earliest(self) -> T | None:
        """What is reached first."""
        return self._told[self._order[-1]] if self._order else None

    def reached(self, offsets: Mapping[str, int], most: int) -> dict[str, T]:
        """The earliest, at most so many, if all that they were decided from has been read again."""
        reached: dict[str, T] = {}
        for customer_id in reversed(self._order):
            told = self._told[customer_id]
            if len(reached) == most or any(offsets[topic] < at for topic, at in told.read_up_to.items()):
                break
            reached[customer_id] = told
        return reached

    def settle(self, reached: Mapping[str, T]) -> None:
        """State and output agree of these: what `reached` gave."""
        del self._order[len(self._order) - len(reached) :]
        for customer_id in reached:
            del self._told[customer_id]

    def all(self) -> Iterable[T]:
        """All that is pending."""
        return self._told.values()


class Healing:
    """A shard's published records of which its state may not know, and how far it may read meanwhile.

    A customer who is pending for its bond is held there alone; one who is pending for its tier is held in both, as what
    is decided of a bond rests on the tier.
    """

    def __init__(
        self,
        told: Mapping[str, Told],
        unpublished: Iterable[str] = (),
        bonds: Mapping[str, BondsTold] | None = None,
        bonds_unpublished: Iterable[str] = (),
    ) -> None:
        """`told`: by customer, the last record that was published of its tier. `unpublished`: customers of whom newer
        ones stand in the store's outbox; what the store says of them is newer than what is out. The same of bonds; None
        where the program keeps none."""
        newer = set(unpublished)
        self.tiers = Pending({c: one for c, one in told.items() if c not in newer})
        bonded: dict[str, BondsTold] = {}
        if bonds is not None:
            newer = set(bonds_unpublished)
            bonded = {c: one for c, one in bonds.items() if c not in newer}
            for customer_id, tier in told.items():
                if customer_id in self.tiers:
                    mine = bonded.get(customer_id)
                    if mine is None or _is_before(mine.read_up_to, tier.read_up_to):
                        bonded[customer_id] = BondsTold(mine.records if mine else (), tier.read_up_to)
        self.bonds = Pending(bonded)
        #: Customers whose bond is held, and of whom something has changed meanwhile.
        self.stirred: set[str] = set()

    def __len__(self) -> int:
        # Whoever is pending for its tier is for its bond, where bonds are kept.
        return max(len(self.tiers), len(self.bonds))

    def holds(self, customer_id: str) -> bool:
        """Whether what is decided of a customer now was published already, or is not what was published."""
        return customer_id in self.tiers

    def limit(self, topic: str) -> int | None:
        """The position beyond which nothing of the input is to be read yet; None where nothing is pending."""
        earliest = self.tiers.earliest(), self.bonds.earliest()
        return min((told.read_up_to[topic] for told in earliest if told is not None), default=None)

    def check(self, partition: int, ends: Mapping[tuple[str, int], int]) -> None:
        """Raises FatalError where a record was decided from more than the log holds."""
        waits: list[_Waits] = [*self.tiers.all(), *self.bonds.all()]
        for told in waits:
            for topic, at in told.read_up_to.items():
                if at > ends[topic, partition]:
                    raise FatalError(
                        f"partition {partition}: a change was published that was decided when {topic} had been read up "
                        f"to {at}, and the log ends at {ends[topic, partition]}: it lost records or is another; "
                        "restore it, or make the state anew with `kizuna rebuild`",
                        Stop.PUBLISHED_UNREAD,
                    )


def _is_before(one: Mapping[str, int], other: Mapping[str, int]) -> bool:
    return sum(one.values()) < sum(other.values())
