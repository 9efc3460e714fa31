"""What was published and the store may have lost: a Redis that lost its last writes is healed from the output.

The events since are read again, and what is out stays true: tier and tier_seq are taken from it, for each customer
when its inputs have been read again as far as they had been when the record was decided. ADR 0012.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from loyalty.customer import Customer
from loyalty.rules import Rules
from loyalty.views import Beneath
from schemas.tier_change import TierEvent, decode
from schemas.times import parse_rfc3339
from streams.outbox import BENEATH_HEADER, REBUILT, WATERMARKS_HEADER, Entry
from streams.protocols import INPUTS, FatalError, Published, Stop
from streams.topics import TIER_CHANGES

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
    headers = dict(record.headers)
    raw = headers.get(WATERMARKS_HEADER)
    if raw is None or record.value is None:
        raise ValueError(f"expected a value and the header {WATERMARKS_HEADER}")
    positions = dict(part.split("=", 1) for part in raw.decode().split(";"))
    beneath = headers.get(BENEATH_HEADER)
    try:
        return Told(
            decode(record.value),
            None if beneath is None else _beneath.decode(beneath),
            {topic: int(positions[topic]) for topic in INPUTS},
            int(positions.get(REBUILT, 0)),
        )
    except (msgspec.MsgspecError, KeyError) as error:
        raise ValueError(f"expected {WATERMARKS_HEADER} and {BENEATH_HEADER}: {error}") from error


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


def unpublished(entries: Sequence[Entry], told: Mapping[str, Told]) -> list[Entry]:
    """The entries of an outbox that are not out, by what was told of each customer last.

    Numbers say it, but where the store has lost a take-over. Of what is no change nothing tells: it may come twice.
    """
    if not told:
        return list(entries)
    refuted: set[str] = set()
    kept: list[Entry] = []
    for entry in entries:
        if entry.topic == TIER_CHANGES and entry.value is not None:
            body = decode(entry.value)
            last = told.get(body.customer_id)
            if last is not None:
                if body.tier_seq == last.body.tier_seq and not same(body, last.body):
                    # Decided otherwise than what is out, and all that follows from it with it.
                    refuted.add(body.customer_id)
                if body.tier_seq <= last.body.tier_seq or body.customer_id in refuted:
                    continue
        kept.append(entry)
    return kept


def same(one: TierEvent, other: TierEvent) -> bool:
    """Whether two bodies say the same, but for the contacts, of which nothing is promised."""
    return msgspec.structs.replace(one, contacts={}) == msgspec.structs.replace(other, contacts={})


class Healing:
    """A shard's published records of which its state may not know, and how far it may read meanwhile."""

    def __init__(self, told: Mapping[str, Told], unpublished: Iterable[str] = ()) -> None:
        """`told`: by customer, the last record that was published. `unpublished`: customers of whom newer ones stand
        in the store's outbox; what the store says of them is newer than what is out."""
        self._told = dict(told)
        for customer_id in unpublished:
            self._told.pop(customer_id, None)
        # They were decided in commits one after another: what is less in one input is not more in another.
        self._order = sorted(self._told, key=lambda c: sum(self._told[c].read_up_to.values()), reverse=True)

    def __len__(self) -> int:
        return len(self._told)

    def holds(self, customer_id: str) -> bool:
        """Whether what is decided of a customer now was published already, or is not what was published."""
        return customer_id in self._told

    def limit(self, topic: str) -> int | None:
        """The position beyond which nothing of the input is to be read yet; None where nothing is pending."""
        return self._told[self._order[-1]].read_up_to[topic] if self._order else None

    def reached(self, offsets: Mapping[str, int], most: int) -> dict[str, Told]:
        """The earliest records, at most so many, if all that they were decided from has been read again."""
        reached: dict[str, Told] = {}
        for customer_id in reversed(self._order):
            told = self._told[customer_id]
            if len(reached) == most or any(offsets[topic] < at for topic, at in told.read_up_to.items()):
                break
            reached[customer_id] = told
        return reached

    def settle(self, reached: Mapping[str, Told]) -> None:
        """State and output agree of these: what `reached` gave."""
        del self._order[len(self._order) - len(reached) :]
        for customer_id in reached:
            del self._told[customer_id]

    def check(self, partition: int, ends: Mapping[tuple[str, int], int]) -> None:
        """Raises FatalError where a record was decided from more than the log holds."""
        for told in self._told.values():
            for topic, at in told.read_up_to.items():
                if at > ends[topic, partition]:
                    raise FatalError(
                        f"partition {partition}: a change was published that was decided when {topic} had been read up "
                        f"to {at}, and the log ends at {ends[topic, partition]}: it lost records or is another; "
                        "restore it, or make the state anew with `kizuna rebuild`",
                        Stop.PUBLISHED_UNREAD,
                    )
