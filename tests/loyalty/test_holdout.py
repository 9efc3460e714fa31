"""The draw of who is held out: by its formula, evenly, and anew with each version of the salt."""

from __future__ import annotations

from math import sqrt

import pytest

from loyalty.holdout import Draw
from schemas.bond_records import HoldoutDraw
from schemas.program_bonds import Holdout, Scenario, Step

IDS = [f"household-{number}" for number in range(100_000)]


def scenario(name: str, holdout: int) -> Scenario:
    return Scenario(name, "first_order", (Step("email", "hello"),), holdout=holdout)


def expect(count: int, share: float) -> None:
    """Within four standard deviations of so many draws out of a hundred thousand."""
    spread = sqrt(len(IDS) * share * (1 - share))
    assert abs(count - len(IDS) * share) < 4 * spread


@pytest.mark.parametrize(
    ("version", "name", "digest"),
    [
        # printf 'pepper:1::900' | b2sum -l 64
        (1, "", "f44fb1ae0ff3b6aa"),
        (2, "", "88edc643c03193b6"),
        (1, "welcome", "e8d2e050b8363bb4"),
    ],
)
def test_the_draw_is_the_formulas(version: int, name: str, digest: str) -> None:
    # The share in millionths under which the customer is just not drawn, and is just drawn.
    number = int(digest, 16)
    last = number * 1_000_000 // 2**64
    for share, drawn in ((last, False), (last + 1, True)):
        if name:
            draw = Draw(Holdout(0, "pepper", version), [scenario(name, share)])
            assert draw.scenario(name, "900") is drawn
        else:
            assert Draw(Holdout(share, "pepper", version)).overall("900") is drawn


@pytest.mark.parametrize("share", [1, 1_000, 50_000, 100_000, 500_000, 999_000])
def test_as_many_are_held_out_as_the_share_says(share: int) -> None:
    draw = Draw(Holdout(share, "pepper"))
    expect(sum(map(draw.overall, IDS)), share / 1_000_000)


@pytest.mark.parametrize(("share", "held_out"), [(0, False), (1_000_000, True)])
def test_nobody_and_everybody_are_shares_too(share: int, held_out: bool) -> None:
    draw = Draw(Holdout(share, "pepper"), [scenario("welcome", share)])
    assert {draw.overall(i) for i in IDS[:2_000]} == {held_out}
    assert {draw.scenario("welcome", i) for i in IDS[:2_000]} == {held_out}


def test_a_larger_share_keeps_out_whom_the_smaller_one_did() -> None:
    small, large = (Draw(Holdout(share, "pepper")) for share in (50_000, 80_000))
    assert {i for i in IDS if small.overall(i)} < {i for i in IDS if large.overall(i)}


def test_each_tenth_of_the_held_out_ids_is_drawn_as_often() -> None:
    draw = Draw(Holdout(100_000, "pepper"))
    tenths = [sum(map(draw.overall, IDS[start::10])) for start in range(10)]
    chi_square = sum((count - sum(tenths) / 10) ** 2 / (sum(tenths) / 10) for count in tenths)
    assert chi_square < 27.9  # nine degrees of freedom, one in a thousand


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Draw(Holdout(100_000, "pepper", 1)), Draw(Holdout(100_000, "pepper", 2))),
        (Draw(Holdout(100_000, "pepper")), Draw(Holdout(100_000, "salt"))),
    ],
)
def test_a_new_version_or_salt_draws_anew(one: Draw, other: Draw) -> None:
    both = sum(one.overall(i) and other.overall(i) for i in IDS)
    expect(both, 0.1 * 0.1)


def test_scenarios_are_drawn_apart_from_each_other_and_from_all() -> None:
    draw = Draw(Holdout(200_000, "pepper"), [scenario("welcome", 200_000), scenario("renewal", 200_000)])
    expect(sum(draw.overall(i) and draw.scenario("welcome", i) for i in IDS), 0.04)
    expect(sum(draw.scenario("renewal", i) and draw.scenario("welcome", i) for i in IDS), 0.04)


def test_a_trigger_bears_both_draws_and_their_salt() -> None:
    draw = Draw(Holdout(300_000, "pepper", 3), [scenario("welcome", 300_000)])
    stamps = {draw.stamp("welcome", i) for i in IDS[:200]}
    assert stamps == {HoldoutDraw(a, b, "pepper", 3) for a in (False, True) for b in (False, True)}
    for i in IDS[:200]:
        assert draw.stamp("welcome", i) == HoldoutDraw(
            draw.overall(i), draw.scenario("welcome", i), "pepper", 3
        )


def test_without_a_holdout_nobody_is_held_out_and_nothing_is_stamped() -> None:
    draw = Draw(None, [scenario("welcome", 0)])
    assert not any(draw.overall(i) or draw.scenario("welcome", i) for i in IDS[:100])
    assert draw.stamp("welcome", "900") is None


def test_an_unknown_scenario_is_an_error() -> None:
    with pytest.raises(KeyError):
        Draw(Holdout(0, "pepper")).scenario("welcome", "900")
