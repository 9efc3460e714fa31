"""The program file's tiers: what it takes to stay, grace, falls and benefits, and every mistake in them."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from schemas.example_files import PROGRAM_FILE
from schemas.program import ProgramError, Tier, parse_program
from schemas.times import DAY, HOUR

TEXT = PROGRAM_FILE.read_text()
VERSION = parse_program(TEXT).version
SILVER = Tier("silver", 20_000, 5)
EVERYTHING = """
retain_monetary = "150.00"
retain_frequency = 3
grace_period = "30d"
downgrade = "one_down"
refund_policy = "grace"
benefits = ["free delivery", "early access"]
"""


def with_silver(*lines: str) -> str:
    """The example program with more lines in its second tier."""
    return TEXT.replace('name = "silver"', "\n".join(('name = "silver"', *lines)))


def silver(*lines: str) -> Tier:
    return parse_program(with_silver(*lines)).tiers[1]


def test_a_tier_that_says_nothing_more_has_the_documented_defaults() -> None:
    tier = silver()
    assert tier == SILVER
    assert (tier.retain_monetary, tier.retain_frequency, tier.grace_period) == (None, None, 0)
    assert (tier.downgrade, tier.refund_policy, tier.benefits) == ("requalify", "reverse", ())


def test_every_key_of_a_tier_is_read() -> None:
    assert silver(EVERYTHING) == Tier(
        "silver",
        min_monetary=20_000,
        min_frequency=5,
        retain_monetary=15_000,
        retain_frequency=3,
        grace_period=30 * DAY,
        downgrade="one_down",
        refund_policy="grace",
        benefits=("free delivery", "early access"),
    )


def test_to_stay_takes_what_it_takes_to_enter_unless_less_is_said() -> None:
    assert silver().stays_at == (20_000, 5)
    assert silver('retain_monetary = "0"').stays_at == (0, 5)
    assert silver('retain_monetary = "0.00"', "retain_frequency = 0").stays_at == (0, 0)
    assert silver("retain_frequency = 4").stays_at == (20_000, 4)


@pytest.mark.parametrize("policy", ["reverse", "grace"])
@pytest.mark.parametrize("downgrade", ["requalify", "one_down", "base"])
def test_a_tier_takes_each_way_to_fall_with_each_policy_for_refunds(downgrade: str, policy: str) -> None:
    tier = silver(f'downgrade = "{downgrade}"', f'refund_policy = "{policy}"')
    assert (tier.downgrade, tier.refund_policy) == (downgrade, policy)


def test_the_first_tier_may_have_benefits() -> None:
    text = TEXT.replace('name = "member"', 'name = "member"\nbenefits = ["a birthday coupon"]')
    assert parse_program(text).tiers[0] == Tier("member", benefits=("a birthday coupon",))


def test_benefits_are_as_many_and_as_long_as_documented() -> None:
    many = [f"{number:0256d}" for number in range(32)]
    assert silver(f"benefits = {many}").benefits == tuple(many)
    assert silver("benefits = []").benefits == ()
    assert silver('benefits = ["絆"]').benefits == ("絆",)


def test_the_longest_grace_period_is_a_hundred_years() -> None:
    assert silver('grace_period = "36500d"').grace_period == 36_500 * DAY
    assert silver('grace_period = "36h"').grace_period == 36 * HOUR


def test_a_tier_that_is_kept_for_a_window_has_no_longer_a_window_than_a_grace_period() -> None:
    longer = with_silver('downgrade = "one_down"').replace('"365d"', '"36501d"').replace('"455d"', '"36501d"')
    with pytest.raises(ProgramError, match=r"^tiers\[1\]\.downgrade: one_down is not allowed"):
        parse_program(longer)
    assert parse_program(longer.replace("36501d", "36500d")).tiers[1].downgrade == "one_down"
    assert parse_program(longer.replace("one_down", "base")).window == 36_501 * DAY


@pytest.mark.parametrize(
    "line",
    [
        'retain_monetary = "200"',
        "retain_frequency = 5",
        'grace_period = "0s"',
        'grace_period = "0d"',
        'downgrade = "requalify"',
        'refund_policy = "reverse"',
        "benefits = []",
    ],
)
def test_a_default_spelt_out_changes_neither_the_tier_nor_the_version(line: str) -> None:
    assert silver(line) == SILVER
    program = parse_program(with_silver(line))
    assert program.version == VERSION
    assert msgspec.structs.replace(program, text=TEXT) == parse_program(TEXT)


def test_everything_else_in_a_tier_changes_the_version_each_to_another() -> None:
    lines = [
        *(
            'retain_monetary = "0"',
            'retain_monetary = "199.99"',
            "retain_frequency = 0",
            "retain_frequency = 4",
        ),
        *('grace_period = "1ms"', 'grace_period = "1d"', 'downgrade = "base"', 'downgrade = "one_down"'),
        *('refund_policy = "grace"', 'benefits = ["a"]', 'benefits = ["a", "b"]', 'benefits = ["b", "a"]'),
    ]
    texts = [with_silver(line) for line in lines]
    texts.append(TEXT.replace('name = "gold"', 'name = "gold"\nbenefits = ["a"]'))
    versions = {parse_program(text).version for text in texts}
    assert len(versions | {VERSION}) == len(texts) + 1


def test_another_writing_of_a_tier_has_the_same_version() -> None:
    writings = [
        ('retain_monetary = "50"', 'retain_monetary = "50.00"'),
        ('grace_period = "48h"', 'grace_period = "2d"'),
    ]
    for lines in itertools.product(*writings):
        assert (
            parse_program(with_silver(*lines)).version == parse_program(with_silver(*reversed(lines))).version
        )
        assert silver(*lines) == silver(writings[0][0], writings[1][0])


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("retain_monetary = 100", "retain_monetary"),
        ('retain_monetary = "-1"', "retain_monetary"),
        ('retain_monetary = "1.001"', "retain_monetary"),
        ('retain_monetary = "200.01"', "retain_monetary"),
        ("retain_frequency = 6", "retain_frequency"),
        ("retain_frequency = -1", "retain_frequency"),
        ("retain_frequency = true", "retain_frequency"),
        ("retain_frequency = 1.0", "retain_frequency"),
        ('retain_frequency = "3"', "retain_frequency"),
        ('retain_recency = "30d"', "retain_recency"),
        ("grace_period = 30", "grace_period"),
        ('grace_period = "a month"', "grace_period"),
        ('grace_period = "36501d"', "grace_period"),
        ('downgrade = "two_down"', "downgrade"),
        ('downgrade = ""', "downgrade"),
        ("downgrade = 1", "downgrade"),
        ('refund_policy = "Grace"', "refund_policy"),
        ("refund_policy = false", "refund_policy"),
        ('benefits = "free delivery"', "benefits"),
        ("benefits = {}", "benefits"),
        (f"benefits = {[str(number) for number in range(33)]}", "benefits"),
        ("benefits = [1]", "benefits[0]"),
        ('benefits = ["a", ""]', "benefits[1]"),
        (f'benefits = ["{"x" * 257}"]', "benefits[0]"),
        ('benefits = ["a", "b", "a"]', "benefits[2]"),
        ('benefits = [["a"]]', "benefits[0]"),
    ],
)
def test_a_mistake_in_a_tier_is_one_line_that_begins_with_its_key(line: str, key: str) -> None:
    with pytest.raises(ProgramError) as caught:
        parse_program(with_silver(line))
    message = str(caught.value)
    assert message.startswith(f"tiers[1].{key}: ")
    assert "\n" not in message
    assert "expected" in message or "allowed" in message


@pytest.mark.parametrize(
    ("line", "left_out", "needs"),
    [
        ('retain_monetary = "0"', 'min_monetary = "200.00"', "min_monetary"),
        ("retain_frequency = 0", "min_frequency = 5", "min_frequency"),
    ],
)
def test_what_is_not_asked_to_enter_cannot_be_asked_to_stay(line: str, left_out: str, needs: str) -> None:
    with pytest.raises(
        ProgramError, match=rf"^tiers\[1\]\.{line.split(maxsplit=1)[0]}: not allowed without {needs}"
    ):
        parse_program(with_silver(line).replace(left_out, ""))


@pytest.mark.parametrize("line", EVERYTHING.split("\n")[1:-2])
def test_the_first_tier_has_nothing_to_stay_for(line: str) -> None:
    with pytest.raises(
        ProgramError, match=rf"^tiers\[0\]\.{line.split(maxsplit=1)[0]}: not allowed here: nobody falls"
    ):
        parse_program(TEXT.replace('name = "member"', f'name = "member"\n{line}'))
