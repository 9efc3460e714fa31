"""Attributions worked by hand."""

from __future__ import annotations

import msgspec
import pytest

from loyalty.attribution import Attributions
from loyalty.customer import PAGE_ENTRIES
from schemas.event_key import event_key
from schemas.events import InputEvent
from schemas.program_bonds import Attribution, Bonds
from schemas.times import format_ms
from tests.loyalty.attribution_worlds import World, attributing, bodies, conversions, only
from tests.loyalty.worlds import DAY, START, UNIT, program, purchase, refund, touch


def test_an_email_and_then_a_purchase_in_a_store() -> None:
    world = World(attributing(Attribution(window=7 * DAY)))
    world.read(touch(START, "email", "outbound", event_id="m1", source="crm", campaign_id="c18"))
    record = only(world.read(purchase(START + 2 * DAY + 1500, "o1", 12_50, channel="store", store_id="s9")))
    assert msgspec.to_builtins(record) == {
        "event_id": "grocery:attribution/900/1",
        "customer_id": "900",
        "attribution_seq": 1,
        "revision": 1,
        "status": "attributed",
        "conversion": {
            "kind": "purchase",
            "order_id": "o1",
            "event_id": None,
            "source": None,
            "occurred_at": "2017-03-07T00:00:01.500Z",
            "channel": "store",
            "store_id": "s9",
            "campaign_id": None,
        },
        "touch": {
            "event_id": "m1",
            "source": "crm",
            "channel": "email",
            "direction": "outbound",
            "action": None,
            "campaign_id": "c18",
            "occurred_at": "2017-03-05T00:00:00.000Z",
        },
        "match": "window",
        "lag_seconds": 172_801,
        "amount": "12.50",
        "currency": "USD",
        "effective_at": "2017-03-07T00:00:01.500Z",
        "program": {"id": "grocery", "version": "a1b2"},
    }


def test_a_window_ends_exactly() -> None:
    world = World()
    world.read(touch(START, "email"))
    assert world.read(purchase(START + 4 * UNIT, "late", channel="store")) == []
    assert only(world.read(purchase(START + 4 * UNIT - 1, "just", channel="store"))).match == "window"
    assert only(world.read(purchase(START, "at once", channel="store"))).lag_seconds == 0
    assert world.read(purchase(START - 1, "before", channel="store")) == []


def test_its_own_campaign_goes_before_a_later_touch_and_reaches_further() -> None:
    world = World()
    world.read(touch(START, "email", "outbound", event_id="of it", campaign_id="c1"))
    world.read(touch(START + 9 * UNIT, "web", event_id="later", campaign_id="c2"))
    of_it = only(world.read(purchase(START + 10 * UNIT, "o1", channel="store", campaign_id="c1")))
    assert (of_it.touch and of_it.touch.event_id, of_it.match) == ("of it", "campaign")
    plain = only(world.read(purchase(START + 10 * UNIT, "o2", channel="store")))
    assert (plain.touch and plain.touch.event_id, plain.match) == ("later", "window")
    beyond = only(world.read(purchase(START + 12 * UNIT, "o3", channel="store", campaign_id="c1")))
    assert (beyond.touch and beyond.touch.event_id, beyond.match) == ("later", "window")


def test_of_two_touches_at_one_instant_the_larger_key_wins_in_either_order() -> None:
    larger, smaller = sorted("ab", key=lambda event_id: event_key("", event_id), reverse=True)
    for order in ((larger, smaller), (smaller, larger)):
        world = World()
        for event_id in order:
            world.read(touch(START, "email", event_id=event_id))
        record = only(world.read(purchase(START + 1, "o1", channel="store")))
        assert record.touch is not None
        assert record.touch.event_id == larger
        assert world.read(touch(START, "email", event_id=smaller)) == []


def test_what_is_bought_online_is_no_conversion_unless_it_names_a_store() -> None:
    world = World()
    world.read(touch(START, "email"))
    assert world.read(purchase(START + 1, "o1", channel="web")) == []
    assert world.read(purchase(START + 1, "o2")) == []
    assert (
        only(world.read(purchase(START + 1, "o4", channel="web", store_id="s1"))).conversion.channel == "web"
    )


def test_a_touch_that_comes_late_takes_over() -> None:
    world = World()
    world.read(touch(START, "email", event_id="early"))
    world.read(purchase(START + 2 * UNIT, "o1", channel="store"))
    assert world.read(touch(START - 1, "email", event_id="earlier")) == []
    record = only(world.read(touch(START + UNIT, "email", event_id="late")))
    assert (record.revision, record.touch and record.touch.event_id) == (2, "late")
    assert record.effective_at == format_ms(START + 2 * UNIT)
    assert world.read(touch(START + 3 * UNIT, "email", event_id="after")) == []


def test_a_late_touch_reaches_orders_that_have_left_the_window() -> None:
    world = World()
    world.read(purchase(START, "old", channel="store"))
    world.read(purchase(START + 100 * UNIT, "new"))
    assert world.customer.frequency == 1
    record = only(world.read(touch(START - UNIT, "email")))
    assert record.conversion.order_id == "old"
    assert record.effective_at == format_ms(START + 100 * UNIT)


def test_a_refund_lowers_the_amount_and_in_full_takes_it_back() -> None:
    world = World()
    world.read(touch(START, "email"))
    world.read(purchase(START + 1, "o1", 50_00, channel="store", store_id="s1"))
    part = only(world.read(refund(START + 2, "o1", 20_00)))
    assert (part.revision, part.status, part.amount, part.lag_seconds) == (2, "attributed", "30.00", 0)
    whole = only(world.read(refund(START + 3, "o1", 30_00)))
    assert (whole.revision, whole.status, whole.amount, whole.lag_seconds) == (3, "withdrawn", "0.00", None)
    assert (whole.touch, whole.match, whole.conversion.store_id) == (None, None, "s1")
    assert world.read(refund(START + 4, "o1", 1_00)) == []
    assert world.read(touch(START + 1, "web")) == []
    more = only(world.read(purchase(START + 5, "o1", 10_00, channel="store")))
    assert (more.revision, more.status, more.amount) == (4, "attributed", "9.00")


def test_an_earlier_part_moves_the_order_to_another_touch_or_out_of_the_store() -> None:
    world = World()
    world.read(touch(START, "email", event_id="first"))
    world.read(touch(START + 6 * UNIT, "email", event_id="second"))
    world.read(purchase(START + 7 * UNIT, "o1", 10_00, channel="store", store_id="s1"))
    moved = only(world.read(purchase(START + UNIT, "o1", 5_00, channel="store", store_id="s2")))
    assert (moved.revision, moved.touch and moved.touch.event_id) == (2, "first")
    assert (moved.amount, moved.conversion.store_id) == ("15.00", "s2")
    gone = only(world.read(purchase(START, "o1", 5_00, channel="web")))
    assert (gone.revision, gone.status, gone.conversion.channel) == (3, "withdrawn", "web")


def test_a_visit_is_told_without_an_amount_and_never_by_itself() -> None:
    world = World()
    assert world.read(touch(START, "app", event_id="v0", action="visit", store_id="s1")) == []
    record = only(world.read(touch(START + 1, "app", event_id="v1", action="try", store_id="s2")))
    assert (record.conversion.kind, record.conversion.event_id, record.amount) == ("visit", "v1", None)
    assert record.touch is not None
    assert (record.touch.event_id, record.touch.action) == ("v0", "visit")
    assert world.read(touch(START + 2, "store", "outbound", action="visit")) == []
    assert world.read(touch(START + 2, "store", event_id="asked", action="ask")) == []
    assert world.read(touch(START + 2, "app", event_id="at home", action="visit")) == []


def test_what_is_told_at_once_is_told_in_order_of_the_conversions() -> None:
    world = World()
    read = [touch(START + 2, "store", event_id="v", action="visit")]
    read += [purchase(START + at, f"o{at}", channel="store", event_id=str(at)) for at in (2, 3, 1)]
    for event in read:
        world.read(event)
    told = world.read(touch(START, "email"))
    at_one_instant = sorted([(event_key("", "v"), None), (event_key("", "2"), "o2")])
    expected = ["o1", *(order_id for _, order_id in at_one_instant), "o3"]
    assert [record.conversion.order_id for record in told] == expected


def test_an_order_whose_name_is_forgotten_is_over() -> None:
    world = World()
    world.read(touch(START, "email"))
    world.read(purchase(START + 2, "o1", channel="store"))
    world.customer.orders.pop("o1").order_id = ""
    assert world.read(touch(START + 1, "web")) == []
    assert only(world.read(purchase(START + 3, "o1", channel="store"))).revision == 1


def test_before_publish_from_it_is_noted_and_not_told() -> None:
    world = World(attributing(publish_from=START + 3))
    world.read(touch(START, "email"))
    assert world.read(purchase(START + 1, "o1", 50_00, channel="store")) == []
    assert world.customer.bond.attribution_seq == world.customer.bond.seq == 0
    record = only(world.read(refund(START + 3, "o1", 20_00)))
    assert (record.revision, record.attribution_seq, record.amount) == (1, 1, "30.00")
    other = only(world.read(purchase(START + 4, "o2", channel="store")))
    assert (other.revision, other.attribution_seq) == (1, 2)


def test_a_touch_that_is_not_known_any_more_stays_until_the_order_goes() -> None:
    world = World()
    world.read(touch(START, "email", event_id="weak"))
    world.read(touch(START + 1, "email", event_id="gone"))
    world.read(purchase(START + 2, "o1", 50_00, channel="store"))
    del world.customer.touches[1]
    assert world.read(refund(START + 3, "o1", 20_00)) == []
    assert world.attributions.after_adoption(world.customer, START + 3) == []
    assert only(world.read(refund(START + 4, "o1", 30_00))).status == "withdrawn"


def test_a_record_of_what_is_not_known_is_left_alone() -> None:
    world = World()
    world.read(touch(START, "email"))
    record = only(world.read(purchase(START + 1, "o1", channel="store")))
    World().attributions.adopt(World().customer, record, 1)
    visit = only(world.read(touch(START + 2, "store", action="visit")))
    stranger = World()
    stranger.attributions.adopt(stranger.customer, visit, 1)
    assert conversions(stranger.customer) == []


def test_the_page_of_what_was_told_anew_is_written() -> None:
    world = World()
    fill = iter(range(1_000))

    def fill_pages(count: int) -> None:
        for _ in range(PAGE_ENTRIES * count):
            world.read(touch(START + UNIT, "store", event_id=str(next(fill))))

    fill_pages(1)
    world.read(touch(START + 2, "store", action="visit"))
    fill_pages(1)
    world.read(purchase(START + 3, "o1", channel="store"))
    fill_pages(2)
    customer = world.customer
    customer.rewritten.clear()
    assert len(world.read(touch(START, "email"))) == 2
    assert [*customer.rewritten] == [1, 2]
    customer.rewritten.clear()
    world.attributions.void(customer, 2)
    assert [*customer.rewritten] == [2]


@pytest.mark.parametrize(
    "visit", [purchase(START + 3, "o1", channel="store"), touch(START + 3, "store", action="visit")]
)
def test_an_open_page_with_what_was_told_anew_is_no_longer_what_it_was_read_from(visit: InputEvent) -> None:
    world = World()
    world.read(visit)
    page = world.customer.open
    page.read, page.count = b"its rows", 1
    assert len(world.read(touch(START, "email"))) == 1
    assert page.read is None


def test_a_program_without_attribution_is_refused() -> None:
    with pytest.raises(ValueError, match="attribution"):
        Attributions(program(bonds=Bonds()))


def test_what_was_voided_keeps_the_revisions_before_it() -> None:
    world = World()
    world.read(touch(START, "email", event_id="first"))
    world.read(purchase(START + 2, "o1", channel="store"))
    world.read(touch(START + 1, "email", event_id="second"))
    world.attributions.void(world.customer, 2)
    world.customer.bond.seq = world.customer.bond.attribution_seq = 1
    record = only(bodies(world.attributions.after_adoption(world.customer, START + 2)))
    assert (record.attribution_seq, record.revision) == (2, 2)
    assert record.touch is not None
    assert record.touch.event_id == "second"
