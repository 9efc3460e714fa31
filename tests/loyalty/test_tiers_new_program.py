"""A change of program, from each customer's point of view. Both computations at once."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from schemas.program import Program, Tier
from schemas.times import parse_rfc3339
from tests.loyalty.comparison import Pair
from tests.loyalty.worlds import DAY, command, program, purchase, touch

T0 = 1_491_134_400_000
OLD = program(
    window=100 * DAY,
    ledger=190 * DAY,
    tiers=(
        Tier("member"),
        Tier("silver", min_monetary=100_00, benefits=("lounge",)),
        Tier("gold", min_monetary=500_00, benefits=("lounge", "parking")),
    ),
)


def days(count: float) -> int:
    return T0 + int(count * DAY)


def changed(*tiers: Tier, protect_until: float | None = None, at: float = 50, **given: Any) -> Any:
    """The step that changes the program on a day."""
    until = None if protect_until is None else days(protect_until)
    return "change", replace(OLD, tiers=tiers or OLD.tiers, protect_until=until, **given), days(at), False


def taken(*steps: Any, rules: Program = OLD) -> Pair:
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


HARDER = (OLD.tiers[0], OLD.tiers[1], replace(OLD.tiers[2], min_monetary=900_00))


def test_who_no_longer_reaches_the_tier_falls_at_the_instant() -> None:
    pair = taken(purchase(days(0), amount=500_00), changed(*HARDER))
    assert told(pair)[1] == ("changed", "silver", "program_change", 50)
    assert [body.program.version for body in pair.shard.bodies("900")] == ["a1b2", "v1", "v1"]


def test_who_reaches_a_tier_rises_at_the_instant() -> None:
    easier = (OLD.tiers[0], OLD.tiers[1], replace(OLD.tiers[2], min_monetary=200_00))
    pair = taken(purchase(days(0), amount=300_00), changed(*easier))
    assert told(pair)[1] == ("changed", "gold", "program_change", 50)


def test_what_comes_before_the_instant_goes_by_the_program_before() -> None:
    pair = taken(
        purchase(days(0), "a", 300_00),
        changed(*HARDER),
        touch(days(60)),
        purchase(days(49), "b", 200_00),
        purchase(days(50), "c", 0),
    )
    assert told(pair)[1:3] == [
        ("changed", "gold", "purchase", 49),
        ("changed", "silver", "program_change", 50),
    ]


def test_a_customer_beyond_the_instant_is_moved_at_its_own_time() -> None:
    pair = taken(purchase(days(60), "a", 500_00), changed(*HARDER), purchase(days(40), "b", 0))
    assert told(pair)[1] == ("changed", "silver", "program_change", 60)


def test_who_is_born_after_the_change_knows_only_the_new_program() -> None:
    pair = taken(changed(*HARDER), purchase(days(10), amount=500_00))
    assert told(pair)[0] == ("changed", "silver", "purchase", 10)


def test_a_protection_holds_the_tier_until_its_end() -> None:
    pair = taken(purchase(days(0), amount=500_00), changed(*HARDER, protect_until=80))
    assert told(pair)[1:] == [
        ("changed", "silver", "program_change", 80),
        ("changed", "member", "window_expiry", 100),
    ]


def test_the_end_of_a_protection_raises_nobody() -> None:
    """Its reason is that of a program change, and all the same it is time that brings it."""
    tiers = (
        Tier("member"),
        Tier("silver", min_monetary=100_00),
        Tier("gold", min_monetary=900_00),
    )
    falls = (
        Tier("member"),
        replace(tiers[1], max_recency=90 * DAY),
        Tier("gold", 900_00, 0, 60 * DAY, downgrade="base"),
    )
    old = replace(OLD, tiers=tiers)
    pair = taken(
        purchase(days(0), amount=1_000_00),
        ("change", replace(old, tiers=falls, protect_until=days(70)), days(50), False),
        rules=old,
    )
    assert told(pair)[1:] == [("changed", "member", "program_change", 70)]


def test_a_second_protection_extends_the_first() -> None:
    hardest = tuple(replace(tier, min_monetary=10 * tier.min_monetary) for tier in HARDER)
    pair = taken(
        purchase(days(0), amount=500_00),
        changed(*HARDER, protect_until=80),
        changed(*hardest, protect_until=70, at=60),
    )
    assert told(pair)[1:] == [("changed", "member", "program_change", 80)]


def test_tiers_are_carried_over_by_name() -> None:
    turned = (Tier("member"), Tier("bronze", min_monetary=10_00), *OLD.tiers[1:])
    pair = taken(purchase(days(0), amount=500_00), changed(*turned))
    assert told(pair)[1:] == [("changed", "member", "window_expiry", 100)]
    renamed = (OLD.tiers[0], OLD.tiers[1], Tier("platinum", min_monetary=500_00))
    pair = taken(purchase(days(0), amount=500_00), changed(*renamed))
    assert told(pair)[1] == ("changed", "platinum", "program_change", 50)


def test_an_override_whose_tier_is_gone_ends_and_one_that_is_there_stays() -> None:
    gone = (OLD.tiers[0], OLD.tiers[2])
    steps = (command(days(0), "pin", "silver", days(80)), changed(*gone))
    assert told(taken(*steps))[1:] == [("changed", "member", "program_change", 50)]
    steps = (command(days(0), "pin", "gold", days(80)), changed(*gone))
    assert told(taken(*steps))[1:] == [("changed", "member", "override", 80)]


def test_other_benefits_are_told_to_who_has_had_a_record() -> None:
    other = (replace(OLD.tiers[0], benefits=("card",)), replace(OLD.tiers[1], benefits=()), OLD.tiers[2])
    pair = taken(purchase(days(0), amount=100_00), changed(*other))
    assert told(pair)[1] == ("retained", "silver", "program_change", 50)
    assert pair.shard.bodies("900")[1].benefits == ()
    assert told(taken(purchase(days(0), amount=1_00), changed(*other))) == []
    assert told(taken(purchase(days(0), amount=500_00), changed(*other)))[1][2] == "window_expiry"


def test_a_longer_window_finds_the_orders_that_had_left_the_shorter() -> None:
    longer = OLD.tiers[0], OLD.tiers[1], OLD.tiers[2]
    pair = taken(
        purchase(days(0), "a", 300_00),
        purchase(days(110), "b", 200_00),
        ("save", "900"),
        changed(*longer, at=111, window=180 * DAY),
    )
    assert told(pair)[-3:-1] == [
        ("changed", "gold", "program_change", 111),
        ("changed", "silver", "window_expiry", 180),
    ]


def test_a_grace_that_is_running_keeps_its_end() -> None:
    kept = (OLD.tiers[0], replace(OLD.tiers[1], grace_period=30 * DAY))
    shorter = (OLD.tiers[0], replace(OLD.tiers[1], grace_period=5 * DAY))
    old = replace(OLD, tiers=kept)
    pair = taken(
        purchase(days(0), amount=100_00),
        ("sweep", days(101)),
        ("change", replace(old, tiers=shorter), days(110), False),
        rules=old,
    )
    assert told(pair)[1:] == [
        ("at-risk", "silver", "window_expiry", 100),
        ("changed", "member", "inactivity", 130),
    ]


def test_a_view_after_a_sweep_and_a_reload_still_finds_what_it_needs() -> None:
    """Orders that have left the window since are needed for as long as an instant before can be asked for."""
    tiers = (Tier("member"), Tier("silver", min_monetary=100_00, grace_period=100 * DAY))
    pair = Pair(replace(OLD, tiers=tiers, ledger=100 * DAY))
    pair.take(purchase(days(0), "a", 50_00))
    pair.take(purchase(days(1), "b", 60_00))
    pair.take(purchase(days(150), "c", 1_00, customer_id="another"))
    before = pair.shard.line("900", days(195))
    assert (before["tier"], before["tier_seq"]) == ("silver", 2)
    for step in (("sweep", days(102)), ("save", "900"), ("sweep", days(900)), ("save", "900")):
        pair.take(step)
        assert pair.shard.line("900", days(195)) == before


def test_a_view_after_a_sweep_and_a_reload_still_finds_an_override_that_is_over() -> None:
    pair = Pair(replace(OLD, ledger=100 * DAY))
    pair.take(command(days(0), "pin", "gold", days(120)))
    pair.take(purchase(days(50), amount=100_00))
    pair.take(command(days(110), "clear", customer_id="another"))
    before = {day: pair.shard.line("900", days(day)) for day in (110, 130, 160)}
    assert [line["tier"] for line in before.values()] == ["gold", "silver", "member"]
    for step in (("sweep", days(160)), ("save", "900")):
        pair.take(step)
        assert {day: pair.shard.line("900", days(day)) for day in (110, 130, 160)} == before
