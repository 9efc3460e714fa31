"""A published record carries all of a standing that does not come again from the inputs."""

from __future__ import annotations

from copy import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loyalty import Customer, Rules
from loyalty.bond import BondChange
from schemas.bond_records import AttributionEvent, SegmentEvent, TriggerEvent
from schemas.events import OverrideCommanded, TouchpointMade
from schemas.program import Program
from tests.loyalty.bond_stories import O2O, T0, WELCOME, bonded
from tests.loyalty.worlds import DAY, commands, events, named, programs, purchase, touch

NAMES = ("time", "tier", "tier_seq", "earned", "grace", "at_risk", "protection")


@given(programs(), st.lists(st.one_of(events(fresh_ids=True), commands(fresh_ids=True)), max_size=40))
@settings(max_examples=300, deadline=None)
def test_who_adopts_a_record_stands_as_the_one_who_published_it(program: Program, log: list[Any]) -> None:
    rules = Rules(program)
    customers: dict[str, Customer] = {}
    for number, event in enumerate(named(event, program) for event in log):
        if isinstance(event, TouchpointMade):
            continue
        event.event_id = str(number)
        customer = customers.setdefault(event.customer_id, rules.new_customer(event.customer_id))
        if isinstance(event, OverrideCommanded):
            made = rules.command(customer, event, None)
        else:
            made = rules.apply(customer, event, None)
        # What only fell due before the event was followed by an evaluation that told nothing.
        if not made or made[-1].cause_event_id != event.event_id:
            continue
        lost = copy(customer)
        lost.tier, lost.tier_seq, lost.earned, lost.grace, lost.at_risk, lost.protection = (
            0,
            0,
            0,
            None,
            None,
            None,
        )
        rules.adopt(lost, rules.change_body(made[-1]), made[-1].beneath)
        assert {n: getattr(lost, n) for n in NAMES} == {n: getattr(customer, n) for n in NAMES}


def test_who_was_held_is_told_of_the_segment_then_of_attributions_then_of_scenarios() -> None:
    rules = Rules(bonded(attribution=O2O, scenarios=(WELCOME,)))
    customer = rules.new_customer("900")
    customer.bond_held = True
    assert rules.touch(customer, touch(T0, "email"), None) == []
    assert rules.apply(customer, purchase(T0 + DAY, channel="store"), None) == []
    made = [change for change in rules.adopt_bond(customer, []) if isinstance(change, BondChange)]
    assert [type(change.body) for change in made] == [SegmentEvent, AttributionEvent, TriggerEvent]
    assert [change.mark.seq for change in made] == [1, 2, 3]
