"""The circuit breaker: counting falls, and who fell among what is held."""

from typing import Any

import msgspec
import pytest

from loyalty.rules import Rules
from loyalty.views import Change, change_body
from streams.breaker import Breaker, Held, fallen
from streams.outbox import NOTHING, Entry, change_entry
from streams.redis_store import falls_of
from streams.topics import DEAD_LETTERS
from tests.loyalty.worlds import command, program, purchase, refund

MINUTE = 60_000
AT = 1_000_000 * MINUTE


def raised(**given: Any) -> Change:
    """A rise from member to silver, with what is given changed."""
    rules = Rules(program())
    customer = rules.new_customer("900")
    [change] = rules.command(customer, command(AT, "pin", "silver", AT + 1), None) or []
    return msgspec.structs.replace(change, **given)


def fell(at: int = AT, **given: Any) -> Change:
    return raised(effective_at=at, previous_tier="silver", tier="member", direction="downgrade", **given)


def retained(**given: Any) -> Change:
    return raised(**{"kind": "retained", "previous_tier": "silver", "direction": None, **given})


def entries(*changes: Change | Entry) -> list[tuple[int, Entry]]:
    made = [
        change if isinstance(change, Entry) else change_entry(change_body(program(), change), None, 3, b"")
        for change in changes
    ]
    return list(enumerate(made, 71))


# -- counting ------------------------------------------------------------------------------------------------------


def test_falls_are_counted_by_the_minute_in_which_they_hold() -> None:
    breaker = Breaker(0.5, {})
    counted = breaker.count([fell(AT), fell(AT + MINUTE - 1), fell(AT + MINUTE)])
    assert counted == "1000000=2 1000001=1"
    assert breaker.count([fell(AT)]) == "1000000=3 1000001=1"


def test_what_moves_nobody_down_is_not_counted() -> None:
    assert Breaker(0.5, {}).count([raised(), retained()]) == ""


def test_what_was_counted_comes_back_from_the_shards_hash() -> None:
    breaker = Breaker(0.5, {1_000_000: 2})
    assert falls_of(breaker.count([fell(AT + MINUTE)])) == {1_000_000: 2, 1_000_001: 1}
    assert falls_of("") == {}


def test_falls_of_more_than_an_hour_before_the_newest_are_forgotten() -> None:
    breaker = Breaker(0.1, {})
    breaker.count([fell(AT), fell(AT + MINUTE)])
    assert breaker.count([fell(AT + 59 * MINUTE)]) == "1000000=1 1000001=1 1000059=1"
    assert breaker.count([fell(AT + 60 * MINUTE)]) == "1000001=1 1000059=1 1000060=1"
    assert breaker.trips(29)
    assert not breaker.trips(30)


def test_a_late_fall_of_an_earlier_hour_is_not_counted() -> None:
    breaker = Breaker(0.1, {})
    breaker.count([fell(AT)])
    assert breaker.count([fell(AT - 60 * MINUTE)]) == "1000000=1"


@pytest.mark.parametrize(("falls", "trips"), [(24, False), (25, False), (26, True)])
def test_only_more_than_the_share_of_the_customers_trips(falls: int, trips: bool) -> None:
    breaker = Breaker(0.25, {})
    breaker.count([fell()] * falls)
    assert breaker.trips(100) is trips


def test_without_a_limit_nothing_ever_trips() -> None:
    breaker = Breaker(0.0, {})
    assert not breaker.is_on
    breaker.count([fell()] * 100)
    assert not breaker.trips(1)
    assert Breaker(0.01, {}).is_on


def test_who_counts_anew_counts_from_nothing() -> None:
    breaker = Breaker(0.25, {1_000_000: 99})
    assert breaker.trips(100)
    assert breaker.forget() == ""
    assert not breaker.trips(100)
    assert breaker.count([fell()]) == "1000000=1"


# -- who fell ------------------------------------------------------------------------------------------------------


def test_of_held_entries_those_of_the_customers_who_fell_are_found() -> None:
    held = entries(fell(tier_seq=4), raised(customer_id="901"), fell(customer_id="902", tier_seq=9))
    assert fallen(held) == {"900": Held("silver", 3, [71]), "902": Held("silver", 8, [73])}


def test_everything_held_of_a_customer_who_fell_belongs_together() -> None:
    held = entries(
        raised(tier_seq=2),
        fell(customer_id="901", tier_seq=7),
        fell(tier_seq=3),
        raised(tier_seq=4),
        raised(customer_id="901", tier_seq=8),
    )
    assert fallen(held) == {"900": Held("member", 1, [71, 73, 74]), "901": Held("silver", 6, [72, 75])}


def test_a_record_of_a_risk_before_the_fall_tells_how_the_customer_stood() -> None:
    held = entries(retained(kind="at-risk", at_risk_until=AT + 1, tier_seq=5), fell(tier_seq=6))
    assert fallen(held) == {"900": Held("silver", 4, [71, 72])}


def test_what_is_no_change_or_was_withdrawn_is_passed_over() -> None:
    letter = Entry(DEAD_LETTERS, None, b"900", b"no JSON", ())
    assert fallen(entries(letter, NOTHING, retained(), letter)) == {}
    assert fallen(entries(letter, NOTHING, fell(tier_seq=2))) == {"900": Held("silver", 1, [73])}


def test_a_fall_by_a_refund_is_a_fall_as_any_other() -> None:
    rules = Rules(program())
    customer = rules.new_customer("900")
    for n in range(5):
        rules.apply(customer, purchase(AT + n, f"o{n}", 50_00), AT)
    changes = rules.apply(customer, refund(AT + 9, "o0", 50_00), AT) or []
    assert [change.direction for change in changes] == ["downgrade"]
    assert fallen(entries(*changes)) == {"900": Held("silver", 1, [71])}
