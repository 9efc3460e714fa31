"""Attributions against a computation from scratch: all events that were read, in that order, are gone through anew
each time."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loyalty.bond import BondChange
from schemas.bond_records import AttributionEvent
from schemas.event_key import event_key
from schemas.events import PurchaseMade, RefundMade, TouchpointMade
from schemas.program_bonds import Attribution
from schemas.times import format_ms
from tests.loyalty.attribution_worlds import RULES, Event, World, attributing, bodies, conversions
from tests.loyalty.worlds import START, UNIT, purchase, refund, touch


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
