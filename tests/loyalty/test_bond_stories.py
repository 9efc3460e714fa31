"""The stories of bonds in docs/program.md, each replayed by the fold."""

from __future__ import annotations

import pytest

from loyalty import Customer, Rules
from loyalty.bond import BondChange
from loyalty.views import Decision
from schemas.bond_records import AttributionEvent, BondEvent, SegmentEvent, TriggerEvent
from schemas.events import TouchpointMade
from schemas.times import DAY, parse_rfc3339
from tests.schemas.bond_stories import CUSTOMER, Arrival, BondStory, bond_stories


@pytest.mark.parametrize("story", bond_stories(), ids=lambda story: story.name)
def test_what_the_page_says_of_bonds_is_what_happens(story: BondStory) -> None:
    rules = Rules(story.program)
    customer = rules.new_customer(CUSTOMER)
    seen = 0
    for number, row in enumerate(story.rows):
        before = told(rules.advance(customer, row.at)) if number else []
        assert [(text(event), event.effective_at) for event in before] == []
        now = [] if row.arrival is None else told(take(rules, customer, row.arrival))
        now += told(rules.advance(customer, row.at + 1))
        assert tuple(text(event) for event in now) == row.told
        assert {parse_rfc3339(event.effective_at) for event in now} <= {row.at}
        assert customer.bond.segment == row.segment
        seen += len(now)
    assert seen


def take(rules: Rules, customer: Customer, arrival: Arrival) -> list[Decision]:
    if isinstance(arrival, TouchpointMade):
        made = rules.touch(customer, arrival, None)
    else:
        made = rules.apply(customer, arrival, None)
    assert made is not None
    return made


def told(decisions: list[Decision]) -> list[BondEvent]:
    return [decision.body for decision in decisions if isinstance(decision, BondChange)]


def text(event: BondEvent) -> str:
    """A record as the page has it."""
    if isinstance(event, SegmentEvent):
        return f"segment: {event.previous_segment or 'none'} → {event.segment} ({event.reason})"
    if isinstance(event, TriggerEvent):
        why = f" ({event.reason})" if event.reason else ""
        return f"trigger: {event.scenario} {event.step}, {event.status}{why}"
    return attribution(event)


def attribution(event: AttributionEvent) -> str:
    what = event.conversion
    named = "visit" if what.order_id is None else f"order {what.order_id}"
    where = f" in store {what.store_id}" if what.store_id else ""
    if event.touch is None:
        return f"withdrawn: {named}{where}"
    assert event.lag_seconds is not None
    days, rest = divmod(event.lag_seconds * 1000, DAY)
    assert not rest
    amount = "" if event.amount is None else f", {event.amount}"
    return f"attributed: {named}{where} to {event.touch.channel}, {days} d{amount} ({event.match})"
