"""Attributions against a computation from scratch after each event, and worked by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loyalty.attribution import Attributions
from loyalty.bond import BondChange
from loyalty.customer import Customer
from loyalty.entries import Bought, Named, Order, Touch
from loyalty.fold import Fold
from schemas.bond_records import AttributionEvent
from schemas.events import PurchaseMade, RefundMade, TouchpointMade, event_key
from schemas.program import Program
from schemas.program_bonds import Attribution, Bonds
from schemas.times import format_ms
from tests.loyalty.worlds import DAY, START, UNIT, program, purchase, refund, touch

Event = PurchaseMade | RefundMade | TouchpointMade

RULES = Attribution(
    window=4 * UNIT,
    campaign_window=12 * UNIT,
    online=("email", "web", "app"),
    offline=("store",),
    visits=("visit", "try"),
)


def attributing(rules: Attribution = RULES, **given: Any) -> Program:
    """A program with attribution alone. Its window is short, so that orders leave it."""
    return program(bonds=Bonds(attribution=rules), **{"window": 9 * UNIT, "ledger": 4000 * UNIT, **given})


class World:
    """One customer whose facts are noted as the fold does, and what was told of them."""

    def __init__(self, of: Program | None = None) -> None:
        self.program = of or attributing()
        self.attributions = Attributions(self.program)
        self._orders = Fold(msgspec.structs.replace(self.program, bonds=None))
        self.customer = Customer("900")
        self.time = 0
        self.told: list[BondChange] = []

    def read(self, event: Event) -> list[AttributionEvent]:
        """Note an event; the records that follow from it. A duplicate brings none."""
        self.time = max(self.time, event.occurred_at)
        if isinstance(event, TouchpointMade):
            noted = self._note_touch(event)
            changes = self.attributions.after_touch(self.customer, noted, self.time) if noted else []
        else:
            order = self._note_order(event)
            changes = self.attributions.after_order(self.customer, order, self.time) if order else []
        self.told += changes
        return bodies(changes)

    def _note_order(self, event: PurchaseMade | RefundMade) -> Order | None:
        before = self.customer.orders.get(event.order_id)
        time = None if before is None else before.time
        if self._orders.apply(self.customer, event, None) is None:
            return None
        order = self.customer.orders[event.order_id]
        if order.time != time:
            order.bought = Bought(event.channel, event.store_id, event.campaign_id, event.subscription_id)
        return order

    def _note_touch(self, event: TouchpointMade) -> Touch | None:
        customer = self.customer
        key = event_key(event.source, event.event_id)
        if key in customer.touch_ids:
            return None
        customer.touch_ids[key] = event.occurred_at
        noted = Touch(key, event.occurred_at, 0, event.direction == "outbound")
        if self.attributions.is_online(event.channel) or self.attributions.is_visit(event):
            noted.named = Named(
                event.event_id,
                event.source,
                event.channel,
                event.action,
                event.store_id,
                event.campaign_id,
            )
        customer.touched(noted)
        return noted


def bodies(changes: list[BondChange]) -> list[AttributionEvent]:
    found = []
    for change in changes:
        assert isinstance(change.body, AttributionEvent)
        found.append(change.body)
    return found


# From scratch: all events that were read, in that order, are gone through anew each time.


class Answer(NamedTuple):
    """What holds of a conversion: its touch's source and event_id, or None."""

    touch: str | None
    match: str | None
    at: str
    store: str | None
    amount: int | None


def answers(events: list[Event], rules: Attribution) -> dict[tuple[int, int, int, str], Answer]:
    """The conversions by time, key, kind and id: a purchase and a visit may have one key."""
    touches = [event for event in events if isinstance(event, TouchpointMade)]
    found = {}
    for order_id in {event.order_id for event in events if not isinstance(event, TouchpointMade)}:
        of_it = [e for e in events if not isinstance(e, TouchpointMade) and e.order_id == order_id]
        parts = [event for event in of_it if isinstance(event, PurchaseMade)]
        if not parts:
            continue
        first = min(parts, key=lambda part: part.occurred_at)
        refunded = sum(event.amount for event in of_it if isinstance(event, RefundMade))
        net = sum(part.amount for part in parts) - refunded
        chosen: tuple[TouchpointMade | None, str | None] = None, None
        if (first.channel in rules.offline or first.store_id is not None) and not (refunded and net <= 0):
            chosen = last_touch(touches, first, rules)
        found[first.occurred_at, event_key(first.source, first.event_id), 0, order_id] = answer(
            first, chosen, net
        )
    for visit in touches:
        if visit.direction != "inbound" or visit.action not in rules.visits:
            continue
        if visit.channel in rules.offline or visit.store_id is not None:
            others = [event for event in touches if event is not visit]
            key = event_key(visit.source, visit.event_id)
            found[visit.occurred_at, key, 1, f"{key:020}"] = answer(
                visit, last_touch(others, visit, rules), None
            )
    return found


def last_touch(
    touches: list[TouchpointMade], conversion: PurchaseMade | TouchpointMade, rules: Attribution
) -> tuple[TouchpointMade | None, str | None]:
    at = conversion.occurred_at
    online = [event for event in touches if event.channel in rules.online]
    for match in ("campaign", "window"):
        if match == "campaign":
            fitting = [
                event
                for event in online
                if event.campaign_id is not None
                and event.campaign_id == conversion.campaign_id
                and at - rules.campaign_window < event.occurred_at <= at
            ]
        else:
            fitting = [event for event in online if at - rules.window < event.occurred_at <= at]
        if fitting:
            return max(fitting, key=lambda e: (e.occurred_at, event_key(e.source, e.event_id))), match
    return None, None


def answer(
    conversion: PurchaseMade | TouchpointMade,
    chosen: tuple[TouchpointMade | None, str | None],
    net: int | None,
) -> Answer:
    event, match = chosen
    if event is None:
        net = None if net is None else 0
    at = format_ms(conversion.occurred_at)
    return Answer(
        None if event is None else f"{event.source}/{event.event_id}", match, at, conversion.store_id, net
    )


def shown(body: AttributionEvent) -> tuple[str, Answer]:
    conversion = body.conversion
    conversion_id = conversion.order_id
    if conversion.kind == "visit":
        conversion_id = f"{event_key(conversion.source or '', conversion.event_id or ''):020}"
    amount = None if body.amount is None else round(float(body.amount) * 100)
    return conversion_id or "", Answer(
        None if body.touch is None else f"{body.touch.source}/{body.touch.event_id}",
        body.match,
        conversion.occurred_at,
        conversion.store_id,
        amount,
    )


amounts = st.sampled_from([0, 100, 100, 250, 600])
refunds = st.sampled_from([100, 100, 250, 600])
units = st.integers(0, 16)
campaigns = st.sampled_from([None, "spring", "summer", ""])
stores = st.sampled_from([None, None, "s1", "s2", ""])


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any event of one customer. Whole units, a few of them a millisecond more or less: instants often coincide, and
    the windows' ends are met."""
    at = START + draw(units) * UNIT + draw(st.sampled_from([0, 0, 0, 1, -1]))
    event_id = str(draw(st.integers(0, 99)))
    source = draw(st.sampled_from(["", "", "pos"]))
    kind = draw(st.sampled_from("pppprtttttv"))
    if kind in "pr":
        order_id = draw(st.sampled_from("uvwxyz"))
        amount = draw(amounts if kind == "p" else refunds)
        return (purchase if kind == "p" else refund)(
            at,
            order_id,
            amount,
            event_id=event_id,
            source=source,
            channel=draw(st.sampled_from([None, "store", "store", "web"])),
            store_id=draw(stores),
            campaign_id=draw(campaigns),
        )
    return touch(
        at,
        draw(st.sampled_from(["email", "web", "store", "tv"] if kind == "t" else ["store", "store", "app"])),
        draw(st.sampled_from(["inbound", "outbound"])) if kind == "t" else "inbound",
        event_id=event_id,
        source=source,
        action=draw(st.sampled_from([None, "click", "visit"])) if kind == "t" else "visit",
        campaign_id=draw(campaigns),
        store_id=draw(stores),
    )


# Long ones find most, and Hypothesis draws few of them by itself.
logs = st.integers(0, 40).flatmap(lambda size: st.lists(events(), min_size=size, max_size=size))

windows = st.builds(
    lambda window, campaign_window: msgspec.structs.replace(
        RULES, window=window * UNIT, campaign_window=campaign_window * UNIT
    ),
    st.integers(1, 9),
    st.integers(1, 9),
)


@settings(max_examples=200, deadline=None)
@given(logs, windows)
def test_each_event_tells_what_it_changes_and_nothing_else(read: list[Event], rules: Attribution) -> None:
    world = World(attributing(rules))
    known: list[Event] = []
    before: dict[str, Answer] = {}
    revisions: dict[str, int] = {}
    for event in read:
        told = world.read(event)
        if any(is_same(event, other) for other in known):
            assert not told
            continue
        known.append(event)
        expected = []
        for (*_, conversion_id), now in sorted(answers(known, rules).items()):
            then = before.get(conversion_id)
            if now.touch is None and (then is None or then.touch is None):
                before.pop(conversion_id, None)
            elif now != then:
                before[conversion_id] = now
                expected.append((conversion_id, now))
        assert [shown(body) for body in told] == expected
        for body in told:
            conversion_id, _ = shown(body)
            assert body.revision == revisions.get(conversion_id, 0) + 1
            revisions[conversion_id] = body.revision
            assert body.status == ("withdrawn" if body.touch is None else "attributed")
            assert body.effective_at == format_ms(world.time)
    for number, change in enumerate(world.told, start=1):
        assert (change.mark.seq, change.mark.attribution_seq) == (number, number)
        assert change.body.event_id == f"grocery:attribution/900/{number}"


def is_same(event: Event, other: Event) -> bool:
    """Whether it is a duplicate: known by its id among those of its topic."""
    same_topic = isinstance(event, TouchpointMade) == isinstance(other, TouchpointMade)
    return same_topic and (event.source, event.event_id) == (other.source, other.event_id)


@settings(max_examples=80, deadline=None)
@given(logs)
def test_what_was_told_last_is_the_same_in_any_order_of_arrival(read: list[Event]) -> None:
    # Of two parts at one instant the first read says where it was.
    assume(not has_equal_parts(read))
    # Of two events with one id the first read counts.
    read = list({(isinstance(e, TouchpointMade), e.source, e.event_id): e for e in read}.values())
    finals = []
    for order in (read, sorted(read, key=lambda event: event.occurred_at), read[::-1]):
        world = World()
        for event in order:
            world.read(event)
        finals.append(last_told(world.told))
    assert finals[0] == finals[1] == finals[2]


def has_equal_parts(read: list[Event]) -> bool:
    parts = [(event.order_id, event.occurred_at) for event in read if isinstance(event, PurchaseMade)]
    return len(set(parts)) < len(parts)


def last_told(changes: list[BondChange]) -> dict[str, Answer]:
    finals = dict(shown(body) for body in bodies(changes))
    return {conversion_id: last for conversion_id, last in finals.items() if last.touch is not None}


@settings(max_examples=80, deadline=None)
@given(logs, st.integers(0, 30))
def test_adopting_what_was_published_brings_what_was_told_back(read: list[Event], after: int) -> None:
    world = World()
    for event in read:
        world.read(event)
    told = [conversion.told for conversion in conversions(world.customer)]
    seq = min(after, len(world.told)) + 1
    world.attributions.void(world.customer, seq)
    for change in world.told[seq - 1 :]:
        assert isinstance(change.body, AttributionEvent)
        world.attributions.adopt(world.customer, change.body, change.mark.seq)
    assert [conversion.told for conversion in conversions(world.customer)] == told
    assert world.attributions.after_adoption(world.customer, world.time) == []


@settings(max_examples=80, deadline=None)
@given(logs, st.integers(0, 30))
def test_what_was_voided_is_told_again_with_revisions_without_holes(read: list[Event], kept: int) -> None:
    world = World()
    for event in read:
        world.read(event)
    before, kept_part = last_told(world.told), world.told[:kept]
    world.attributions.void(world.customer, kept + 1)
    bond = world.customer.bond
    bond.seq = bond.attribution_seq = len(kept_part)
    again = world.attributions.after_adoption(world.customer, world.time)
    twice = {cid for cid, _ in map(shown, bodies(world.told[kept:]))}
    if len(twice) == len(world.told[kept:]):  # of what was told twice since, the one before last is lost
        revisions: dict[str, int] = {}
        for body in bodies(kept_part + again):
            conversion_id, _ = shown(body)
            assert body.revision == revisions.get(conversion_id, 0) + 1
            revisions[conversion_id] = body.revision
    assert last_told(kept_part + again) == before


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


def conversions(customer: Customer) -> list[Order | Touch]:
    return [*customer.orders.values(), *customer.touches]


# Worked by hand.


def only(records: list[AttributionEvent]) -> AttributionEvent:
    (record,) = records
    return record


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
    World().attributions.adopt(Customer("900"), record, 1)
    visit = only(world.read(touch(START + 2, "store", action="visit")))
    stranger = World()
    stranger.attributions.adopt(stranger.customer, visit, 1)
    assert conversions(stranger.customer) == []


def test_the_page_of_what_was_told_anew_is_written() -> None:
    world = World()
    fill = iter(range(1_000))

    def fill_pages(count: int) -> None:
        for _ in range(64 * count):
            world.read(touch(START + UNIT, "store", event_id=str(next(fill))))

    fill_pages(1)
    world.read(touch(START + 2, "store", action="visit"))
    fill_pages(1)
    world.read(purchase(START + 3, "o1", channel="store"))
    fill_pages(2)
    customer = world.customer
    customer.rewritten.clear()
    assert len(world.read(touch(START, "email"))) == 2
    assert customer.rewritten == {1, 2}
    customer.rewritten.clear()
    world.attributions.void(customer, 2)
    assert customer.rewritten == {2}


def test_a_program_without_attribution_is_refused() -> None:
    with pytest.raises(ValueError, match="attribution"):
        Attributions(program(bonds=Bonds()))
