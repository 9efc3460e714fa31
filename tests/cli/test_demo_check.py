"""The demo's comparison must see every kind of difference, else `equal` says nothing."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from datetime import date
from typing import Any

import pytest

from cli.demo import picture, story
from cli.demo.check import Published, compare_changes, compare_states
from cli.demo.data import Event
from cli.local_jars import ROOT
from schemas.program import load_program
from streams.protocols import PURCHASES, TOUCHPOINTS


def change(number: int, before: str, after: str, day: str) -> dict[str, Any]:
    return {
        "event_id": f"grocery/1/{number}",
        "customer_id": "1",
        "tier_seq": number,
        "previous_tier": before,
        "tier": after,
        "direction": "upgrade" if after > before else "downgrade",
        "reason": "purchase" if after > before else "inactivity",
        "effective_at": f"{day}T10:00:00.000Z",
        "rfm": {"recency_seconds": 5_184_000, "frequency": 12, "monetary": "1512.40", "currency": "USD"},
        "contacts": {},
    }


# Names whose order is the tiers'.
EXPECTED = {"1": [change(1, "a", "b", "2017-01-30"), change(2, "b", "a", "2017-03-31")]}


def published() -> Published:
    changes = deepcopy(EXPECTED)
    return Published(changes, {"1": changes["1"][-1]}, {"1": ("a", "2")}, Counter(), 0)


def test_the_same_is_equal() -> None:
    verdict = compare_changes(published(), EXPECTED)
    assert verdict.equal
    assert verdict.compared == 2


def test_contacts_of_a_change_are_no_part_of_it() -> None:
    found = published()
    found.changes["1"][0]["contacts"] = {"mail": {"inbound": 0, "outbound": 1}}
    assert compare_changes(found, EXPECTED).equal


def test_nothing_compared_is_not_equal() -> None:
    assert not compare_changes(Published({}, {}, {}, Counter(), 0), {}).equal
    assert not compare_states({}, {}).equal


def lose_one(found: Published) -> None:
    del found.changes["1"][0]


def lose_the_last(found: Published) -> None:
    del found.changes["1"][1]


def say_one_twice(found: Published) -> None:
    found.changes["1"].append(found.changes["1"][-1])


def swap(found: Published) -> None:
    found.changes["1"].reverse()


def another_body(found: Published) -> None:
    found.changes["1"][0]["rfm"]["monetary"] = "1512.41"


def another_customer(found: Published) -> None:
    found.changes["2"] = [change(1, "a", "b", "2017-01-30")]


def table_behind(found: Published) -> None:
    found.newest["1"] = found.changes["1"][0]


def table_without(found: Published) -> None:
    del found.newest["1"]


def hash_differs(found: Published) -> None:
    found.shown["1"] = ("b", "2")


@pytest.mark.parametrize(
    "spoil",
    [
        lose_one,
        lose_the_last,
        say_one_twice,
        swap,
        another_body,
        another_customer,
        table_behind,
        table_without,
        hash_differs,
    ],
)
def test_a_difference_in_the_changes_is_seen(spoil: Callable[[Published], None]) -> None:
    found = published()
    spoil(found)
    assert not compare_changes(found, EXPECTED).equal


def test_a_change_in_a_wrong_partition_is_seen() -> None:
    assert not compare_changes(published()._replace(misplaced=1), EXPECTED).equal


def test_states_are_compared_byte_for_byte() -> None:
    state = {"customer_id": "1", "monetary": "1.00", "contacts": {"mail": {"inbound": 0, "outbound": 1}}}
    assert compare_states({"1": state}, {"1": deepcopy(state)}).equal
    assert not compare_states({"1": state | {"monetary": "1.0"}}, {"1": state}).equal
    assert not compare_states({"1": state | {"contacts": {}}}, {"1": state}).equal
    assert not compare_states({"1": dict(reversed(state.items()))}, {"1": state}).equal
    assert not compare_states({}, {"1": state}).equal
    assert not compare_states({"1": state, "2": state}, {"1": state}).equal


def test_months_without_a_change_are_told_and_a_day_of_january_goes_to_december() -> None:
    changes = [
        change(1, "a", "b", "2017-10-05"),
        change(2, "b", "a", "2017-12-31"),
        change(3, "a", "b", "2018-01-01"),
    ]
    assert picture.by_month(changes, date(2018, 1, 1)) == {
        (2017, 10): {"upgrade": 1},
        (2017, 11): {},
        (2017, 12): {"upgrade": 1, "downgrade": 1},
    }


def test_members_are_counted_from_their_first_purchase_on() -> None:
    joined = {"1": date(2017, 1, 29), "2": date(2017, 1, 31)}
    days, (first, second) = picture.members_by_day(["a", "b"], EXPECTED["1"][:1], joined, date(2017, 1, 31))
    assert days == [date(2017, 1, 29), date(2017, 1, 30), date(2017, 1, 31)]
    assert (first, second) == ([1, 0, 1], [0, 1, 1])


def test_a_story_tells_purchases_contacts_and_changes_in_order() -> None:
    program = load_program(ROOT / "examples" / "grocery.toml")
    day, start = 86_400_000, 1_483_228_800_000  # 1 January 2017
    mail = b'{"channel":"mail","direction":"outbound","campaign_id":"8"}'
    coupon = b'{"channel":"store","direction":"inbound","campaign_id":"8"}'
    year = [
        Event(PURCHASES, b"1", b'{"amount":"1234.50","currency":"USD"}', start),
        Event(PURCHASES, b"1", b'{"amount":"1.00","currency":"USD"}', start + day),
        Event(TOUCHPOINTS, b"1", mail, start + 40 * day),
        Event(TOUCHPOINTS, b"1", coupon, start + 41 * day),
        Event(TOUCHPOINTS, b"1", coupon, start + 41 * day),
        Event(TOUCHPOINTS, b"2", mail, start + 42 * day),
    ]
    state = {"tier": "a", "lifetime_orders": 2, "lifetime_monetary": "1235.50", "contacts": {}}
    told = story.tell(program, "1", EXPECTED["1"], year, state)
    assert [(f"{line.day:%d.%m.}", line.text) for line in told.lines] == [
        ("01.01.", "first purchase, $1,234.50"),
        ("30.01.", "a → b, with a purchase: $1,512.40 in 12 visits within 182 days"),
        ("10.02.", "we sent the mailing of campaign 8"),
        ("11.02.", "came with 2 coupons of campaign 8"),
        ("31.03.", "b → a, no purchase for 60 days"),
    ]
    assert story.choose(EXPECTED, year) == "1"
