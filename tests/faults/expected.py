"""What must be, from the inputs alone: placement and rerouting by the contract, the rest by `loyalty.batch`.

Tiers are computed by the program without bonds, which they do not rest on, as the batch computation of bonds is far too
slow for logs of this length; of bonds its facts are asked, once.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
from kafka.partitioner.default import murmur2

from loyalty.batch import Batch
from loyalty.batch_customer import Event
from schemas.decoding import EventDecoder
from schemas.events import OverrideCommanded, TouchpointMade
from schemas.program import Program
from schemas.rejection import RejectedError
from streams.protocols import COMMANDS, PURCHASES, TOUCHPOINTS
from tests.space import Read

REROUTED = "loyalty-rerouted"
#: What a worker puts there; a record of a shop's own that bears the mark is told by another value.
BY_A_WORKER = b"1"

#: Where a record stands: topic, partition, offset.
Place = tuple[str, int, int]


class Copy(NamedTuple):
    """A record as it must have been sent on."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


@dataclass(slots=True)
class Expected:
    """Of all partitions together."""

    program: Program
    batches: list[Batch]
    #: Newest `occurred_at` of the purchases and refunds of each partition, None where there are none.
    newest: list[int | None]
    #: Whether the purchases and refunds of a partition came in time order, so that its changes are promised.
    ordered: list[bool]
    #: Customers whom somebody commanded: their tier does not follow from metrics alone.
    commanded: set[str] = field(default_factory=set)
    #: Every dead letter: the record and its reason.
    dead_letters: dict[Place, tuple[Read, str]] = field(default_factory=dict)
    #: Every record that must have been sent on, and every one that a worker did send on.
    sent_on: Counter[Copy] = field(default_factory=Counter)
    found_sent_on: Counter[Copy] = field(default_factory=Counter)
    #: Every event that counts, by customer, with its topic and offset.
    events: dict[str, list[tuple[str, int, Event]]] = field(default_factory=dict)
    #: Newest touchpoint of all.
    newest_touch: int | None = None

    def let_fall(self, until: int | None) -> None:
        """Let the clock come to `until` (epoch milliseconds), or, for None, to each partition's newest event."""
        for batch, newest in zip(self.batches, self.newest, strict=True):
            clock = newest if until is None else until
            if clock is not None:
                batch.let_fall(clock - self.program.allowed_lateness)

    def lines(self, at: int) -> dict[str, dict[str, Any]]:
        """The whole `state dump` as of an instant that is not before any event."""
        lines = {line["customer_id"]: line for batch in self.batches for line in batch.lines(at)}
        if self.program.bonds is not None and self.program.bonds.segments:
            for batch in self.batches:
                for customer_id, customer in batch.customers.items():
                    facts = customer.bond.facts
                    lines[customer_id]["segment"] = facts.segment(self.program, at)
                    lines[customer_id]["attachment"] = facts.attachment(self.program, at)
        return lines


def home(customer_id: str, partitions: int) -> int:
    """The contract's own words: `(murmur2(key) & 0x7fffffff) % partitions`."""
    return int(murmur2(customer_id.encode()) & 0x7FFFFFFF) % partitions


def expect(
    program: Program, inputs: Mapping[str, Sequence[Read]], partitions: int, within: int | None = None
) -> Expected:
    """Read the logs as the contract does, one partition after the other.

    `within`: the wall clock's further condition for a partition to count as ordered, that each record was appended
    at most so many milliseconds after its `occurred_at`.
    """
    tiers = msgspec.structs.replace(program, bonds=None)
    expected = Expected(
        program,
        [Batch(tiers) for _ in range(partitions)],
        [None] * partitions,
        [True] * partitions,
    )
    decoder = EventDecoder(program)
    decode: dict[str, Callable[[Any], Event]] = {
        PURCHASES: decoder.purchase,
        TOUCHPOINTS: decoder.touchpoint,
        COMMANDS: decoder.command,
    }
    for partition in range(partitions):
        for topic, record in merged(inputs, partition):
            event = _place(expected, decode[topic], topic, record)
            if event is not None:
                _count(expected, topic, record, event, within)
    return expected


def merged(inputs: Mapping[str, Sequence[Read]], partition: int) -> Iterator[tuple[str, Read]]:
    """One partition's logs as one, by append time; of records of one time the purchases first.

    The order between the topics matters for commands only, which wait for the purchases appended before them.
    """
    streams: list[Iterable[tuple[int, int, int, str, Read]]] = []
    for rank, topic in enumerate((PURCHASES, TOUCHPOINTS, COMMANDS)):
        records = [r for r in inputs.get(topic, ()) if r.partition == partition]
        # A broker's clock may step back; the log's own order holds.
        times = accumulate((r.timestamp for r in records), max)
        streams.append([(at, rank, r.offset, topic, r) for at, r in zip(times, records, strict=True)])
    return ((topic, record) for _, _, _, topic, record in heapq.merge(*streams, key=lambda item: item[:3]))


def _place(expected: Expected, decode: Callable[[Any], Event], topic: str, record: Read) -> Event | None:
    """The event, if the record can be used and stands where it belongs."""
    place = topic, record.partition, record.offset
    is_marked = any(name == REROUTED for name, _ in record.headers)
    if is_marked and (REROUTED, BY_A_WORKER) in record.headers:
        expected.found_sent_on[
            Copy(topic, record.partition, record.key or b"", record.value, tuple(record.headers))
        ] += 1
    try:
        event = decode(record)
    except RejectedError as rejected:
        expected.dead_letters[place] = record, rejected.reason.value
        return None
    key, right = event.customer_id.encode(), home(event.customer_id, len(expected.batches))
    if (record.key, record.partition) == (key, right):
        return event
    if is_marked:
        expected.dead_letters[place] = record, "misrouted"
    else:
        headers = (*record.headers, (REROUTED, BY_A_WORKER))
        expected.sent_on[Copy(topic, right, key, record.value, headers)] += 1
    return None


def _count(expected: Expected, topic: str, record: Read, event: Event, within: int | None) -> None:
    partition = record.partition
    batch, newest = expected.batches[partition], expected.newest[partition]
    late = batch.too_late
    counts = batch.read(event)
    if batch.too_late > late:
        expected.dead_letters[topic, partition, record.offset] = record, "too_late"
    if not counts:
        return
    expected.events.setdefault(event.customer_id, []).append((topic, record.offset, event))
    if isinstance(event, TouchpointMade):
        expected.newest_touch = max(event.occurred_at, expected.newest_touch or 0)
        return
    if isinstance(event, OverrideCommanded):
        expected.commanded.add(event.customer_id)
        expected.ordered[partition] = False
        return
    if newest is not None and event.occurred_at < newest:
        expected.ordered[partition] = False
    if within is not None and record.timestamp > event.occurred_at + within:
        expected.ordered[partition] = False
    expected.newest[partition] = max(event.occurred_at, newest or 0)
