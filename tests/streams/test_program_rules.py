"""Which change of a program a state can follow."""

from typing import Any

import pytest

from loyalty.program_change import check_change
from schemas.program import Program, ProgramError, Tier
from tests.loyalty.worlds import DAY, program

NOW = 17_000 * DAY


def before(**given: Any) -> Program:
    return program(**given)


def test_the_same_program_is_no_obstacle() -> None:
    check_change(before(), before(), NOW)


@pytest.mark.parametrize(
    "given",
    [
        {"tiers": (Tier("guest"), Tier("star", min_frequency=2))},
        {"window": 30 * DAY, "ledger": 60 * DAY},
        {"timezone": "Asia/Tokyo"},
        {"contact_days": 453},
        {"publish_from": NOW},
        {"protect_until": NOW + DAY},
        {"max_future": 1, "allowed_lateness": 5},
        {"window": 455 * DAY - 300_000},
    ],
)
def test_everything_that_the_state_holds_enough_for_may_change(given: dict[str, Any]) -> None:
    check_change(before(), program(**given), NOW)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id": "other"}, "program.id: expected 'grocery'"),
        ({"currency": "EUR"}, "program.currency: expected 'USD'"),
        ({"ledger": 455 * DAY + 1}, "program.ledger: expected at most 455d"),
        ({"window": 455 * DAY - 299_999}, "program.window: expected at most 454.997d"),
        ({"contact_days": 454}, "program.contact_window: expected no longer than"),
        ({"publish_from": NOW + 1}, "program.publish_from: expected no later than now"),
    ],
)
def test_what_the_state_cannot_follow_is_named_by_its_key(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ProgramError) as raised:
        check_change(before(), program(**given), NOW)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_window_as_long_as_it_was_is_never_too_long() -> None:
    tight = before(ledger=365 * DAY)
    check_change(tight, program(ledger=365 * DAY, publish_from=0), NOW)
    with pytest.raises(ProgramError, match=r"^program\.window"):
        check_change(tight, program(ledger=365 * DAY, window=365 * DAY + 1), NOW)


def test_touchpoints_that_were_kept_beyond_the_ledger_may_be_counted_on() -> None:
    brief = before(window=5 * DAY, ledger=5 * DAY, contact_days=30)
    check_change(brief, program(window=5 * DAY, ledger=5 * DAY, contact_days=30), NOW)
    with pytest.raises(ProgramError, match=r"^program\.contact_window"):
        check_change(brief, program(window=5 * DAY, ledger=5 * DAY, contact_days=31), NOW)


def test_an_instant_of_publishing_that_is_ahead_may_stay_as_it_was() -> None:
    check_change(before(publish_from=NOW + DAY), program(publish_from=NOW + DAY), NOW)
    check_change(before(publish_from=NOW + DAY), program(publish_from=None), NOW)
    with pytest.raises(ProgramError, match=r"^program\.publish_from"):
        check_change(before(publish_from=NOW + DAY), program(publish_from=NOW + DAY - 1), NOW)


def test_a_change_that_was_begun_may_be_gone_on_with_whatever_the_clock_says() -> None:
    check_change(before(), program(publish_from=NOW + DAY), None)
