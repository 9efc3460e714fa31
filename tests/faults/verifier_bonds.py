"""The verifier's part about bonds: one sequence over three topics, and what docs/bonds.md says of each of them.

Triggers have a module of their own.
"""

import json
from collections import Counter
from itertools import pairwise
from typing import Any

from loyalty.batch_customer import BatchCustomer
from loyalty.batch_facts import Converted
from schemas.money import format_minor
from streams.protocols import INPUTS
from tests.faults.expected import Expected, home
from tests.faults.marketing import ms_of
from tests.faults.reading import Found
from tests.faults.told import ATTRIBUTIONS, SEGMENTS, TYPES, Of, Told, positions_of
from tests.faults.verdict import Verdict
from tests.faults.verifier_triggers import cuts_of, judge_triggers
from tests.space import text_of


def judge_bonds(
    verdict: Verdict,
    expected: Expected,
    found: Found,
    lower: int | None,
    upper: int | None,
    lost_writes: bool,
) -> None:
    """Compare all that was told of bonds; the arguments are those of `judge`."""
    if expected.program.bonds is None:
        for topic, records in found.bonds.items():
            verdict.expect(f"{topic}: records by a program without bonds", len(records), 0)
        return
    told = _records(verdict, expected, found, lost_writes)
    for of in told.values():
        _chain(verdict, of)
    judge_triggers(verdict, expected, told.values(), {} if lost_writes else cuts_of(found))
    if not verdict.stopped:
        _final(verdict, expected, found, told, lower, upper)


def _records(verdict: Verdict, expected: Expected, found: Found, lost_writes: bool) -> dict[str, Of]:
    """Each id once and with one body, in its place, with the headers that say what it is."""
    program, partitions = expected.program, len(expected.batches)
    told: dict[str, Of] = {}
    times: Counter[str] = Counter()
    bodies: dict[str, bytes | None] = {}
    for topic, records in found.bonds.items():
        for record in records:
            body, header = record.json, record.header
            customer_id, event_id = body["customer_id"], body["event_id"]
            times[event_id] += 1
            same = bodies.setdefault(event_id, record.value)
            verdict.expect(f"{event_id}: a second body", record.value, same)
            verdict.expect(f"{event_id}: ce_id", header.get("ce_id"), event_id.encode())
            verdict.expect(f"{event_id}: ce_type", header.get("ce_type"), TYPES[topic])
            verdict.expect(f"{event_id}: key", record.key, customer_id.encode())
            verdict.expect(f"{event_id}: partition", record.partition, home(customer_id, partitions))
            verdict.expect(f"{event_id}: id", event_id, f"{program.id}:{_id_of(topic, body)}")
            verdict.expect(f"{event_id}: watermarks", len(positions_of(record)), len(INPUTS))
            mark = json.loads(header.get("loyalty-bond") or b"{}")
            of = told.setdefault(customer_id, Of(customer_id))
            of.all.append(Told(topic, mark.get("seq", 0), body, record))
    for event_id, count in times.items():
        verdict.expect(f"{event_id}: times that a read_committed reader saw it", count, 1)
    # What was decided and lost with Redis's last writes may stand in a transaction that was aborted.
    for record in [] if lost_writes else found.uncommitted_bonds:
        event_id = record.json["event_id"]
        verdict.expect(f"{event_id}: a second body", record.value, bodies.setdefault(event_id, record.value))
    verdict.told = times.total()
    for of in told.values():
        of.all.sort(key=lambda one: one.seq)
    return told


def _id_of(topic: str, body: dict[str, Any]) -> str:
    who = body["customer_id"]
    if topic == SEGMENTS:
        return f"segment/{who}/{body['segment_seq']}"
    if topic == ATTRIBUTIONS:
        return f"attribution/{who}/{body['attribution_seq']}"
    if body["scenario"] is None:  # somebody asked for it, and it has a number of its own
        return f"reserved/{who}/{body['event_id'].rpartition('/')[2]}"
    return f"trigger/{who}/{body['scenario']}/{body['run']}/{body['step']}"


def _chain(verdict: Verdict, of: Of) -> None:
    """One sequence for all and one for each kind, without holes; each segment from the one before; time never back."""
    who = of.customer_id
    for what, numbers in (
        ("seq", [told.seq for told in of.all]),
        ("segment_seq", [told.body["segment_seq"] for told in of.only(SEGMENTS)]),
        ("attribution_seq", [told.body["attribution_seq"] for told in of.only(ATTRIBUTIONS)]),
    ):
        verdict.expect(f"{who}: {what}", numbers, list(range(1, len(numbers) + 1)))
    for before, after in pairwise(of.all):
        if after.at < before.at:
            verdict.wrong.append(
                f"{after.body['event_id']}: effective_at is before {before.body['event_id']}"
            )
        if after.topic == before.topic and after.record.offset < before.record.offset:
            verdict.wrong.append(f"{after.body['event_id']}: published before {before.body['event_id']}")
    segment = None
    for told in of.only(SEGMENTS):
        verdict.expect(f"{told.body['event_id']}: previous_segment", told.body["previous_segment"], segment)
        segment = told.body["segment"]


# -- what follows from the log alone ---------------------------------------------------------------------------------


def _final(
    verdict: Verdict,
    expected: Expected,
    found: Found,
    told: dict[str, Of],
    lower: int | None,
    upper: int | None,
) -> None:
    """The last segment is that of all facts, and so is what was told last of each conversion; the store says the
    same."""
    program = expected.program
    for partition, batch in enumerate(expected.batches):
        newest = expected.newest[partition]
        clocks = [newest] if upper is None else [lower, upper]
        instants = [clock - program.allowed_lateness - 1 for clock in clocks if clock is not None]
        for customer_id, customer in batch.customers.items():
            of = told.get(customer_id, Of(customer_id))
            segments = of.only(SEGMENTS)
            last = segments[-1].body["segment"] if segments else None
            verdict.expect(f"{customer_id}: records decided", found.decided.get(customer_id), len(of.all))
            verdict.expect(f"{customer_id}: stored segment", found.segments.get(customer_id), last)
            if customer_id in found.readable_segments:
                verdict.expect(f"{customer_id}: readable segment", found.readable_segments[customer_id], last)
            seen = max(event.occurred_at for _, _, event in expected.events[customer_id])
            wanted = {customer.bond.segment_at(program, max(seen, at)) for at in instants or [seen]}
            # Where the wall clock brings another one just now, both are right.
            if len(wanted) == 1:
                verdict.segments += 1
                verdict.expect(f"{customer_id}: last segment", last, *wanted)
            _attributions(verdict, expected, customer, of)
    for customer_id in told.keys() - {i for batch in expected.batches for i in batch.customers}:
        verdict.wrong.append(f"{customer_id}: told of, and nothing was read")


def _attributions(verdict: Verdict, expected: Expected, customer: BatchCustomer, of: Of) -> None:
    """What was told last of each conversion is what all facts say. Of what is older than the ledger nothing more is
    told, and an order id that is used again then is another's."""
    program = expected.program
    newest = max(at for at in (*expected.newest, expected.newest_touch) if at is not None)
    names = Counter(("purchase", order.order_id) for order in customer.bond.facts.orders)
    theirs = {_key_of(one): _said_of(expected, one) for one in customer.bond.attributions(program)}
    revisions: Counter[tuple[str, ...]] = Counter()
    for told in of.only(ATTRIBUTIONS):
        revisions[key := _conversion(told.body)] += 1
        if names[key] <= 1:
            verdict.expect(f"{told.body['event_id']}: revision", told.body["revision"], revisions[key])
    ours = {_conversion(one.body): _said(one.body) for one in of.only(ATTRIBUTIONS)}
    times = {_conversion(one.body): one.body["conversion"]["occurred_at"] for one in of.only(ATTRIBUTIONS)}
    times |= {key: said[0] for key, said in theirs.items()}
    for key in sorted(ours.keys() | theirs.keys()):
        if ms_of(times[key]) < newest - program.ledger or names[key] > 1:
            continue
        verdict.attributions += 1
        # One that was attributed on the way, and withdrawn, need not have been on another way.
        verdict.expect(f"{of.customer_id}: attribution of {key}", ours.get(key), theirs.get(key))


def _conversion(body: dict[str, Any]) -> tuple[str, ...]:
    told = body["conversion"]
    if told["kind"] == "purchase":
        return "purchase", told["order_id"]
    return "visit", told["source"], told["event_id"]


def _said(body: dict[str, Any]) -> tuple[Any, ...] | None:
    """Time, store, touch, match and amount; None where it is withdrawn."""
    touch, told = body["touch"], body["conversion"]
    if body["status"] == "withdrawn":
        return None
    return (
        told["occurred_at"],
        told["store_id"],
        touch["source"],
        touch["event_id"],
        body["match"],
        body["amount"],
    )


def _key_of(conversion: Converted) -> tuple[str, ...]:
    if conversion.order is not None:
        return "purchase", conversion.order.order_id
    return "visit", conversion.event.source, conversion.event.event_id


def _said_of(expected: Expected, conversion: Converted) -> tuple[Any, ...]:
    event, order, touch = conversion.event, conversion.order, conversion.touch
    assert touch is not None
    return (
        text_of(event.occurred_at),
        event.store_id,
        touch.source,
        touch.event_id,
        conversion.match,
        None if order is None else format_minor(order.net, expected.program.decimals),
    )
