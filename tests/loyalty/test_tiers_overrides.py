"""Overrides by hand: what holds while they last, and that nothing of them is left. Both computations at once."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from schemas.events import OverrideCommanded
from schemas.program import Tier
from schemas.times import parse_rfc3339
from tests.loyalty.comparison import Pair, standing
from tests.loyalty.test_tiers_long_logs import random_program, random_step
from tests.loyalty.worlds import DAY, START, UNIT, command, program, purchase, refund

SILVER_GOLD = program(
    window=100 * DAY,
    ledger=190 * DAY,
    tiers=(
        Tier("member"),
        Tier("silver", min_monetary=100_00, benefits=("lounge",)),
        Tier("gold", min_monetary=500_00, grace_period=20 * DAY, benefits=("lounge", "parking")),
    ),
)
T0 = 1_491_134_400_000


def told(pair: Pair) -> list[tuple[Any, ...]]:
    """Kind, tier, reason and day of what was published."""
    days = [(body, (parse_rfc3339(body.effective_at) - T0) / DAY) for body in pair.shard.bodies("900")]
    return [(body.kind, body.tier, body.reason, day) for body, day in days]


def taken(*steps: Any) -> Pair:
    pair = Pair(SILVER_GOLD)
    for step in steps:
        pair.take(step)
    return pair


def days(count: float) -> int:
    return T0 + int(count * DAY)


def test_a_pin_makes_a_customer_and_holds_until_its_end() -> None:
    pair = taken(
        command(days(0), "pin", "gold", days(10)), ("sweep", days(10)), ("save", "900"), ("sweep", days(11))
    )
    assert told(pair) == [("changed", "gold", "override", 0), ("changed", "member", "override", 10)]


def test_a_pin_below_what_is_earned_hides_it_and_a_floor_below_does_not() -> None:
    pinned = taken(purchase(days(0), amount=600_00), command(days(1), "pin", "silver", days(5)))
    assert told(pinned)[1:] == [("changed", "silver", "override", 1)]
    floored = taken(purchase(days(0), amount=600_00), command(days(1), "floor", "silver", days(5)))
    assert told(floored)[1:] == []
    assert floored.shard.rules.next_due(floored.shard.customers["900"]) == days(5)


def test_at_the_end_of_a_pin_a_purchase_of_that_instant_gives_the_reason() -> None:
    pair = taken(command(days(0), "pin", "gold", days(5)), purchase(days(5), amount=150_00))
    assert told(pair)[1:] == [("changed", "silver", "purchase", 5)]


def test_a_grace_beneath_an_override_shows_when_that_ends() -> None:
    pair = taken(
        purchase(days(0), amount=600_00),
        command(days(90), "floor", "gold", days(110)),
        ("sweep", days(110)),
        ("save", "900"),
        ("sweep", days(150)),
    )
    assert told(pair)[1:] == [
        ("at-risk", "gold", "override", 110),
        ("changed", "member", "inactivity", 120),
    ]


def test_an_override_over_a_tier_at_risk_retains_it() -> None:
    pair = taken(
        purchase(days(0), amount=600_00),
        ("sweep", days(101)),
        command(days(102), "floor", "gold", days(110)),
        ("sweep", days(130)),
    )
    assert told(pair)[1:] == [
        ("at-risk", "gold", "window_expiry", 100),
        ("retained", "gold", "override", 102),
        ("at-risk", "gold", "override", 110),
        ("changed", "member", "inactivity", 120),
    ]


def test_the_newest_command_holds_of_equals_the_one_read_last() -> None:
    late = taken(
        command(days(4), "pin", "gold", days(9)),
        command(days(3), "clear"),
        command(days(3), "pin", "silver", days(20)),
    )
    assert told(late) == [("changed", "gold", "override", 4)]
    late.take(command(days(4), "pin", "silver", days(8)))
    late.take(command(days(4), "clear"))
    assert told(late)[1:] == [("changed", "silver", "override", 4), ("changed", "member", "override", 4)]


def test_one_that_is_over_by_the_customers_time_ends_the_one_before_and_holds_nothing() -> None:
    pair = taken(
        command(days(0), "pin", "gold", days(50)),
        purchase(days(20), amount=100),
        command(days(10), "pin", "silver", days(20)),
        ("sweep", days(60)),
    )
    assert told(pair)[1:] == [("changed", "member", "override", 20)]


def test_an_override_does_not_come_back_when_the_one_that_replaced_it_ends() -> None:
    pair = taken(
        command(days(0), "pin", "gold", days(50)),
        command(days(1), "pin", "silver", days(5)),
        ("sweep", days(60)),
    )
    assert told(pair)[1:] == [("changed", "silver", "override", 1), ("changed", "member", "override", 5)]


def test_a_command_raises_nobody_and_a_refund_beneath_a_pin_is_not_seen() -> None:
    pair = taken(
        purchase(days(0), "a", 600_00),
        command(days(1), "pin", "gold", days(5)),
        refund(days(2), "a", 550_00),
        ("sweep", days(6)),
    )
    assert told(pair) == [
        ("changed", "gold", "purchase", 0),
        ("changed", "member", "override", 5),
    ]


def test_commands_have_ids_and_a_newest_time_of_their_own() -> None:
    pair = taken(
        command(days(0), "pin", "gold", days(5), event_id="1"), purchase(days(300), amount=1, event_id="1")
    )
    assert pair.shard.commands_newest == days(0)
    assert not pair.shard.read(command(days(1), "pin", "silver", days(9), event_id="1"))
    assert pair.shard.read(command(days(1), "clear", event_id="2"))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_of_an_override_is_left_after_its_end(seed: int) -> None:
    """The same log in time order with and without commands comes to the same standing. Of one instant, the
    commands come last: a command before a purchase evaluates what the purchase would have saved."""
    for world in range(100):
        compare_with_and_without_commands(Random(seed * 1_000 + world))


def compare_with_and_without_commands(random: Random) -> None:
    rules, steps = random_program(random), []
    for number in range(80):
        at = START + number * 2 * UNIT + random.randint(0, 3) * UNIT
        step = random_step(random, at, str(number), str(random.randint(0, 5)), 0.3)
        if not isinstance(step, tuple):
            steps.append(step)
    steps.sort(key=lambda event: (event.occurred_at, isinstance(event, OverrideCommanded)))
    held, free = Pair(rules), Pair(rules)
    for step in steps:
        held.take(step)
        if not isinstance(step, OverrideCommanded):
            free.take(step)
    after = max([0, *(step.until for step in steps if isinstance(step, OverrideCommanded))])
    for pair in (held, free):
        pair.take(("sweep", max(after, steps[-1].occurred_at) + 1))
    for customer_id, customer in free.shard.customers.items():
        if customer.time is not None:
            one, two = standing(held.shard.customers[customer_id]), standing(customer)
            for name in ("tier", "earned", "grace", "at_risk"):
                assert one[name] == two[name]
