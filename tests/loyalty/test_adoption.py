"""A published record carries all of a standing that does not come again from the inputs."""

from __future__ import annotations

from copy import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loyalty import Customer, Rules
from schemas.events import OverrideCommanded, TouchpointMade
from schemas.program import Program
from tests.loyalty.worlds import commands, events, named, programs

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
