"""Why a customer has its tier: the same rules as those that decide, asked another way."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loyalty import Customer, Previous, Rules
from loyalty.why import Coming, why, why_line
from schemas.events import OverrideCommanded, PurchaseMade, RefundMade
from schemas.program import Program, parse_program
from schemas.times import DAY, format_ms, parse_rfc3339
from tests.loyalty.comparison import Pair, latest
from tests.loyalty.test_fold_and_batch import steps
from tests.loyalty.worlds import UNIT, content, programs

BEGIN = parse_rfc3339("2024-01-01T00:00:00Z")

TEXT = """
[program]
id = "shop"
currency = "USD"
window = "100d"

[[tiers]]
name = "member"

[[tiers]]
name = "silver"
min_monetary = "100.00"
min_frequency = 2
retain_monetary = "80.00"
retain_frequency = 1
grace_period = "10d"

[[tiers]]
name = "gold"
min_monetary = "300.00"
min_frequency = 4
max_recency = "30d"

[scores]
recency_days = [7, 30, 90, 180]
frequency = [2, 5, 10, 20]
monetary = ["50", "200", "500", "1500"]
"""
SHOP = parse_program(TEXT)


def bought(day: int, amount: int = 60_00, order_id: str = "") -> PurchaseMade:
    name = order_id or f"o{day}"
    return PurchaseMade("900", f"e{day}", "", name, amount, BEGIN + day * DAY)


def decided(day: int, mode: Any, tier: str, until: int) -> OverrideCommanded:
    at = BEGIN + day * DAY
    return OverrideCommanded("900", f"c{day}", "", at, mode, tier, BEGIN + until * DAY, "anna", "late parcel")


def customer_of(events: Iterable[Any], rules: Rules) -> Customer:
    customer = rules.new_customer("900")
    for event in events:
        if isinstance(event, OverrideCommanded):
            rules.command(customer, event, None)
        else:
            rules.apply(customer, event, None)
    return customer


def line_of(events: Iterable[Any], day: int, program: Program = SHOP) -> dict[str, Any]:
    rules = Rules(program)
    return why_line(why(rules, customer_of(events, rules), BEGIN + day * DAY))


def on(day: int) -> str:
    return format_ms(BEGIN + day * DAY)


def test_a_tier_that_holds_says_what_is_lost_first_and_what_is_missing_above() -> None:
    found = line_of([bought(0), bought(10), bought(20)], 25)
    assert (found["tier"], found["earned"], found["tier_seq"]) == ("silver", "silver", 1)
    assert (found["frequency"], found["monetary"]) == (3, "180.00")
    assert found["orders"][0] == {
        "order_id": "o0",
        "time": on(0),
        "paid": "60.00",
        "refunded": "0.00",
        "net": "60.00",
        "leaves_at": on(100),
    }
    retain, enter = found["thresholds"]["retain"], found["thresholds"]["enter"]
    assert retain["asks"] == [
        {"name": "monetary", "needs": "80.00", "has": "180.00", "holds": True, "until": on(110)},
        {"name": "frequency", "needs": 1, "has": 3, "holds": True, "until": on(120)},
    ]
    assert retain["lost_first"] == {"names": ["monetary"], "at": on(110)}
    assert (enter["tier"], enter["decided_by"]) == ("gold", ["monetary", "frequency"])
    assert enter["asks"][2] == {
        "name": "recency",
        "needs": 30 * 86_400,
        "has": 5 * 86_400,
        "holds": True,
        "until": on(50),
    }
    assert found["missing"] == {
        "tier": "gold",
        "monetary": "120.00",
        "frequency": 1,
        "recency_seconds": None,
    }
    assert found["needed"] is None
    assert found["next"] == [
        {
            "kind": "at-risk",
            "previous_tier": "silver",
            "tier": "silver",
            "at": on(110),
            "reason": "window_expiry",
            "at_risk_until": on(120),
        }
    ]


def test_in_grace_it_says_what_it_takes_to_stay_and_when_the_tier_falls() -> None:
    found = line_of([bought(0), bought(10), bought(20)], 112)
    assert (found["tier"], found["at_risk_until"], found["grace_until"]) == ("silver", on(120), on(120))
    assert found["needed"] == {
        "tier": "silver",
        "monetary": "20.00",
        "frequency": 0,
        "recency_seconds": None,
    }
    assert found["thresholds"]["retain"]["lost_first"] is None
    assert [(one["kind"], one["tier"], one["at"]) for one in found["next"]] == [
        ("changed", "member", on(120))
    ]


def test_what_falls_due_at_the_instant_is_part_of_the_answer() -> None:
    before, at = (line_of([bought(0), bought(10), bought(20)], day) for day in (119, 120))
    assert (before["tier"], at["tier"], at["tier_seq"]) == ("silver", "member", 3)
    assert at["orders"] == []
    assert at["next"] is None
    assert at["thresholds"]["retain"] == {"tier": "member", "asks": [], "lost_first": None}


def test_an_override_and_what_is_earned_beneath_it_are_told_apart() -> None:
    found = line_of([bought(0), decided(5, "pin", "gold", 60)], 30)
    assert (found["tier"], found["earned"]) == ("gold", "member")
    assert found["override"] == {
        "mode": "pin",
        "tier": "gold",
        "since": on(5),
        "until": on(60),
        "actor": "anna",
        "reason": "late parcel",
    }
    assert found["thresholds"]["enter"]["tier"] == "silver"
    assert [(one["tier"], one["at"], one["reason"]) for one in found["next"]] == [
        ("member", on(60), "override")
    ]
    assert line_of([bought(0), decided(5, "pin", "gold", 60)], 60)["override"] is None


def test_instants_at_which_nothing_is_published_are_passed_over() -> None:
    # Beneath the pin silver goes into grace at day 110 and falls at 120: nobody is told of either.
    found = line_of([bought(0), bought(10), bought(20), decided(21, "pin", "gold", 150)], 25)
    assert found["thresholds"]["retain"]["lost_first"]["at"] == on(110)
    assert [(one["previous_tier"], one["tier"], one["at"]) for one in found["next"]] == [
        ("gold", "member", on(150))
    ]


def test_an_order_that_was_forgotten_has_no_id_and_a_refund_shows() -> None:
    rules = Rules(SHOP)
    events = [bought(0), RefundMade("900", "r1", "", "o0", 10_00, BEGIN + DAY)]
    customer = customer_of(events, rules)
    customer.counted[0].order_id = ""
    (order,) = why_line(why(rules, customer, BEGIN + 2 * DAY))["orders"]
    assert order["order_id"] is None
    assert (order["paid"], order["refunded"], order["net"]) == ("60.00", "10.00", "50.00")


def test_what_could_be_entered_waits_for_the_next_purchase() -> None:
    events = [bought(0, 70_00), bought(1, 70_00), bought(2, 70_00), bought(3, 100_00)]
    program = parse_program(TEXT.replace('max_recency = "30d"', 'max_recency = "30d"\ndowngrade = "base"'))
    found = line_of(events, 40, program)
    assert (found["tier"], found["thresholds"]["enter"]["tier"]) == ("member", "silver")
    assert found["thresholds"]["enter"]["decided_by"] == []
    assert found["missing"] == {"tier": "silver", "monetary": "0.00", "frequency": 0, "recency_seconds": None}


def test_at_the_top_nothing_is_missing() -> None:
    found = line_of([bought(day, 100_00) for day in range(4)], 5)
    assert found["tier"] == "gold"
    assert found["thresholds"]["enter"] is None
    assert found["missing"] is None
    assert found["thresholds"]["retain"]["lost_first"] == {"names": ["recency"], "at": on(33)}


def test_a_customer_with_touchpoints_only_has_a_why_too() -> None:
    rules = Rules(SHOP)
    found = why(rules, rules.new_customer("900"), BEGIN)
    assert (found.tier, found.orders, found.next) == ("member", (), ())


def test_a_customer_still_on_the_program_before_is_explained_by_the_one_that_holds_then() -> None:
    after = parse_program(
        TEXT.replace('"300.00"', '"150.00"').replace("min_frequency = 4", "min_frequency = 3")
    )
    customer = customer_of([bought(0), bought(10), bought(20)], Rules(SHOP))
    rules = Rules(after, 1, Previous(SHOP, BEGIN + 30 * DAY, None))
    before, then = (why(rules, customer, BEGIN + day * DAY) for day in (25, 30))
    assert (before.tier, before.version) == ("silver", SHOP.version)
    assert before.next == (Coming("changed", "silver", "gold", BEGIN + 30 * DAY, "program_change", None),)
    assert (then.tier, then.version) == ("gold", after.version)
    assert customer.generation == 0


@pytest.mark.parametrize("day", [0, 12, 20, 60, 112, 118, 120, 300])
def test_it_says_the_same_tier_and_sums_as_the_view_and_leaves_the_customer(day: int) -> None:
    rules = Rules(SHOP)
    events = [bought(0), bought(10), decided(12, "floor", "gold", 40), bought(20)]
    customer = customer_of([event for event in events if event.occurred_at <= BEGIN + day * DAY], rules)
    time, low = customer.time, customer.low
    view, found = rules.view(customer, BEGIN + day * DAY), why(rules, customer, BEGIN + day * DAY)
    assert (found.tier, found.tier_seq) == (view.tier, view.tier_seq)
    assert (found.monetary, len(found.orders)) == (view.monetary, view.frequency)
    assert (customer.time, customer.low) == (time, low)
    _, ladder, shown = rules.advanced(customer, BEGIN + day * DAY)
    if found.retain.lost_first is not None:
        assert found.retain.lost_first[1] == ladder.next_loss(shown)


def test_before_what_time_brought_it_answers_as_of_then() -> None:
    rules = Rules(SHOP)
    customer = customer_of([bought(0), bought(10), bought(20)], rules)
    rules.advance(customer, BEGIN + 200 * DAY)
    assert why(rules, customer, BEGIN + 25 * DAY).tier == "silver"
    with pytest.raises(ValueError, match="after"):
        why(rules, customer_of([bought(0), bought(10)], rules), BEGIN + 5 * DAY)


@given(programs(), steps, st.integers(0, 80))
@settings(max_examples=150, deadline=None)
def test_whatever_happened_it_says_what_the_rules_decide_and_will_decide(
    program: Program, steps: list[Any], units: int
) -> None:
    pair = Pair(program)
    for step in steps:
        pair.take(step)
    rules, at = pair.shard.rules, latest(pair.shard) + units * UNIT
    rules = Rules(rules.program, rules.generation, rules.previous)
    for customer_id, customer in pair.shard.customers.items():
        before = content(pair.shard, customer_id)
        found, view = why(rules, customer, at), rules.view(customer, at)
        assert content(pair.shard, customer_id) == before
        assert (found.tier, found.tier_seq) == (view.tier, view.tier_seq)
        assert (found.monetary, len(found.orders)) == (view.monetary, view.frequency)
        _, ladder, shown = rules.advanced(customer, at)
        assert ladder.holds(shown, at) == (not found.retain.failing)
        if not found.retain.failing:
            lost = found.retain.lost_first
            assert (None if lost is None else lost[1]) == ladder.next_loss(shown)
        if found.enter is not None and found.missing is not None:
            lacks = (found.missing.monetary, found.missing.frequency, found.missing.recency)
            assert (lacks == (0, 0, None)) == (not found.enter.failing)
        changes = rules.advance(shown, at + 100_000 * DAY)
        assert found.next == tuple(
            Coming(c.kind, c.previous_tier, c.tier, c.effective_at, c.reason, c.at_risk_until)
            for c in changes
            if c.effective_at == changes[0].effective_at
        )
