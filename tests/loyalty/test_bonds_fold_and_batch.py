"""Bonds: the fold, event by event with its shortcuts, against the batch computation from docs/bonds.md."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from loyalty.batch import Batch, BatchCustomer
from schemas.bond_records import AttributionEvent
from schemas.events import PurchaseMade, TouchpointMade
from schemas.money import format_minor
from schemas.program import Program
from tests.loyalty.bond_comparison import BondPair
from tests.loyalty.bond_worlds import BondShard, bond_events, bond_programs, steps_of_bonds
from tests.loyalty.comparison import save_and_load
from tests.loyalty.worlds import DAY, START, UNIT, Event, small_pages

LATEST = START + 161 * UNIT


def logs(entries: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Short ones, which shrink well, and long ones: left to itself Hypothesis makes lists of five."""
    return st.one_of(st.lists(entries, max_size=12), st.lists(entries, min_size=20, max_size=50))


@pytest.mark.parametrize("pages", [(2, 0), (64, 16)])
@given(bond_programs(), logs(steps_of_bonds()), st.booleans())
@settings(max_examples=150, deadline=None)
def test_fold_and_batch_decide_the_same_of_a_bond_after_every_step(
    pages: tuple[int, int], program: Program, steps: list[Any], in_order: bool
) -> None:
    """Late and doubled events, refunds, echoes of triggers, sweeps, reservations and reloads anywhere."""
    if in_order:
        steps = sorted(steps, key=time_of_step)
    with small_pages(*pages):
        pair = BondPair(program)
        for step in steps:
            note(f"{step}")
            pair.take(step)
        pair.compare_due()
        pair.take(("view", 70))
        pair.take(("sweep", LATEST + 1_500 * DAY))


@given(
    bond_programs(),
    logs(bond_events(fresh_ids=True)),
    st.randoms(use_true_random=False),
    st.integers(0, 70),
)
@settings(max_examples=120, deadline=None)
def test_the_last_segment_attachment_and_attributions_are_a_function_of_the_set_of_events(
    program: Program, log: list[Event], random: Any, later: int
) -> None:
    """In whatever order they come, with sweeps and reloads in between."""
    program = msgspec.structs.replace(program, publish_from=None)
    log = facts_of(log)
    shuffled = list(log)
    random.shuffle(shuffled)
    at = LATEST + later * UNIT
    ends = []
    for events in (log, shuffled):
        shard, reference = BondShard(program), Batch(program)
        for event in events:
            shard.read(event)
            reference.read(event)
            if random.random() < 0.2:
                save_and_load(shard, event.customer_id)
            if random.random() < 0.1:
                shard.sweep(START + random.randrange(160) * UNIT)
        shard.sweep(at + 1)
        ends.append({customer_id: end(shard, customer_id, at) for customer_id in shard.customers})
        assert ends[-1] == {
            customer_id: end_by_facts(customer, at) for customer_id, customer in reference.customers.items()
        }
    assert ends[0] == ends[1]


def facts_of(log: list[Event]) -> list[Event]:
    """The events without what depends on the order of arrival by its nature: a touchpoint that means all the
    subscriptions that are known, and which of two purchases of one order at one instant was first."""
    parts: set[tuple[str, str, int]] = set()
    found: list[Event] = []
    for number, event in enumerate(log):
        event.event_id = str(number)
        if isinstance(event, TouchpointMade):
            event.trigger_id = None
            if event.action in ("pause", "resume", "cancel"):
                event.subscription_id = event.subscription_id or "s1"
        elif isinstance(event, PurchaseMade):
            part = event.customer_id, event.order_id, event.occurred_at
            if part in parts:
                continue
            parts.add(part)
        found.append(event)
    return found


def end(shard: BondShard, customer_id: str, at: int) -> dict[str, Any]:
    """How a customer stands in the end, by what was told and what is shown."""
    line, told = shard.line(customer_id, at), {}
    for record in shard.records(customer_id):
        if isinstance(record, AttributionEvent):
            told[record.conversion.order_id or (record.conversion.source, record.conversion.event_id)] = (
                record
            )
    return {
        "segment": shard.customers[customer_id].bond.segment,
        "shown": (line["segment"], line["attachment"]),
        "attributions": {
            key: (record.touch.source, record.touch.event_id, record.amount)
            for key, record in told.items()
            if record.touch is not None
        },
    }


def end_by_facts(customer: BatchCustomer, at: int) -> dict[str, Any]:
    """The same from all facts at once."""
    program, bond = customer.program, customer.bond
    segment = bond.segment_at(program, at)
    return {
        "segment": segment,
        "shown": (segment, bond.facts.attachment(program, at)),
        "attributions": {
            (c.event.source, c.event.event_id) if c.order is None else c.order.order_id: (
                c.touch.source,
                c.touch.event_id,
                None if c.order is None else format_minor(c.order.net, program.decimals),
            )
            for c in bond.attributions(program)
            if c.touch is not None
        },
    }


def time_of_step(step: Any) -> int:
    if not isinstance(step, tuple):
        time: int = step.occurred_at
        return time
    return int({"sweep": step[1], "change": step[-2]}.get(step[0], START + 80 * UNIT))
