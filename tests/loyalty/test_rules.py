"""The contract's rules, one by one, on a customer or two."""

from __future__ import annotations

import msgspec
import pytest

from loyalty import Change, Customer, Rules
from schemas.events import PurchaseMade, RefundMade
from schemas.program import Tier
from schemas.tier_change import ContactCounts, ProgramRef, Rfm, TierEvent
from schemas.times import format_ms
from tests.loyalty.worlds import DAY, program, purchase, refund, touch

T0 = 1_491_134_006_000  # 2017-04-02T11:53:26Z
BY_FREQUENCY = (
    Tier("member"),
    Tier("silver", min_frequency=1),
    Tier("gold", min_frequency=2),
    Tier("top", 0, 3),
)
BY_AMOUNT = (Tier("member"), Tier("silver", min_monetary=100_00))
BY_RECENCY = (Tier("member"), Tier("active", max_recency=30 * DAY))


def read(
    fold: Rules, *log: PurchaseMade | RefundMade, customer: Customer | None = None
) -> tuple[Customer, list[Change]]:
    """A customer of these events, and the changes they brought."""
    customer = customer or fold.new_customer("900")
    newest, changes = None, []
    for event in log:
        more = fold.apply(customer, event, newest)
        assert more is not None
        changes += more
        newest = max(newest or 0, event.occurred_at)
    return customer, changes


def told(changes: list[Change]) -> list[tuple[str, str, str, int]]:
    return [(c.previous_tier, c.tier, c.reason, c.effective_at) for c in changes]


def test_up_over_several_tiers_is_one_change() -> None:
    tiers = (Tier("member"), Tier("silver", min_monetary=1), Tier("gold", min_monetary=2))
    _, changes = read(Rules(program(tiers=tiers)), purchase(T0, amount=5))
    assert told(changes) == [("member", "gold", "purchase", T0)]


def test_an_order_leaves_the_window_exactly_a_window_after_it() -> None:
    fold = Rules(program(tiers=BY_FREQUENCY))
    customer, _ = read(fold, purchase(T0))
    assert fold.next_due(customer) == T0 + 365 * DAY
    assert fold.advance(customer, T0 + 365 * DAY) == []
    assert customer.time == T0
    assert told(fold.advance(customer, T0 + 365 * DAY + 1)) == [
        ("silver", "member", "window_expiry", T0 + 365 * DAY)
    ]
    assert customer.time == T0 + 365 * DAY
    assert fold.next_due(customer) is None


def test_max_recency_holds_while_recency_is_below_it() -> None:
    fold = Rules(program(tiers=BY_RECENCY))
    customer, _ = read(fold, purchase(T0))
    assert fold.view(customer, T0 + 30 * DAY - 1).tier == "active"
    assert fold.view(customer, T0 + 30 * DAY).tier == "member"
    assert told(fold.advance(customer, T0 + 99 * DAY)) == [("active", "member", "inactivity", T0 + 30 * DAY)]


def test_a_fall_by_recency_as_an_order_leaves_is_window_expiry() -> None:
    fold = Rules(program(tiers=BY_RECENCY))
    customer, _ = read(fold, purchase(T0, "old"), purchase(T0 + 335 * DAY, "new"))
    (fall,) = fold.advance(customer, T0 + 999 * DAY)
    assert (fall.reason, fall.effective_at) == ("window_expiry", T0 + 365 * DAY)
    assert (fall.cause_source, fall.cause_event_id) == (None, None)


def test_what_falls_due_before_an_event_comes_first_each_at_its_instant() -> None:
    fold = Rules(program(tiers=BY_FREQUENCY))
    _, changes = read(
        fold,
        purchase(T0, "a"),
        purchase(T0 + DAY, "b"),
        purchase(T0 + 2 * DAY, "c"),
        purchase(T0 + 999 * DAY, "d"),
    )
    assert told(changes)[3:] == [
        ("top", "gold", "window_expiry", T0 + 365 * DAY),
        ("gold", "silver", "window_expiry", T0 + 366 * DAY),
        ("silver", "member", "window_expiry", T0 + 367 * DAY),
        ("member", "silver", "purchase", T0 + 999 * DAY),
    ]


def test_orders_leaving_at_one_instant_are_one_evaluation() -> None:
    fold = Rules(program(tiers=BY_FREQUENCY))
    customer, _ = read(fold, purchase(T0, "a"), purchase(T0, "b"), purchase(T0, "c"))
    assert told(fold.advance(customer, T0 + 999 * DAY)) == [
        ("top", "member", "window_expiry", T0 + 365 * DAY)
    ]


def test_what_falls_at_the_instant_of_an_event_is_part_of_its_evaluation() -> None:
    fold = Rules(program(tiers=BY_FREQUENCY))
    _, changes = read(fold, purchase(T0, "a"), purchase(T0 + 365 * DAY, "b"))
    assert told(changes) == [("member", "silver", "purchase", T0)]
    _, changes = read(fold, purchase(T0, "a"), purchase(T0, "b"), purchase(T0 + 365 * DAY, "c"))
    assert told(changes)[-1] == ("gold", "silver", "purchase", T0 + 365 * DAY)


def test_a_late_part_that_moves_its_order_out_of_the_window_is_a_fall_by_purchase() -> None:
    fold = Rules(program(tiers=BY_FREQUENCY))
    _, changes = read(fold, purchase(T0, "a"), purchase(T0 - 365 * DAY, "a"))
    assert told(changes)[-1] == ("silver", "member", "purchase", T0)


def test_a_refund_lowers_its_order_and_the_tier() -> None:
    fold = Rules(program(tiers=BY_AMOUNT))
    customer, changes = read(fold, purchase(T0, amount=100_00), refund(T0 + DAY, amount=1))
    assert told(changes)[-1] == ("silver", "member", "refund", T0 + DAY)
    assert (customer.frequency, customer.monetary, customer.last_purchase_at) == (1, 99_99, T0)


@pytest.mark.parametrize("early", [True, False])
def test_an_order_refunded_in_full_counts_for_nothing(early: bool) -> None:
    log = [purchase(T0, amount=10_00), refund(T0 + DAY, amount=12_00)]
    customer, _ = read(Rules(program()), *(reversed(log) if early else log))
    assert (customer.frequency, customer.monetary, customer.last_purchase_at) == (0, 0, None)
    assert (customer.lifetime_orders, customer.lifetime_monetary) == (0, 0)


def test_a_purchase_of_nothing_counts_until_something_is_refunded() -> None:
    fold = Rules(program())
    customer, _ = read(fold, purchase(T0, amount=0))
    assert (customer.frequency, customer.lifetime_orders) == (1, 1)
    read(fold, refund(T0, amount=1), customer=customer)
    assert (customer.frequency, customer.lifetime_orders) == (0, 0)


def test_a_refund_of_nothing_takes_nothing() -> None:
    """A refund may convert to no minor unit at all."""
    customer, _ = read(Rules(program()), purchase(T0, amount=0), refund(T0, amount=0))
    assert customer.frequency == 1


def test_parts_of_an_order_are_one_order_at_its_earliest_time() -> None:
    customer, _ = read(
        Rules(program()), purchase(T0, amount=5), purchase(T0 - DAY, amount=6), purchase(T0 + DAY, amount=7)
    )
    assert (customer.frequency, customer.monetary, customer.last_purchase_at) == (1, 18, T0 - DAY)
    assert customer.time == T0 + DAY


def test_waiting_refunds_are_judged_one_by_one_when_the_purchase_comes() -> None:
    fold = Rules(program(ledger=400 * DAY))
    customer, _ = read(
        fold,
        refund(T0, amount=3),
        refund(T0 + 10 * DAY, amount=4),
        purchase(T0 + 401 * DAY, amount=100),
    )
    assert customer.monetary == 96


def test_a_forgotten_order_goes_on_counting_and_its_id_is_free() -> None:
    fold = Rules(program(window=300 * DAY, ledger=100 * DAY))
    customer, _ = read(fold, purchase(T0, amount=50), refund(T0 + 101 * DAY, amount=20))
    assert (customer.frequency, customer.monetary) == (1, 50)
    read(fold, purchase(T0 + 101 * DAY, amount=9), customer=customer)
    assert (customer.frequency, customer.monetary) == (1, 50)  # the waiting refund took the second order
    assert customer.lifetime_monetary == 50
    read(fold, purchase(T0 + 102 * DAY, amount=20), customer=customer)
    assert (customer.frequency, customer.monetary) == (2, 59)


def test_the_order_horizon_includes_the_event_itself() -> None:
    fold = Rules(program(ledger=400 * DAY))
    customer = fold.new_customer("900")
    fold.apply(customer, purchase(T0), None)
    fold.apply(customer, purchase(T0 + 400 * DAY + 1), T0)
    assert customer.lifetime_orders == 2
    customer = fold.new_customer("900")
    fold.apply(customer, purchase(T0), None)
    fold.apply(customer, purchase(T0 + 400 * DAY), T0)
    assert customer.lifetime_orders == 1


def test_a_duplicate_is_none_and_changes_nothing_until_its_id_is_forgotten() -> None:
    fold = Rules(program(ledger=400 * DAY))
    customer, _ = read(fold, purchase(T0, event_id="e"))
    again = purchase(T0 + 401 * DAY, "other", 7, event_id="e")
    assert fold.apply(customer, again, T0 + 400 * DAY) is None
    assert (customer.time, customer.lifetime_orders) == (T0, 1)
    assert fold.apply(customer, again.but(source="pos"), T0 + 400 * DAY) == []
    assert fold.apply(customer, again, T0 + 400 * DAY + 1) == []
    assert fold.apply(customer, again, T0 + 400 * DAY + 1) is None


def test_the_two_topics_have_ids_of_their_own() -> None:
    fold = Rules(program())
    customer, _ = read(fold, purchase(T0, event_id="e"))
    assert fold.touch(customer, touch(T0, event_id="e"), None) == []
    assert fold.touch(customer, touch(T0 + 1, event_id="e"), T0) is None


def test_changes_before_publish_from_move_the_tier_in_silence() -> None:
    fold = Rules(program(tiers=BY_FREQUENCY, publish_from=T0 + DAY))
    customer, changes = read(fold, purchase(T0, "a"))
    assert (changes, customer.tier, customer.tier_seq) == ([], 1, 0)
    _, changes = read(fold, purchase(T0 + DAY, "b"), customer=customer)
    assert [(c.previous_tier, c.tier, c.tier_seq) for c in changes] == [("silver", "gold", 1)]


def test_a_sweep_moves_the_time_by_silent_changes_too() -> None:
    fold = Rules(program(tiers=BY_RECENCY, publish_from=T0 + 99 * DAY))
    customer, _ = read(fold, purchase(T0))
    assert fold.advance(customer, T0 + 60 * DAY) == []
    assert (customer.time, customer.tier) == (T0 + 30 * DAY, 0)


def test_touchpoints_move_no_time_and_wait_in_the_first_tier() -> None:
    fold = Rules(program())
    customer = fold.new_customer("901")
    assert fold.touch(customer, touch(T0), None) == []
    assert customer.time is None
    assert fold.advance(customer, T0 + 999 * DAY) == []
    assert dict(zip(*fold.readable(customer), strict=True)) == {
        "tier": "member",
        "tier_seq": "0",
        "as_of": "",
        "frequency": "0",
        "monetary": "0.00",
        "last_purchase_at": "",
        "lifetime_orders": "0",
        "lifetime_monetary": "0.00",
    }
    assert fold.dump_line(fold.view(customer, T0)) == {
        "customer_id": "901",
        "as_of": "2017-04-02T11:53:26.000Z",
        "tier": "member",
        "tier_seq": 0,
        "frequency": 0,
        "monetary": "0.00",
        "last_purchase_at": None,
        "r": 0,
        "f": 0,
        "m": 0,
        "lifetime_orders": 0,
        "lifetime_monetary": "0.00",
        "contacts": {"email": {"inbound": 1, "outbound": 0}},
    }


def test_a_first_refund_starts_the_time() -> None:
    customer, changes = read(Rules(program()), refund(T0))
    assert (customer.time, changes, customer.frequency) == (T0, [], 0)


def test_the_wire_body_of_a_change() -> None:
    fold = Rules(program(tiers=BY_AMOUNT))
    customer = fold.new_customer("900")
    fold.touch(customer, touch(T0 - DAY, direction="outbound"), None)
    fold.touch(customer, touch(T0 + 1), T0)
    (change,) = fold.apply(customer, purchase(T0, amount=512_40, event_id="b3", source="pos"), None) or []
    body = fold.change_body(change)
    assert (body.event_id, body.tier_seq, body.direction) == ("grocery/900/1", 1, "upgrade")
    assert (body.cause_source, body.cause_event_id) == ("pos", "b3")
    assert body.effective_at == "2017-04-02T11:53:26.000Z"
    assert body.program == ProgramRef("grocery", "a1b2")
    assert body.rfm == Rfm(0, 1, "512.40", "USD", 5, 1, 4)
    assert body.contacts == {"email": ContactCounts(0, 1)}
    (fall,) = fold.advance(customer, T0 + 999 * DAY)
    body = fold.change_body(fall)
    assert (body.direction, body.cause_source, body.cause_event_id) == ("downgrade", None, None)
    assert body.rfm == Rfm(None, 0, "0.00", "USD", 0, 0, 0)


def test_recency_seconds_are_cut() -> None:
    fold = Rules(program(tiers=BY_RECENCY))
    customer, _ = read(fold, purchase(T0))
    (fall,) = fold.advance(customer, T0 + 99 * DAY)
    assert fold.change_body(msgspec.structs.replace(fall, recency=1999)).rfm.recency_seconds == 1


@pytest.mark.parametrize(
    ("days", "ms", "r"), [(0, 0, 5), (7, 0, 5), (7, 1, 4), (30, 0, 4), (90, 0, 3), (180, 0, 2), (180, 1, 1)]
)
def test_recency_scores_on_exact_milliseconds(days: int, ms: int, r: int) -> None:
    fold = Rules(program())
    customer, _ = read(fold, purchase(T0))
    assert fold.view(customer, T0 + days * DAY + ms).r == r


@pytest.mark.parametrize(("count", "f"), [(1, 1), (2, 2), (4, 2), (5, 3), (10, 4), (19, 4), (20, 5)])
def test_frequency_scores_at_its_cut_points(count: int, f: int) -> None:
    fold = Rules(program())
    customer, _ = read(fold, *(purchase(T0 + n, str(n), 0) for n in range(count)))
    assert fold.view(customer, T0 + DAY).f == f


@pytest.mark.parametrize(
    ("amount", "m"), [(0, 1), (49_99, 1), (50_00, 2), (200_00, 3), (1499_99, 4), (1500_00, 5)]
)
def test_monetary_scores_at_its_cut_points(amount: int, m: int) -> None:
    fold = Rules(program())
    customer, _ = read(fold, purchase(T0, amount=amount))
    assert fold.view(customer, T0).m == m


def test_a_view_between_a_purchase_and_a_sweep_shows_the_tier_of_then() -> None:
    fold = Rules(program(tiers=BY_RECENCY))
    customer, _ = read(fold, purchase(T0))
    fold.advance(customer, T0 + 99 * DAY)
    view = fold.view(customer, T0 + DAY)
    assert (view.tier, view.tier_seq, view.as_of) == ("active", 1, T0 + DAY)
    assert (customer.tier_seq, customer.time) == (2, T0 + 30 * DAY)
    with pytest.raises(ValueError, match="bought after"):
        fold.view(customer, T0 - 1)


def published(fold: Rules, tier: str, tier_seq: int, at: int) -> TierEvent:
    """A record as it would have been published."""
    _, changes = read(Rules(program(tiers=(Tier("member"), Tier("some", min_frequency=1)))), purchase(T0))
    return msgspec.structs.replace(
        fold.change_body(changes[0]), tier=tier, tier_seq=tier_seq, effective_at=format_ms(at)
    )


def test_an_adopted_change_is_where_the_customer_goes_on() -> None:
    fold = Rules(program(tiers=BY_RECENCY))
    customer, _ = read(fold, purchase(T0))
    fold.adopt(customer, published(fold, "member", 4, T0 + 30 * DAY), None)
    assert (customer.tier, customer.tier_seq, customer.time) == (0, 4, T0 + 30 * DAY)
    assert fold.next_due(customer) is None
    (up,) = fold.apply(customer, purchase(T0 + 31 * DAY, "b"), T0) or []
    assert up.tier_seq == 5
    fold.adopt(customer, published(fold, "active", 6, T0), None)
    assert customer.time == T0 + 31 * DAY
    with pytest.raises(ValueError, match="platinum"):
        fold.adopt(customer, published(fold, "platinum", 7, T0), None)


def test_an_adopted_tier_that_does_not_hold_falls_at_the_time_it_has() -> None:
    for tiers in (BY_RECENCY, BY_FREQUENCY, BY_AMOUNT):
        fold = Rules(program(tiers=tiers))
        customer = fold.new_customer("900")
        fold.adopt(customer, published(fold, tiers[1].name, 3, T0), None)
        assert fold.next_due(customer) == T0
        (fall,) = fold.advance(customer, T0 + 1)
        assert (fall.tier, fall.tier_seq, fall.effective_at) == ("member", 4, T0)


def test_contacts_are_sorted_by_channel_with_both_directions() -> None:
    fold = Rules(program())
    customer = fold.new_customer("900")
    for event in (touch(T0, "web"), touch(T0, "app", "outbound"), touch(T0, "app")):
        assert fold.touch(customer, event, None) == []
    contacts = fold.view(customer, T0).contacts
    assert list(contacts.items()) == [("app", ContactCounts(1, 1)), ("web", ContactCounts(1, 0))]
