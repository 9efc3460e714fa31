"""The earned tier, rule by rule: retained, in grace, and each way down. Both computations at once."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.program import Program, Tier
from schemas.tier_change import Needed
from schemas.times import parse_rfc3339
from tests.loyalty.comparison import Pair
from tests.loyalty.worlds import DAY, program, purchase, refund

T0 = 1_491_134_400_000


def days(count: float) -> int:
    return T0 + int(count * DAY)


def ladder(**gold: Any) -> Program:
    silver = Tier("silver", min_monetary=100_00, retain_monetary=50_00, grace_period=10 * DAY)
    return program(
        window=100 * DAY,
        ledger=190 * DAY,
        tiers=(Tier("member"), silver, Tier("gold", **{"min_monetary": 500_00, **gold})),
    )


def taken(rules: Program, *steps: Any) -> Pair:
    pair = Pair(rules)
    for step in (*steps, ("sweep", days(900))):
        pair.take(step)
    return pair


def told(pair: Pair) -> list[tuple[Any, ...]]:
    """Kind, tier, reason and day of what was published."""
    return [
        (body.kind, body.tier, body.reason, (parse_rfc3339(body.effective_at) - T0) / DAY)
        for body in pair.shard.bodies("900")
    ]


def test_it_is_easier_to_stay_than_to_enter() -> None:
    pair = taken(
        ladder(retain_monetary=100_00),
        purchase(days(0), "a", 450_00),
        purchase(days(10), "b", 100_00),
    )
    assert told(pair) == [
        ("changed", "silver", "purchase", 0),
        ("changed", "gold", "purchase", 10),
        ("changed", "member", "window_expiry", 110),
    ]


def test_a_purchase_within_the_grace_retains_at_the_lower_threshold() -> None:
    pair = taken(
        ladder(retain_monetary=100_00, grace_period=20 * DAY),
        purchase(days(0), "a", 500_00),
        purchase(days(119), "b", 100_00),
    )
    assert told(pair) == [
        ("changed", "gold", "purchase", 0),
        ("at-risk", "gold", "window_expiry", 100),
        ("retained", "gold", "purchase", 119),
        ("at-risk", "gold", "window_expiry", 219),
        ("changed", "member", "inactivity", 239),
    ]


def test_what_is_needed_is_what_staying_lacks() -> None:
    rules = ladder(
        retain_monetary=100_00,
        min_frequency=2,
        retain_frequency=1,
        max_recency=30 * DAY,
        grace_period=90 * DAY,
    )
    pair = taken(rules, purchase(days(0), "a", 250_00), purchase(days(5), "b", 250_00))
    bodies = pair.shard.bodies("900")
    assert told(pair)[1:3] == [("changed", "gold", "purchase", 5), ("at-risk", "gold", "inactivity", 35)]
    assert bodies[2].needed == Needed("0.00", 0, 30 * 86_400)


def test_a_purchase_at_the_very_end_of_the_grace_is_in_time() -> None:
    rules = ladder(retain_monetary=100_00, grace_period=20 * DAY)
    pair = taken(rules, purchase(days(0), "a", 500_00), purchase(days(120), "b", 100_00))
    assert told(pair)[2] == ("retained", "gold", "purchase", 120)
    late = taken(rules, purchase(days(0), "a", 500_00), purchase(days(120) + 1, "b", 100_00))
    assert told(late)[2:4] == [
        ("changed", "member", "inactivity", 120),
        ("changed", "silver", "purchase", 120 + 1 / DAY),
    ]


@pytest.mark.parametrize(
    ("downgrade", "falls"),
    [
        ("requalify", [("changed", "silver", 10), ("at-risk", "silver", 101), ("changed", "member", 111)]),
        ("base", [("changed", "member", 10)]),
        ("one_down", [("changed", "silver", 10), ("at-risk", "silver", 101), ("changed", "member", 111)]),
    ],
)
def test_each_way_down_by_a_refund(downgrade: str, falls: list[Any]) -> None:
    pair = taken(
        ladder(downgrade=downgrade),
        purchase(days(0), "a", 400_00),
        purchase(days(1), "b", 120_00),
        refund(days(10), "a", 400_00),
    )
    assert [(kind, tier, day) for kind, tier, _, day in told(pair)[2:]] == falls


def test_one_down_keeps_the_tier_below_for_its_grace_or_for_a_window() -> None:
    pair = taken(ladder(downgrade="one_down"), purchase(days(0), "a", 500_00))
    assert told(pair)[1:] == [
        ("changed", "silver", "window_expiry", 100),
        ("at-risk", "silver", "window_expiry", 100),
        ("changed", "member", "inactivity", 110),
    ]
    tiers = (
        Tier("member"),
        Tier("silver", min_monetary=100_00),
        Tier("gold", min_monetary=500_00, downgrade="one_down"),
    )
    rules = program(window=100 * DAY, ledger=190 * DAY, tiers=tiers)
    pair = taken(rules, purchase(days(0), "a", 500_00))
    assert told(pair)[1:] == [
        ("changed", "silver", "window_expiry", 100),
        ("at-risk", "silver", "window_expiry", 100),
        ("changed", "member", "inactivity", 200),
    ]


def test_after_base_only_the_next_purchase_raises_again() -> None:
    pair = taken(
        ladder(downgrade="base"),
        purchase(days(0), "a", 400_00),
        purchase(days(1), "b", 120_00),
        refund(days(10), "a", 400_00),
        refund(days(11), "b", 1_00),
        purchase(days(12), "c", 0),
    )
    assert told(pair)[3:4] == [("changed", "silver", "purchase", 12)]


@pytest.mark.parametrize(
    ("policy", "first"),
    [("reverse", ("changed", "silver", "refund", 5)), ("grace", ("at-risk", "gold", "refund", 5))],
)
def test_a_refund_lets_the_tier_fall_at_once_or_starts_the_grace(policy: str, first: Any) -> None:
    pair = taken(
        ladder(grace_period=20 * DAY, refund_policy=policy),
        purchase(days(0), "a", 500_00),
        refund(days(5), "a", 100_00),
    )
    assert told(pair)[1] == first


@pytest.mark.parametrize(
    ("policy", "order_id", "falls_at"),
    [("reverse", "b", 101), ("grace", "b", 120), ("reverse", "a", 120), ("reverse", "?", 120)],
)
def test_within_the_grace_a_refund_of_what_counts_ends_it(policy: str, order_id: str, falls_at: int) -> None:
    """One of an order that has left the window, or of none that is known, lowers nothing."""
    pair = taken(
        ladder(grace_period=20 * DAY, refund_policy=policy),
        purchase(days(0), "a", 400_00),
        purchase(days(60), "b", 100_00),
        refund(days(101), order_id, 50_00),
    )
    assert told(pair)[2] == ("at-risk", "gold", "window_expiry", 100)
    assert told(pair)[3][3] == falls_at


def test_a_late_part_that_moves_an_order_out_of_the_window_starts_the_grace_for_a_purchase() -> None:
    pair = taken(
        ladder(grace_period=20 * DAY),
        purchase(days(50), "a", 500_00),
        purchase(days(120), "b", 10_00),
        purchase(days(10), "a", 1_00),
    )
    assert told(pair)[1:] == [("at-risk", "gold", "purchase", 120), ("changed", "member", "inactivity", 140)]
