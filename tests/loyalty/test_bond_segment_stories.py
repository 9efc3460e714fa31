"""Attachment and segments by small stories, worked out by hand: every test at its exact millisecond."""

from __future__ import annotations

import pytest

from schemas.bond_records import SegmentEvent
from schemas.program_bonds import (
    Attachment,
    Bonds,
    Points,
    Segment,
    Subscriptions,
    default_segments,
)
from tests.loyalty.bond_comparison import BondPair
from tests.loyalty.bond_stories import (
    REST,
    T0,
    attachment,
    bonded,
    pair,
    segments,
    sweep,
)
from tests.loyalty.worlds import DAY, program, purchase, refund, touch

# -- attachment ----------------------------------------------------------------------------------------------------


def test_points_go_by_the_first_row_that_fits_and_outbound_touches_have_none() -> None:
    rows = (Points(5, "web", "review"), Points(2, "web"), Points(1, action="visit"))
    both = pair(
        touch(T0, "web", action="review"),  # 5
        touch(T0 + 1, "web", action="visit"),  # 2: the second row comes before the third
        touch(T0 + 2, "store", action="visit"),  # 1
        touch(T0 + 3, "store", action="view"),  # none
        touch(T0 + 4, "web", "outbound", action="review"),  # not the customer's
        attachment=Attachment(window=10 * DAY, points=rows),
    )
    assert attachment(both, T0 + DAY) == 8


def test_breadth_counts_channels_with_points_or_without() -> None:
    both = pair(
        touch(T0, "web"), touch(T0 + 1, "web"), touch(T0, "store"), touch(T0, "app", "outbound"),
        attachment=Attachment(window=10 * DAY, breadth=3),
    )  # fmt: skip
    assert attachment(both, T0 + DAY) == 6


def test_a_touch_fades_at_the_very_end_of_the_window() -> None:
    both = pair(touch(T0, "web"), attachment=Attachment(window=10 * DAY, points=(Points(4),)))
    assert [attachment(both, T0 + 10 * DAY + ms) for ms in (-1, 0)] == [4, 0]


def test_tenure_grows_with_each_full_year_up_to_its_most_also_where_the_first_order_was_refunded() -> None:
    both = pair(
        purchase(T0), refund(T0 + 1),
        attachment=Attachment(window=10 * DAY, tenure=2, tenure_years=2),
    )  # fmt: skip
    days = (0, 365, 730, 1095)
    assert [attachment(both, T0 + day * DAY + (day > 0) * -1 + 1) for day in days] == [0, 2, 4, 4]
    assert [attachment(both, T0 + day * DAY - 1) for day in days[1:]] == [0, 2, 4]


def test_a_renewal_is_a_later_order_of_the_subscription_that_is_not_refunded() -> None:
    both = pair(
        purchase(T0, "a", subscription_id="s"),
        purchase(T0 + DAY, "b", subscription_id="s"),
        purchase(T0 + 2 * DAY, "c", subscription_id="s"),
        purchase(T0 + 2 * DAY, "d", subscription_id="other"),
        refund(T0 + 3 * DAY, "c"),
        attachment=Attachment(window=10 * DAY, renewal=7),
    )
    assert attachment(both, T0 + 3 * DAY) == 7
    assert [attachment(both, T0 + 11 * DAY + ms) for ms in (-1, 0)] == [7, 0]


# -- segments, each test at its exact millisecond ----------------------------------------------------------------------


def test_a_renewal_that_leaves_with_its_order_takes_nobody_out_whom_touches_hold() -> None:
    sections = Bonds(
        segments=(Segment("fan", min_attachment=4), REST),
        attachment=Attachment(window=10 * DAY, breadth=2, renewal=3),
    )
    both = BondPair(program(window=3 * DAY, bonds=sections))
    for step in (
        purchase(T0, "a", subscription_id="s"), touch(T0, "web"), touch(T0, "email"),
        purchase(T0 + 1, "b", subscription_id="s"), sweep(30),
    ):  # fmt: skip
        both.take(step)
    assert segments(both) == [
        (None, "rest", "purchase", 0),
        ("rest", "fan", "touchpoint", 0),
        ("fan", "rest", "time", 10 * DAY),
    ]


def test_silence_makes_dormant_at_its_instant_and_an_order_wakes() -> None:
    both = pair(
        purchase(T0, "a"), sweep(100), purchase(T0 + 40 * DAY, "b"),
        segments=(Segment("dormant", min_silence=30 * DAY), REST),
    )  # fmt: skip
    assert segments(both) == [
        (None, "rest", "purchase", 0),
        ("rest", "dormant", "time", 30 * DAY),
        ("dormant", "rest", "purchase", 40 * DAY),
    ]


def test_silence_asks_for_a_lifetime_order_but_not_for_one_in_the_window() -> None:
    both = pair(touch(T0), sweep(800), segments=(Segment("dormant", min_silence=30 * DAY), REST))
    assert segments(both) == [(None, "rest", "touchpoint", 0)]
    both = pair(purchase(T0), sweep(800), segments=(Segment("dormant", min_silence=30 * DAY), REST))
    assert [segment for _, segment, _, _ in segments(both)] == ["rest", "dormant"]


@pytest.mark.parametrize(
    ("days", "usual"),
    [
        ((0, 10), 10),
        ((0, 10, 14), 4),  # of 4 and 10 the lower
        ((0, 10, 14, 24), 10),  # of 4, 10, 10
        ((0, 50, 51, 52, 53, 60, 67), 1),  # the newest six orders have the gaps 1, 1, 1, 7, 7
        ((0, 7, 14, 21, 22, 23, 24), 1),  # 7, 7, 1, 1, 1
    ],
)
def test_lapsing_is_a_silence_longer_than_three_times_the_usual_gap(
    days: tuple[int, ...], usual: int
) -> None:
    both = pair(
        *(purchase(T0 + day * DAY, f"o{day}") for day in days),
        sweep(300),
        segments=(Segment("lapsing", min_gaps=3_000), REST),
    )
    assert segments(both)[-1] == ("rest", "lapsing", "time", (days[-1] + 3 * usual) * DAY + 1)


def test_value_falls_when_an_order_leaves_the_window() -> None:
    # Two orders of 50.00 and 10.00: f is 2 from two orders on, m is 2 from 50.00 on.
    both = pair(
        purchase(T0, "a", 50_00), purchase(T0 + DAY, "b", 10_00), sweep(800),
        segments=(Segment("high", min_value=4), Segment("some", min_value=2), REST),
    )  # fmt: skip
    assert segments(both) == [
        (None, "some", "purchase", 0),
        ("some", "high", "purchase", DAY),
        ("high", "some", "time", 365 * DAY),
        ("some", "rest", "time", 366 * DAY),
    ]
    told = [record.value for record in both.shard.records("900") if isinstance(record, SegmentEvent)]
    assert told == [3, 4, 2, 0]


def test_attachment_rises_with_a_touchpoint_and_fades_by_time() -> None:
    both = pair(
        touch(T0, "web"), touch(T0 + DAY, "web"), sweep(100),
        segments=(Segment("fan", min_attachment=4), REST),
        attachment=Attachment(window=10 * DAY, points=(Points(2),)),
    )  # fmt: skip
    assert segments(both) == [
        (None, "rest", "touchpoint", 0),
        ("rest", "fan", "touchpoint", DAY),
        ("fan", "rest", "time", 10 * DAY),
    ]


def test_the_default_segments_tell_good_from_loyal() -> None:
    own = bonded(segments=default_segments(365 * DAY), attachment=Attachment(points=(Points(5, "store"),)))
    both = BondPair(own)
    both.take(purchase(T0, "o0", 300_00))
    assert segments(both)[-1][1] == "first_time"  # m is 3, f is 1
    for number in range(1, 11):
        both.take(purchase(T0 + number * DAY, f"o{number}", 50_00))
    # From ten orders of 750.00 together on, f and m are 4 each.
    assert segments(both)[-1] == ("regular", "spender", "purchase", 9 * DAY)
    for number in range(2):
        both.take(touch(T0 + (12 + number) * DAY, "store"))
    assert segments(both)[-1] == ("spender", "loyal", "touchpoint", 13 * DAY)


def test_counts_of_orders_leave_out_those_refunded_in_full() -> None:
    both = pair(
        purchase(T0, "a"), purchase(T0 + 1, "b"), refund(T0 + 2, "b"), refund(T0 + 3, "a", 4_00),
        refund(T0 + 4, "a", 6_00),
        segments=(Segment("first_time", min_orders=1, max_orders=1), Segment("back", min_orders=2), REST),
    )  # fmt: skip
    assert [(segment, at) for _, segment, _, at in segments(both)] == [
        ("first_time", 0),
        ("back", 1),
        ("first_time", 2),
        ("rest", 4),
    ]


def test_a_subscription_lapses_is_paused_resumed_and_cancelled() -> None:
    states = ("lapsed", "paused", "cancelled", "active")
    both = pair(
        purchase(T0, subscription_id="s"),
        sweep(50),
        touch(T0 + 50 * DAY, "web", action="pause", subscription_id="s"),
        touch(T0 + 51 * DAY, "web", action="resume"),  # all that are known
        sweep(100),
        touch(T0 + 99 * DAY, "web", action="pause", subscription_id="s"),
        touch(T0 + 99 * DAY, "call", action="cancel", subscription_id="s"),  # wins over pause
        purchase(T0 + 101 * DAY, "b", subscription_id="s"),
        segments=(*(Segment(state, subscription=state) for state in states), REST),  # type: ignore[arg-type]
        subscriptions=Subscriptions(period=30 * DAY, grace=7 * DAY),
    )
    assert [(segment, at / DAY) for _, segment, _, at in segments(both)] == [
        ("active", 0),
        ("lapsed", 37),
        ("paused", 50),
        ("active", 51),
        ("lapsed", 88),
        ("paused", 99),
        ("cancelled", 99),
        ("active", 101),
    ]


def test_a_late_touchpoint_is_decided_at_bond_time() -> None:
    both = pair(
        purchase(T0 + 5 * DAY), touch(T0, "web"),
        segments=(Segment("fan", min_attachment=1), REST),
        attachment=Attachment(window=9 * DAY, points=(Points(1),)),
    )  # fmt: skip
    both.take(sweep(20))
    assert segments(both)[1:] == [
        ("rest", "fan", "touchpoint", 5 * DAY),
        ("fan", "rest", "time", 9 * DAY),
    ]


# -- what is kept --------------------------------------------------------------------------------------------------


def test_of_more_than_32_subscriptions_the_first_to_arrive_are_kept_apart() -> None:
    both = pair(
        *(purchase(T0 + number, f"a{number}", subscription_id=f"s{number}") for number in range(33)),
        *(purchase(T0 + DAY + number, f"b{number}", subscription_id=f"s{number}") for number in (31, 32)),
        attachment=Attachment(window=10 * DAY, renewal=1),
    )
    assert attachment(both, T0 + 2 * DAY) == 1
    both = pair(
        *(purchase(T0 + number, f"a{number}", subscription_id=f"s{number}") for number in range(32)),
        touch(T0 + DAY, "web", action="cancel", subscription_id="s32"),
        segments=(Segment("cancelled", subscription="cancelled"), REST),
    )
    assert segments(both) == [(None, "rest", "purchase", 0)]


def test_channels_beyond_32_are_one_for_attachment() -> None:
    both = pair(
        *(touch(T0 + number, f"c{number}") for number in range(34)),
        attachment=Attachment(window=10 * DAY, breadth=1, points=(Points(100, "other"), Points(10, "c33"))),
    )
    assert attachment(both, T0 + DAY) == 33 + 200


def test_what_comes_too_late_counts_nowhere_and_a_forgotten_id_counts_again() -> None:
    ledger = bonded().ledger
    both = pair(
        touch(T0, "web", event_id="e"),
        touch(T0 + ledger + 1, "web", event_id="newest"),
        touch(T0, "email", event_id="late"),
        touch(T0 + 1, "web", event_id="e"),
        attachment=Attachment(window=ledger + 1, points=(Points(100, "email"), Points(1))),
    )
    assert both.reference.too_late == 1
    assert attachment(both, T0 + ledger + 1) == 2  # the first has just left the attachment's window
