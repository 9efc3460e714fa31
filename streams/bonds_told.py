"""What was published of bonds, read back: from three topics, in the one sequence that each customer's records have.

Tiers are healed from a customer's last record. Of a bond each record says a thing of its own (a trigger, a segment, an
attribution), so all of them count. ADR 0014.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from loyalty.bond import BondMark
from schemas.bond_records import EVENT_TYPES, BondEvent, decode
from streams.outbox import BOND_HEADER, Headers, positions_of
from streams.protocols import Published

log = logging.getLogger(__name__)

_mark = msgspec.json.Decoder(BondMark)
_kinds = {name.encode(): kind for kind, name in EVENT_TYPES.items()}

#: A record's mark and body, as `Rules.adopt_bond` takes them.
Marked = tuple[BondMark, BondEvent]


@dataclass(frozen=True, slots=True)
class BondRecord:
    """One published record, and up to where each input had been read when it was decided."""

    mark: BondMark
    body: BondEvent
    read_up_to: Mapping[str, int]
    #: See `ShardState.rebuilt`.
    rebuilt: int = 0


@dataclass(frozen=True, slots=True)
class BondsTold:
    """What was published of a customer since some position, in order, and up to where the inputs had been read with the
    last of it."""

    records: Sequence[Marked]
    read_up_to: Mapping[str, int]


def marked(headers: Headers, value: bytes | None) -> Marked:
    """The mark and the body of a record. Raises ValueError where it is none of ours."""
    held = dict(headers)
    raw, kind = held.get(BOND_HEADER), _kinds.get(held.get("ce_type") or b"")
    if raw is None or kind is None or value is None:
        raise ValueError(f"expected a value, a known ce_type, and the header {BOND_HEADER}")
    try:
        return _mark.decode(raw), decode(kind, value)
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected {BOND_HEADER}: {error}") from error


def read_bond(record: Published) -> BondRecord:
    """A record of one of the three topics. Raises ValueError where it is none of ours."""
    mark, body = marked(record.headers, record.value)
    return BondRecord(mark, body, *positions_of(record.headers))


def read_all_bonds(partition: int, published: Iterable[Published]) -> dict[str, BondsTold]:
    """Of each customer all records, by what was published of a partition in the three topics, each in its own order."""
    found: dict[str, list[BondRecord]] = {}
    for record in published:
        try:
            told = read_bond(record)
        except ValueError as error:
            log.warning(
                "partition %d of the output holds a record that is none of ours: %s", partition, error
            )
            continue
        found.setdefault(told.body.customer_id, []).append(told)
    for records in found.values():
        records.sort(key=lambda record: record.mark.seq)
    return {
        customer_id: BondsTold([(one.mark, one.body) for one in records], records[-1].read_up_to)
        for customer_id, records in found.items()
    }
