"""Contacts, scenarios and attributions by small stories, worked out by hand."""

from __future__ import annotations

import pytest

from loyalty.batch_contact import draw
from schemas.bond_records import HoldoutDraw, TriggerEvent
from schemas.program_bonds import (
    Attachment,
    Bonds,
    Cap,
    ContactPolicy,
    Holdout,
    Points,
    Scenario,
    Segment,
    Step,
)
from schemas.times import format_ms
from tests.loyalty.bond_comparison import BondPair
from tests.loyalty.bond_stories import (
    HOUR,
    O2O,
    REST,
    T0,
    WELCOME,
    WELCOME_ID,
    asked,
    attributions,
    bonded,
    brought,
    pair,
    segments,
    sent,
    sweep,
    triggers,
)
from tests.loyalty.worlds import DAY, program, purchase, refund, touch

# -- contacts ------------------------------------------------------------------------------------------------------


def test_a_rolling_cap_is_free_again_to_the_millisecond() -> None:
    both = pair(
        sent(T0), sent(T0 + DAY), sent(T0 + DAY, "sns"),
        contact_policy=ContactPolicy(caps=(Cap(2, "email", within=7 * DAY),)),
    )  # fmt: skip
    assert asked(both, T0 + 2 * DAY) == ("defer", 7 * DAY)
    assert asked(both, T0 + 7 * DAY - 1) == ("defer", 7 * DAY)
    assert asked(both, T0 + 7 * DAY) == ("allow", None)
    assert asked(both, T0 + 2 * DAY, "sns") == ("allow", None)


def test_a_daily_cap_goes_by_the_days_of_the_customer_s_zone() -> None:
    # T0 is midnight in UTC and nine in the morning in Tokyo, whose next day begins at 15:00 UTC.
    policy = ContactPolicy(caps=(Cap(1, days=1),))
    assert asked(pair(sent(T0), contact_policy=policy), T0 + HOUR) == ("defer", DAY)
    tokyo = touch(T0, "web", timezone="Asia/Tokyo")
    assert asked(pair(sent(T0), tokyo, contact_policy=policy), T0 + HOUR) == ("defer", 15 * HOUR)
    two_days = ContactPolicy(caps=(Cap(1, days=2),))
    assert asked(pair(sent(T0), tokyo, contact_policy=two_days), T0 + HOUR) == ("defer", 39 * HOUR)


def test_quiet_hours_last_over_midnight_and_over_a_change_of_clocks() -> None:
    # In New York (UTC-5) 21:00 is 02:00 UTC and 08:00 is 13:00; from 12 March 2017 on, a week after T0, 12:00.
    policy = ContactPolicy(quiet=(21 * 60, 8 * 60))
    both = pair(touch(T0, "web", timezone="America/New_York"), contact_policy=policy)
    assert asked(both, T0 + 2 * HOUR - 1) == ("allow", None)
    assert asked(both, T0 + 2 * HOUR) == ("defer", 13 * HOUR)
    assert asked(both, T0 + 13 * HOUR) == ("allow", None)
    assert asked(both, T0 + 7 * DAY + 3 * HOUR) == ("defer", 7 * DAY + 12 * HOUR)
    assert asked(both, T0 + 3 * HOUR, action="receipt") == ("defer", 13 * HOUR)


def test_transactional_messages_are_always_allowed_and_count_nowhere_and_nought_means_never() -> None:
    policy = ContactPolicy(caps=(Cap(0, "mail"), Cap(1, within=DAY)), transactional=("receipt",))
    both = pair(touch(T0, "email", "outbound", action="receipt"), contact_policy=policy)
    assert asked(both, T0) == ("allow", None)
    assert asked(both, T0, "mail") == ("suppress", None)
    assert asked(both, T0, "mail", "receipt") == ("allow", None)


def test_a_trigger_takes_a_place_at_once_and_frees_it_where_nothing_comes_back() -> None:
    policy = ContactPolicy(caps=(Cap(1, within=7 * DAY),), lapse=2 * DAY)
    both = pair(purchase(T0), scenarios=(WELCOME,), contact_policy=policy)
    assert triggers(both) == [("welcome", 1, 1, "sent", 0)]
    assert both.shard.records("900")[-1].event_id == WELCOME_ID
    assert asked(both, T0 + DAY) == ("defer", 2 * DAY)
    assert asked(both, T0 + 2 * DAY) == ("allow", None)


def test_a_trigger_that_comes_back_counts_once_at_the_later_time_also_where_it_comes_twice() -> None:
    policy = ContactPolicy(caps=(Cap(2, within=7 * DAY),), lapse=2 * DAY)
    both = pair(purchase(T0), scenarios=(WELCOME,), contact_policy=policy)
    both.take(sent(T0 + DAY, trigger_id=WELCOME_ID))
    both.take(sent(T0 + DAY + HOUR, trigger_id=WELCOME_ID, event_id="again"))
    assert asked(both, T0 + 3 * DAY) == ("allow", None)
    both.take(sent(T0 + 3 * DAY))
    assert asked(both, T0 + 4 * DAY) == ("defer", 8 * DAY + HOUR)


# -- scenarios -----------------------------------------------------------------------------------------------------


def test_steps_wait_for_the_one_before_and_a_goal_stops_them() -> None:
    steps = (Step("email", "one", 2 * DAY), Step("email", "two", 3 * DAY), Step("email", "three", 3 * DAY))
    scenario = Scenario("first", "first_order", steps)
    both = pair(purchase(T0), sweep(30), scenarios=(scenario,))
    assert triggers(both) == [
        ("first", 1, 1, "sent", 2 * DAY),
        ("first", 1, 2, "sent", 5 * DAY),
        ("first", 1, 3, "sent", 8 * DAY),
    ]
    both = pair(purchase(T0), sweep(6), purchase(T0 + 7 * DAY, "b"), sweep(30), scenarios=(scenario,))
    assert [at for *_, at in triggers(both)] == [2 * DAY, 5 * DAY]


def test_a_condition_that_turns_true_again_begins_a_run_once_it_has_cooled_down() -> None:
    scenario = Scenario("back", "last_order", (Step("email", "c"),), after=10 * DAY, cool_down=25 * DAY)
    both = pair(
        purchase(T0, "a"),
        sweep(11),  # 10
        purchase(T0 + 12 * DAY, "b"),
        sweep(23),  # 22: too early
        purchase(T0 + 25 * DAY, "c"),
        sweep(100),  # 35: exactly 25 days later
        scenarios=(scenario,),
    )
    assert triggers(both) == [("back", 1, 1, "sent", 10 * DAY), ("back", 2, 1, "sent", 35 * DAY)]


@pytest.mark.parametrize(
    ("patience", "outcome"), [(6 * DAY, ("sent", 7 * DAY)), (6 * DAY - 1, ("suppressed", DAY))]
)
def test_a_step_waits_for_a_cap_as_long_as_its_patience(patience: int, outcome: tuple[str, int]) -> None:
    scenario = Scenario("hello", "first_order", (Step("email", "c", DAY),), patience=patience, goal="none")
    both = pair(
        purchase(T0), sent(T0), sweep(30),
        scenarios=(scenario,),
        contact_policy=ContactPolicy(caps=(Cap(1, within=7 * DAY),)),
    )  # fmt: skip
    assert [(status, at) for *_, status, at in triggers(both)] == [outcome]
    reason = next(r.reason for r in both.shard.records("900") if isinstance(r, TriggerEvent))
    assert reason == (None if outcome[0] == "sent" else "cap: all channels, 1 within 7d")


def test_patience_counts_from_a_step_s_own_time_however_often_it_was_put_off() -> None:
    scenario = Scenario("hello", "first_order", (Step("email", "c", DAY),), patience=8 * DAY, goal="none")
    both = pair(
        purchase(T0), sent(T0), sweep(2),  # due on day 1, put off until day 7
        sent(T0 + 5 * DAY), sweep(30),  # which puts it off until day 12
        scenarios=(scenario,),
        contact_policy=ContactPolicy(caps=(Cap(1, within=7 * DAY),)),
    )  # fmt: skip
    assert triggers(both) == [("hello", 1, 1, "suppressed", 7 * DAY)]


def test_a_benefit_that_is_not_used_is_told_and_one_that_is_used_is_not() -> None:
    scenario = Scenario(
        "use", "benefit_unused", (Step("email", "c"),), benefit="card", after=5 * DAY, goal="condition"
    )
    base = program()
    tiers = tuple(
        type(tier)(**{**{f: getattr(tier, f) for f in tier.__struct_fields__}, "benefits": ("card",)})
        for tier in base.tiers
    )
    own = program(tiers=tiers, bonds=Bonds(segments=(REST,), scenarios=(scenario,)))
    for used, expected in ((False, [("use", 1, 1, "sent", 5 * DAY)]), (True, [])):
        both = BondPair(own)
        both.take(purchase(T0))
        if used:
            both.take(touch(T0 + DAY, "store", action="redeem", campaign_id="card"))
        both.take(sweep(20))
        assert triggers(both) == expected


def test_a_customer_who_is_held_out_is_told_as_such_and_takes_no_place() -> None:
    both = pair(
        purchase(T0), scenarios=(WELCOME,), holdout=Holdout(1_000_000, "s"),
        contact_policy=ContactPolicy(caps=(Cap(1, within=DAY),)),
    )  # fmt: skip
    assert triggers(both) == [("welcome", 1, 1, "held_out", 0)]
    assert asked(both, T0) == ("allow", None)


def test_holdout_is_drawn_by_a_salted_hash() -> None:
    # BLAKE2b of 8 bytes: of "salt:1::900" it is 0xc36edfe2d94592f6, of "salt:1:welcome:900" 0xf1c852242b017b8e. As
    # shares of 2**64, in millionths and cut:
    overall, own = 763_410, 944_462
    scenario = Scenario("welcome", "first_order", (Step("email", "c"),), holdout=own + 1)
    assert draw(Holdout(overall + 1, "salt"), scenario, "900") == HoldoutDraw(True, True, "salt", 1)
    scenario = Scenario("welcome", "first_order", (Step("email", "c"),), holdout=own)
    assert draw(Holdout(overall, "salt"), scenario, "900") == HoldoutDraw(False, False, "salt", 1)
    for share in (overall, overall + 1):
        both = pair(purchase(T0), scenarios=(WELCOME,), holdout=Holdout(share, "salt"))
        assert triggers(both)[0][3] == ("sent" if share == overall else "held_out")


# -- attribution ---------------------------------------------------------------------------------------------------


def test_an_order_in_a_store_is_attributed_to_the_last_online_touch_until_it_is_refunded() -> None:
    both = pair(
        touch(T0, "email", event_id="old"),
        touch(T0 + HOUR, "web", event_id="last"),
        touch(T0 + HOUR, "store", event_id="offline"),
        purchase(T0 + DAY, channel="store", amount=30_00),
        refund(T0 + 2 * DAY, amount=10_00),
        touch(T0 + 2 * HOUR, "email", event_id="late"),
        refund(T0 + 3 * DAY, amount=20_00),
        attribution=O2O,
    )
    assert brought(both) == [
        ("attributed", 1, "last", "window", 23 * 3600, "30.00"),
        ("attributed", 2, "last", "window", 23 * 3600, "20.00"),
        ("attributed", 3, "late", "window", 22 * 3600, "20.00"),
        ("withdrawn", 4, None, None, None, "0.00"),
    ]
    assert attributions(both)[0].conversion.order_id == "o1"


def test_the_campaign_of_the_conversion_wins_over_a_later_touch_within_its_own_window() -> None:
    both = pair(
        touch(T0, "email", "outbound", event_id="campaign", campaign_id="c"),
        touch(T0 + 9 * DAY, "web", event_id="later"),
        purchase(T0 + 10 * DAY - 1, "a", channel="store", campaign_id="c"),
        purchase(T0 + 10 * DAY, "b", store_id="7", campaign_id="c"),
        purchase(T0 + 10 * DAY, "web", channel="web", campaign_id="c"),
        attribution=O2O,
    )
    assert [told[2:4] for told in brought(both)] == [("campaign", "campaign"), ("later", "window")]


def test_a_visit_is_attributed_without_an_amount_and_the_window_ends_where_it_began() -> None:
    both = pair(
        touch(T0, "email", event_id="mail"),
        touch(T0 + 2 * DAY - 1, "store", action="visit", event_id="in"),
        touch(T0 + 2 * DAY, "store", action="visit", event_id="out"),
        touch(T0 + DAY, "store", "outbound", action="visit", event_id="ours"),
        attribution=O2O,
    )
    assert brought(both) == [("attributed", 1, "mail", "window", 2 * 86_400 - 1, None)]
    assert attributions(both)[0].conversion.event_id == "in"


# -- what is told, and when ----------------------------------------------------------------------------------------


def test_before_publish_from_decisions_are_noted_in_silence() -> None:
    own = program(
        publish_from=T0 + 20 * DAY,
        bonds=Bonds(
            segments=(Segment("dormant", min_silence=30 * DAY), REST),
            scenarios=(WELCOME,),
            attribution=O2O,
        ),
    )
    both = BondPair(own)
    for step in (touch(T0), purchase(T0 + 1, channel="store"), sweep(25)):
        both.take(step)
    assert both.shard.records("900") == []
    for step in (refund(T0 + 25 * DAY), purchase(T0 + 26 * DAY, "b"), sweep(60)):
        both.take(step)
    assert brought(both) == [("withdrawn", 1, None, None, None, "0.00")]
    assert segments(both) == [("rest", "dormant", "time", 56 * DAY)]
    assert triggers(both) == []


def test_before_publish_from_a_reservation_is_a_question_and_takes_no_place() -> None:
    policy = ContactPolicy(caps=(Cap(1, within=DAY),), lapse=DAY)
    own = program(publish_from=T0 + DAY, bonds=Bonds(segments=(REST,), contact_policy=policy))
    both = BondPair(own)
    both.take(touch(T0))
    customer = both.shard.customers["900"]
    permission, made = both.shard.rules.reserve(customer, "email", None, T0 + DAY - 1)
    assert (permission.decision, made, customer.bond.seq) == ("allow", [], 0)
    assert asked(both, T0 + DAY) == ("allow", None)
    (record,) = both.shard.reserve("900", "email", T0 + DAY)
    assert (record.status, record.event_id) == ("reserved", "grocery:reserved/900/1")
    permission, _ = both.shard.rules.reserve(customer, "email", None, T0 + DAY + 1)
    assert permission.decision == "defer"


def test_what_is_transactional_needs_no_place() -> None:
    policy = ContactPolicy(caps=(Cap(1, within=DAY),), transactional=("receipt",), lapse=DAY)
    both = BondPair(program(bonds=Bonds(segments=(REST,), contact_policy=policy)))
    both.take(touch(T0))
    customer = both.shard.customers["900"]
    permission, made = both.shard.rules.reserve(customer, "email", "receipt", T0)
    assert (permission.decision, made, customer.bond.placed) == ("allow", [], [])
    assert asked(both, T0) == ("allow", None)


def test_a_new_program_finds_conditions_as_they_are() -> None:
    both = pair(purchase(T0, "a"))
    after = bonded(scenarios=(WELCOME, Scenario("back", "last_order", (Step("email", "c"),), after=5 * DAY)))
    both.shard.change_program(after, T0 + DAY)
    both.reference.change_program(after, T0 + DAY)
    both.take(sweep(20))
    assert triggers(both) == [("back", 1, 1, "sent", 5 * DAY)]


def test_a_new_program_s_caps_count_what_was_sent_before_it_whether_the_customer_was_saved_or_not() -> None:
    policy = ContactPolicy(lapse=10 * DAY)  # without a cap nothing asks for the place
    capped = ContactPolicy(caps=(Cap(1, within=30 * DAY),), lapse=10 * DAY)
    for saved in (("save", "900"), ("sweep", T0)):
        both = pair(purchase(T0), saved, scenarios=(WELCOME,), contact_policy=policy)
        both.take(("change", bonded(contact_policy=capped), T0 + DAY, False))
        both.take(("move", "900"))
        assert asked(both, T0 + 2 * DAY) == ("defer", 10 * DAY)


def test_a_run_goes_on_where_a_new_program_gives_its_scenario_another_condition() -> None:
    before = Scenario("a", "segment", (Step("mail", "one", DAY),), segment="rest", goal="none")
    after = Scenario("a", "subscription_cancelled", (Step("mail", "other", DAY),), goal="none")
    both = pair(purchase(T0), scenarios=(before,))
    both.take(("change", bonded(scenarios=(after,)), T0, False))
    both.take(sweep(3))
    assert triggers(both) == [("a", 1, 1, "sent", DAY)]


def test_who_is_not_moved_yet_is_asked_about_by_the_program_that_holds_at_the_instant() -> None:
    both = pair(sent(T0), contact_policy=ContactPolicy(caps=(Cap(1, within=7 * DAY),)))
    both.take(
        ("change", bonded(contact_policy=ContactPolicy(caps=(Cap(1, within=3 * DAY),))), T0 + DAY, False)
    )
    assert asked(both, T0 + DAY - 1) == ("defer", 7 * DAY)
    assert asked(both, T0 + DAY) == ("defer", 3 * DAY)
    both.take(("move", "900"))
    assert asked(both, T0 + DAY) == ("defer", 3 * DAY)


def test_ids_and_sequences_are_those_of_the_customer() -> None:
    both = pair(
        touch(T0 - 1, "email"), purchase(T0, channel="store"),
        segments=(Segment("first_time", min_orders=1), REST), scenarios=(WELCOME,), attribution=O2O,
    )  # fmt: skip
    assert [record.event_id for record in both.shard.records("900")] == [
        "grocery:segment/900/1",
        "grocery:segment/900/2",
        "grocery:attribution/900/1",
        WELCOME_ID,
    ]
    assert {record.effective_at for record in both.shard.records("900")} == {format_ms(T0 - 1), format_ms(T0)}


def test_a_late_touch_tells_of_all_that_it_brought_in_the_order_of_time() -> None:
    both = pair(
        purchase(T0 + 3 * HOUR, "c", channel="store"),
        touch(T0 + 2 * HOUR, "store", action="visit", event_id="visit"),
        purchase(T0 + HOUR, "a", channel="store"),
        touch(T0, "email", event_id="late"),
        attribution=O2O,
    )
    told = [record.conversion.order_id or record.conversion.event_id for record in attributions(both)]
    assert told == ["a", "visit", "c"]


def test_an_instant_at_which_time_changes_nothing_leaves_bond_time_alone() -> None:
    both = pair(
        touch(T0, "web"),
        purchase(T0),
        sweep(20),  # the attachment is gone on day 10, but the segment is that of the orders
        refund(T0 + DAY),
        segments=(Segment("buyer", min_orders=1), Segment("fan", min_attachment=1), REST),
        attachment=Attachment(window=10 * DAY, points=(Points(1),)),
    )
    assert segments(both) == [
        (None, "fan", "touchpoint", 0),
        ("fan", "buyer", "purchase", 0),
        ("buyer", "fan", "refund", DAY),
    ]
