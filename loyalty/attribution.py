"""Attribution: which online touch brought a customer to a shop. docs/bonds.md has the rules.

What was told of a conversion stands with it, in ``Order.told`` or ``Touch.told``. An event looks only at what it may
change: an order at itself, an online touch at the conversions after it within ``reach``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from operator import attrgetter

import msgspec

from loyalty.bond import Attributed, BondChange, Named
from loyalty.customer import Customer
from loyalty.entries import Order, Touch
from schemas.bond_records import AttributionEvent, Conversion, Match, Touched, attribution_id
from schemas.event_key import event_key
from schemas.events import TouchpointMade
from schemas.money import format_minor
from schemas.program import Program
from schemas.tier_change import ProgramRef
from schemas.times import SECOND, format_ms, parse_rfc3339

# No key is negative: what was told and then voided differs from whatever is found.
_VOIDED = -1

_time = attrgetter("time")


class Attributions:
    """One program's attributions, decided for customers, who are changed in place. Times are epoch milliseconds.

    ``reach`` is how long before a conversion its touch may lie, exclusive: touches must be kept for as long as an
    order keeps its name, and ``reach`` longer. Nothing here asks whether the customer's bond is held: the caller does.
    """

    def __init__(self, program: Program) -> None:
        """Raises ``ValueError`` for a program without attribution."""
        rules = None if program.bonds is None else program.bonds.attribution
        if rules is None:
            raise ValueError("expected a program with [attribution]")
        self._program = program
        self._window = rules.window
        self._campaign_window = rules.campaign_window
        self._online = frozenset(rules.online)
        self._offline = frozenset(rules.offline)
        self._visits = frozenset(rules.visits)
        self.reach = max(rules.window, rules.campaign_window)

    def is_online(self, channel: str) -> bool:
        """Whether touches on a channel are ones that others may be attributed to."""
        return channel in self._online

    def is_visit(self, event: TouchpointMade) -> bool:
        """Whether a touchpoint is a conversion."""
        return (
            event.direction == "inbound"
            and event.action in self._visits
            and self.is_in_store(event.channel, event.store_id)
        )

    def is_conversion(self, order: Order) -> bool:
        """Whether an order was bought in a store, as far as ``bought`` says; it may be refunded since."""
        bought = order.bought
        return bought is not None and self.is_in_store(bought.channel, bought.store_id)

    def after_order(self, customer: Customer, order: Order, at: int) -> list[BondChange]:
        """What is to be told at ``at`` after an order was bought, changed or refunded."""
        if order.told is None and not self.is_conversion(order):
            return []
        change = self._tell(customer, order, at)
        return [] if change is None else [change]

    def after_touch(self, customer: Customer, touch: Touch, at: int) -> list[BondChange]:
        """What is to be told at ``at`` after a touch was noted: a late one may be nearer to what came after it."""
        named = touch.named
        if named is None:
            return []
        conversions: list[Order | Touch] = []
        if named.channel in self._online:
            conversions = self._after(customer, touch)
        if self._is_visit(touch):
            conversions.append(touch)
        return self._tell_all(customer, conversions, at)

    def after_adoption(self, customer: Customer, at: int) -> list[BondChange]:
        """What is to be told at ``at`` where anything may have changed: looks at every conversion."""
        conversions: list[Order | Touch] = [
            order for order in customer.orders.values() if order.told is not None or self.is_conversion(order)
        ]
        conversions += [touch for touch in customer.touches if self._is_visit(touch)]
        return self._tell_all(customer, conversions, at)

    def adopt(self, customer: Customer, body: AttributionEvent, seq: int) -> None:
        """Take over what a published record says of a conversion; ``seq`` is that of its mark. One that is not known,
        or is forgotten, is left alone. The customer's counters are the caller's."""
        told = body.conversion
        at = parse_rfc3339(told.occurred_at)
        conversion: Order | Touch | None
        if told.kind == "purchase":
            conversion = customer.orders.get(told.order_id or "")
        else:
            key = event_key(told.source or "", told.event_id or "")
            conversion = _touch_at(customer, key, at)
        if conversion is None:
            return
        touch = body.touch
        _set_told(
            customer,
            conversion,
            Attributed(
                touch=None if touch is None else event_key(touch.source, touch.event_id),
                touched_at=0 if touch is None else parse_rfc3339(touch.occurred_at),
                match=body.match,
                at=at,
                store=told.store_id,
                # Written with exactly the currency's decimals, of sums that may be longer than an event's amount.
                amount=0 if body.amount is None else int(body.amount.replace(".", "")),
                revision=body.revision,
                seq=seq,
            ),
        )

    def void(self, customer: Customer, seq: int) -> None:
        """Forget what was told with ``seq`` or later. What was told before that of the same conversion is not known
        any more: it keeps its revision, and the next evaluation tells the conversion anew."""
        conversions: list[Order | Touch] = [*customer.orders.values(), *customer.touches]
        for conversion in conversions:
            told = conversion.told
            if told is None or told.seq < seq:
                continue
            before = None
            if told.revision > 1:
                before = msgspec.structs.replace(told, touch=_VOIDED, revision=told.revision - 1, seq=0)
            _set_told(customer, conversion, before)

    def is_in_store(self, channel: str | None, store_id: str | None) -> bool:
        """Whether a channel or a store's id says that it was in a shop."""
        return store_id is not None or channel in self._offline

    def _is_visit(self, touch: Touch) -> bool:
        """The same as ``is_visit``, of a touch that was noted."""
        named = touch.named
        return (
            named is not None
            and not touch.outbound
            and named.action in self._visits
            and self.is_in_store(named.channel, named.store_id)
        )

    def _after(self, customer: Customer, touch: Touch) -> list[Order | Touch]:
        """The conversions, other than itself, that a touch may have brought about."""
        first, end = touch.time, touch.time + self.reach
        found: list[Order | Touch] = []
        times, counted = customer.times, customer.counted
        for index in range(bisect_left(times, first, customer.low), len(times)):
            if times[index] >= end:
                break
            found.append(counted[index])
        if customer.time is not None and first <= (start := customer.time - self._program.window):
            # Orders that have left the window stand in no order of time. So late a touch is rare.
            found += [
                order
                for order in customer.orders.values()
                if order.time is not None and first <= order.time < end and order.time <= start
            ]
        touches = customer.touches
        for index in range(bisect_left(touches, first, key=_time), len(touches)):
            other = touches[index]
            if other.time >= end:
                break
            if other is not touch and self._is_visit(other):
                found.append(other)
        return found

    def _tell_all(self, customer: Customer, conversions: list[Order | Touch], at: int) -> list[BondChange]:
        if len(conversions) > 1:
            # The customer's own order of them depends on what was loaded when.
            conversions.sort(key=_place)
        changes = [self._tell(customer, conversion, at) for conversion in conversions]
        return [change for change in changes if change is not None]

    def _tell(self, customer: Customer, conversion: Order | Touch, at: int) -> BondChange | None:
        """Compare what the facts say of a conversion with what was told last, and tell the difference."""
        if isinstance(conversion, Order) and customer.orders.get(conversion.order_id) is not conversion:
            # Its name is forgotten, or another order's by now.
            return None
        told, time = conversion.told, conversion.time
        if time is None:
            return None
        touch: Touch | None = None
        match: Match | None = None
        if isinstance(conversion, Touch) or (conversion.counts and self.is_conversion(conversion)):
            touch, match = self._last_touch(customer, conversion, time)
            if told is not None and told.at == time and _rank(told) > _rank_of(touch, match):
                # A touch that is not known any more has no successor among the worse ones, and cannot be named.
                return None
        if touch is None and (told is None or told.touch is None):
            return None
        amount = conversion.paid - conversion.refunded if isinstance(conversion, Order) and touch else 0
        store_id = _store_of(conversion)
        if told is not None and touch is not None:
            before = (told.touch, told.at, told.store, told.amount)
            if before == (touch.key, time, store_id, amount):
                return None
        program, bond = self._program, customer.bond
        is_told = program.publish_from is None or at >= program.publish_from
        bond.attribution_seq += is_told
        now = Attributed(
            touch=None if touch is None else touch.key,
            touched_at=0 if touch is None else touch.time,
            match=match,
            at=time,
            store=store_id,
            amount=amount,
            revision=(0 if told is None else told.revision) + is_told,
            seq=bond.seq + is_told,
        )
        _set_told(customer, conversion, now)
        if not is_told:
            return None
        return bond.tell(customer.customer_id, self._record(customer, conversion, touch, now, at))

    def _last_touch(
        self, customer: Customer, conversion: Order | Touch, time: int
    ) -> tuple[Touch | None, Match | None]:
        """The touch of a conversion, as the facts have it now."""
        origin = conversion.bought if isinstance(conversion, Order) else conversion.named
        campaign = None if origin is None else origin.campaign_id
        reach = self._window if campaign is None else self.reach
        plain: Touch | None = None
        touches = customer.touches
        for index in range(bisect_right(touches, time, key=_time) - 1, -1, -1):
            touch = touches[index]
            age = time - touch.time
            if age >= reach:
                break
            named = touch.named
            if named is None or named.channel not in self._online or touch is conversion:
                continue
            if campaign is not None and named.campaign_id == campaign and age < self._campaign_window:
                return self._largest(touches, index, conversion, campaign), "campaign"
            if plain is None and age < self._window:
                plain = self._largest(touches, index, conversion, None)
                if campaign is None:
                    break
        return plain, None if plain is None else "window"

    def _largest(
        self, touches: list[Touch], index: int, conversion: Order | Touch, campaign: str | None
    ) -> Touch:
        """Of the touches at one instant, from the last fitting one back, the one with the largest key."""
        best = touches[index]
        while index and touches[index - 1].time == best.time:
            index -= 1
            touch = touches[index]
            named = touch.named
            if (
                touch.key > best.key
                and named is not None
                and named.channel in self._online
                and touch is not conversion
                and (campaign is None or named.campaign_id == campaign)
            ):
                best = touch
        return best

    def _record(
        self, customer: Customer, conversion: Order | Touch, touch: Touch | None, now: Attributed, at: int
    ) -> AttributionEvent:
        program = self._program
        seq = customer.bond.attribution_seq
        is_order = isinstance(conversion, Order)
        return AttributionEvent(
            event_id=attribution_id(program.id, customer.customer_id, seq),
            customer_id=customer.customer_id,
            attribution_seq=seq,
            revision=now.revision,
            status="withdrawn" if touch is None else "attributed",
            conversion=_conversion(conversion, now.at),
            touch=None if touch is None else _touched(touch),
            match=now.match,
            lag_seconds=None if touch is None else (now.at - touch.time) // SECOND,
            amount=format_minor(now.amount, program.decimals) if is_order else None,
            currency=program.currency,
            effective_at=format_ms(at),
            program=ProgramRef(program.id, program.version),
        )


def _rank(told: Attributed) -> tuple[int, ...]:
    """How good a touch is that was told: a larger one is better."""
    if told.touch is None or told.touch == _VOIDED:
        return ()
    return (told.match == "campaign", told.touched_at, told.touch)


def _rank_of(touch: Touch | None, match: Match | None) -> tuple[int, ...]:
    return () if touch is None else (match == "campaign", touch.time, touch.key)


def _place(conversion: Order | Touch) -> tuple[int, int]:
    """Where a conversion stands among those that are told at once."""
    return (-1 if conversion.time is None else conversion.time, conversion.key or 0)


def _store_of(conversion: Order | Touch) -> str | None:
    if isinstance(conversion, Order):
        return None if conversion.bought is None else conversion.bought.store_id
    return None if conversion.named is None else conversion.named.store_id


def _conversion(conversion: Order | Touch, time: int) -> Conversion:
    if isinstance(conversion, Order):
        bought = conversion.bought
        return Conversion(
            kind="purchase",
            order_id=conversion.order_id,
            event_id=None,
            source=None,
            occurred_at=format_ms(time),
            channel=None if bought is None else bought.channel,
            store_id=None if bought is None else bought.store_id,
            campaign_id=None if bought is None else bought.campaign_id,
        )
    named = _name(conversion)
    return Conversion(
        kind="visit",
        order_id=None,
        event_id=named.event_id,
        source=named.source,
        occurred_at=format_ms(time),
        channel=named.channel,
        store_id=named.store_id,
        campaign_id=named.campaign_id,
    )


def _touched(touch: Touch) -> Touched:
    named = _name(touch)
    return Touched(
        event_id=named.event_id,
        source=named.source,
        channel=named.channel,
        direction="outbound" if touch.outbound else "inbound",
        action=named.action,
        campaign_id=named.campaign_id,
        occurred_at=format_ms(touch.time),
    )


def _name(touch: Touch) -> Named:
    assert touch.named is not None
    return touch.named


def _touch_at(customer: Customer, key: int, at: int) -> Touch | None:
    touches = customer.touches
    for index in range(bisect_left(touches, at, key=_time), len(touches)):
        touch = touches[index]
        if touch.time != at:
            break
        if touch.key == key:
            return touch
    return None


def _set_told(customer: Customer, conversion: Order | Touch, told: Attributed | None) -> None:
    """Set what was told, and note that the page with it is to be written."""
    conversion.told = told
    if isinstance(conversion, Order):
        customer.changed(conversion)
    else:
        # A touch does not know its page. It is asked only where an online touch came after the visit that it changes.
        for page in (customer.open, *customer.pages.values()):
            if _is_in(page.entries, conversion):
                customer.rewrite(page.number)
                break


def _is_in(entries: Iterable[object], touch: Touch) -> bool:
    return any(entry is touch for entry in entries)
