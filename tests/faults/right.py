"""What the tests of the verifier hand to it: a log of the load's events, and the outputs that are right."""

import json
from copy import deepcopy
from itertools import islice
from typing import Any

from loyalty.bond import BondChange
from loyalty.customer import Customer
from loyalty.rules import Rules
from loyalty.views import Decision
from schemas.decoding import EventDecoder
from schemas.program import Program
from schemas.rejection import RejectedError
from schemas.tier_change import encode, headers
from streams.outbox import bond_entry, watermarks
from tests.faults.expected import REROUTED, Expected, home, merged
from tests.faults.load import START, STEP, stream
from tests.faults.reading import BOND_TOPICS, Found
from tests.space import Read, purchase

PARTITIONS = 2
#: A thousand events take 69 days, so that customers fall, too.
SLOWLY = 20 * STEP
LATE = START + 10_000 * 86_400_000


def log_of(misplaced: bool = True) -> dict[str, list[Read]]:
    """Some of the load, and a record that stood in the wrong place and was sent on."""
    logs: dict[str, list[Read]] = {"purchases": [], "touchpoints": [], "customer-commands": []}
    ends: dict[tuple[str, int], int] = {}

    def append(topic: str, partition: int, key: bytes, value: bytes, mark: bool = False) -> None:
        offset = ends[topic, partition] = ends.get((topic, partition), -1) + 1
        marks: list[tuple[str, bytes | None]] = [(REROUTED, b"1")] if mark else []
        logs[topic].append(Read(partition, offset, LATE + sum(ends.values()), key, value, marks))

    for sent in islice(stream(5, customers=20, step=SLOWLY), 1_000):
        append(sent.topic, home(sent.key.decode(), PARTITIONS), sent.key, sent.value)
    if misplaced:
        value = json.dumps(purchase("c1", "misplaced", "1.00", START + 1_001 * SLOWLY)).encode()
        right = home("c1", PARTITIONS)
        append("purchases", 1 - right, b"c1", value)
        append("purchases", right, b"c1", value, mark=True)
    return logs


def right_outputs(program: Program, computed: Expected) -> Found:
    """What must come out, made of the batch computation."""
    expected = deepcopy(computed)
    expected.let_fall(None)
    newest = max(at for at in expected.newest if at is not None)
    found = Found(as_of=newest, dump=expected.lines(newest))
    for partition, batch in enumerate(expected.batches):
        for customer_id, customer in batch.customers.items():
            standing = program.tiers[0].name, 0
            for offset, change in enumerate(customer.changes):
                record = Read(partition, offset, 0, customer_id.encode(), encode(change), [*headers(change)])
                found.changes.append(record)
                found.tiers.append(record)
                standing = change.tier, change.tier_seq
            found.stored[customer_id] = found.readable[customer_id] = standing
    found.uncommitted = list(found.changes)
    tell_bonds(found, program, log_of())
    for (topic, partition, offset), (record, reason) in expected.dead_letters.items():
        told = (reason, "value: told", topic, partition, offset, record.timestamp)
        names = ("reason", "detail", "topic", "partition", "offset", "timestamp")
        ours = [(f"dlq-{name}", str(value).encode()) for name, value in zip(names, told, strict=True)]
        found.dead_letters.append(Read(0, 0, 0, record.key, record.value, [*record.headers, *ours]))
    return found


def tell_bonds(found: Found, program: Program, logs: dict[str, list[Read]]) -> None:
    """What must be told of bonds, as the fold tells it."""
    rules, decoder = Rules(program), EventDecoder(program)
    reads = {
        "purchases": (decoder.purchase, rules.apply),
        "touchpoints": (decoder.touchpoint, rules.touch),
    }
    found.bonds = {topic: [] for topic in BOND_TOPICS}
    for partition in range(PARTITIONS):
        customers: dict[str, Customer] = {}
        newest: dict[str, int] = {}
        offsets = dict.fromkeys(logs, 0)

        def tell(decisions: list[Decision] | None, partition: int = partition) -> None:
            for decision in decisions or ():
                if isinstance(decision, BondChange):
                    entry = bond_entry(decision, partition, watermarks(offsets))  # noqa: B023
                    told = found.bonds[entry.topic]
                    told.append(Read(partition, len(told), 0, entry.key, entry.value, [*entry.headers]))

        for topic, record in merged(logs, partition):
            offsets[topic] = record.offset + 1
            decode, apply = reads[topic]
            try:
                event: Any = decode(record)  # type: ignore[operator]
            except RejectedError:
                continue
            if home(event.customer_id, PARTITIONS) == partition:
                customer_id = event.customer_id
                customer = customers.setdefault(customer_id, rules.new_customer(customer_id))
                tell(apply(customer, event, newest.get(topic)))  # type: ignore[operator]
                newest[topic] = max(event.occurred_at, newest.get(topic, 0))
        for customer in customers.values():
            tell(rules.advance(customer, newest["purchases"]))
            name, bond = customer.customer_id, customer.bond
            found.segments[name] = found.readable_segments[name] = bond.segment
            found.decided[name] = bond.seq
    found.uncommitted_bonds = [record for records in found.bonds.values() for record in records]


def body(record: Read, **fields: Any) -> Read:
    return record._replace(value=json.dumps(record.json | fields).encode())
