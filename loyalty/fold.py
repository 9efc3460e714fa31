"""The fold: (customer, event) → customer, decisions. Stream, replay, sweep and simulation all run this one.

Customers are changed in place. A caller whose commit fails must throw its customers away.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Literal

from loyalty.beneath import Override, Since
from loyalty.bonds import Bonds
from loyalty.contacts import ContactWindow
from loyalty.customer import CHANNELS_KEPT_APART, OTHER_CHANNEL, Customer, as_it_came
from loyalty.entries import Order, Seen, Touch
from loyalty.scores import score
from loyalty.standing import Standing
from loyalty.views import Beneath, CustomerView, Decision, Readable
from schemas.event_key import event_key
from schemas.events import OverrideCommanded, PurchaseMade, RefundMade, TouchpointMade
from schemas.money import format_minor
from schemas.program import Program
from schemas.tier_change import TierEvent
from schemas.times import format_ms

_READABLE = (
    *("tier", "tier_seq", "as_of", "frequency", "monetary", "last_purchase_at"),
    *("lifetime_orders", "lifetime_monetary"),
)
_READABLE_WITH_SEGMENT = (*_READABLE, "segment", "segment_seq")

# Pairs of further ids an order holds itself. Some shops send one order id for everything.
_IDS_IN_ORDER = 16


class Fold:
    """One program's rules, applied to customers. Times are epoch milliseconds, money is minor units."""

    def __init__(self, program: Program) -> None:
        """Raises ``ValueError`` where the tzdata package lacks the program's time zone."""
        self.program = program
        self._window = program.window
        self._ledger = program.ledger
        self._contacts = ContactWindow(program)
        self.bonds = None if program.bonds is None else Bonds(program, program.bonds)
        segments = self.bonds if self.bonds is not None and self.bonds.has_segments else None
        self._segments = segments
        self.standing = Standing(program, self._contacts, None if segments is None else segments.segment_at)
        self._is_settled = self.standing.is_settled
        self._enterable = self.standing.ladder.enterable

    def apply(
        self, customer: Customer, event: PurchaseMade | RefundMade, newest: int | None
    ) -> list[Decision] | None:
        """Apply an event of the purchases topic; the decisions it brings, what fell due before it first.

        ``newest`` is the newest ``occurred_at`` of the partition before this event, None where it is the
        first. None is returned for a duplicate, which changes nothing. The caller has refused events before
        ``newest - ledger``.
        """
        at = event.occurred_at
        key = event_key(event.source, event.event_id)
        if self._is_known(customer.ids, key, newest):
            return None
        noted = as_it_came(at)
        time = customer.time
        made: list[Decision] = []
        if time is None or at > time:
            made = self._reach(customer, at)
            time = at
        customer.ids[key] = noted
        customer.since = None
        horizon = (at if newest is None or at > newest else newest) - self._ledger
        reason: Literal["purchase", "refund"] = "purchase"
        if isinstance(event, PurchaseMade):
            order = self._purchase(customer, event, key, noted, horizon, time - self._window)
            if self.bonds is not None:
                self.bonds.bought(customer, event, key, order)
            # The usual purchase changes nothing of the standing. It may save a tier that was in grace, or was lost
            # at this very instant; a late part may move an order back: then the tier does not hold.
            if not (self._is_settled(customer, time) and self._enterable(customer, time) == customer.earned):
                made += self.standing.evaluate(customer, time, reason, event.source, event.event_id)
        else:
            reason = "refund"
            counted = customer.monetary, len(customer.times)
            order = self._refund(customer, event, key, horizon, time - self._window)
            if not self._is_settled(customer, time):
                lowered = customer.monetary < counted[0] or len(customer.times) < counted[1]
                made += self.standing.evaluate(customer, time, reason, event.source, event.event_id, lowered)
        if self.bonds is not None:
            self.bonds.seen(customer, at)
            made += self.bonds.evaluate(customer, time, reason, event.source, event.event_id, order)
        return made

    def command(
        self, customer: Customer, event: OverrideCommanded, newest: int | None
    ) -> list[Decision] | None:
        """Apply a command; the decisions it brings, what fell due before it first. None for a duplicate.

        ``newest`` is that of the commands partition before it. Raises ``KeyError`` for a tier that the program
        does not have.
        """
        at = event.occurred_at
        key = event_key(event.source, event.event_id)
        if self._is_known(customer.commands, key, newest):
            return None
        made: list[Decision] = []
        if customer.time is None or at > customer.time:
            made = self._reach(customer, at)
        time = max(at, customer.time or at)
        customer.commands[key] = at
        customer.since = None
        held = customer.override
        if held is None or at >= held.at:
            if event.mode == "clear":
                customer.override = Override(at, "clear", 0, at, event.actor, event.reason)
            else:
                tier = self.standing.ladder.index[event.tier]
                customer.override = Override(at, event.mode, tier, event.until, event.actor, event.reason)
        made += self.standing.evaluate(customer, time, "override", event.source, event.event_id)
        if self.bonds is not None:
            self.bonds.seen(customer, at)
            made += self.bonds.evaluate(customer, time, "override", event.source, event.event_id)
        return made

    def is_duplicate(
        self, customer: Customer, event: PurchaseMade | RefundMade | OverrideCommanded, newest: int | None
    ) -> bool:
        """Whether ``apply`` or ``command`` would return None. ``newest`` is that of the event's own partition."""
        known = customer.commands if isinstance(event, OverrideCommanded) else customer.ids
        return self._is_known(known, event_key(event.source, event.event_id), newest)

    def _is_known(self, ids: dict[int, int], key: int, newest: int | None) -> bool:
        seen_at = ids.get(key)
        return seen_at is not None and (newest is None or seen_at >= newest - self._ledger)

    def touch(self, customer: Customer, event: TouchpointMade, newest: int | None) -> list[Decision] | None:
        """Note a touchpoint; the decisions it brings, what of the bond fell due before it first. None for a duplicate.

        ``newest`` is that of the touchpoints partition before it. Tiers and the customer's time are left alone.
        """
        key = event_key(event.source, event.event_id)
        if self._is_known(customer.touch_ids, key, newest):
            return None
        bonds, at = self.bonds, event.occurred_at
        made: list[Decision] = []
        if bonds is not None:
            while (due := bonds.due_before(customer, at)) is not None:
                made += bonds.fall_due(customer, due)
        customer.touch_ids[key] = at
        touch = Touch(key, at, _channel(customer, event.channel), event.direction == "outbound")
        if bonds is None:
            customer.touched(touch)
            return made
        bonds.touched(customer, event, touch)
        customer.touched(touch)
        bonds.seen(customer, at)
        made += bonds.evaluate(customer, at, "touchpoint", event.source, event.event_id, touch)
        return made

    def advance(self, customer: Customer, until: int) -> list[Decision]:
        """What falls due strictly before ``until``, each at its instant, with one evaluation per instant.

        Moves the customer's time to the last instant at which its tier changed, not further.
        """
        before = None if customer.since is not None else _since(customer)
        made = self._fall_due(customer, until)
        if before is not None and customer.time != before.time:
            customer.since = before
        return made

    def next_due(self, customer: Customer) -> int | None:
        """When time alone may next bring a decision, never later than it does; None where it never will."""
        due = self.standing.next_due(customer)
        if self.bonds is not None:
            bond_due = self.bonds.next_due(customer)
            if bond_due is not None and (due is None or bond_due < due):
                return bond_due
        return due

    def adopt(self, customer: Customer, told: TierEvent, at: int, beneath: Beneath | None) -> None:
        """Take over what a published record says, where the store lost it; see ``Rules.adopt``."""
        self.standing.adopt(customer, told, beneath)
        customer.since = None
        if customer.time is None or at > customer.time:
            customer.time = at
            customer.slide(at - self._window)

    def view(self, customer: Customer, at: int) -> CustomerView:
        """The customer as of ``at``, were nothing more to arrive; what falls due at ``at`` is included.

        The customer given stays as it is. ``at`` may lie before the customer's time, where only falls by time
        lie between. Raises ``ValueError`` where a counted purchase lies between.
        """
        shown = self.as_of(customer, at)
        last = shown.last_purchase_at
        r, f, m = score(
            self.program.scores, None if last is None else at - last, shown.frequency, shown.monetary
        )
        return CustomerView(
            customer_id=shown.customer_id,
            as_of=at,
            tier=self.standing.ladder.names[shown.tier],
            tier_seq=shown.tier_seq,
            frequency=shown.frequency,
            monetary=shown.monetary,
            last_purchase_at=last,
            r=r,
            f=f,
            m=m,
            lifetime_orders=shown.lifetime_orders,
            lifetime_monetary=shown.lifetime_monetary,
            contacts=self._contacts.counts(shown, at),
            has_segments=self._segments is not None,
            segment=None if self._segments is None else self._segments.segment_at(shown, at),
            attachment=0 if self._segments is None else self._segments.attachment_at(shown, at),
        )

    def as_of(self, customer: Customer, at: int) -> Customer:
        """A copy of the customer, brought to ``at``; raises as ``view`` does."""
        shown = copy(customer)
        # It shares its bond with the customer, of whom nothing is decided here.
        shown.bond_held, shown.bond_due = True, None
        if shown.time is not None and at < shown.time:
            self._rewind(shown, at)
        else:
            self.advance(shown, at + 1)
            shown.slide(at - self._window)
        return shown

    def readable(self, customer: Customer) -> Readable:
        """The small hash that any client may read, as of the customer's own time; null is an empty string."""
        decimals = self.program.decimals
        time, last = customer.time, customer.last_purchase_at
        as_of = "" if time is None else format_ms(time)
        values = [
            self.standing.ladder.names[customer.tier],
            str(customer.tier_seq),
            as_of,
            str(customer.frequency),
            format_minor(customer.monetary, decimals),
            # Mostly the customer's time is that of the newest order.
            as_of if last == time else "" if last is None else format_ms(last),
            str(customer.lifetime_orders),
            format_minor(customer.lifetime_monetary, decimals),
        ]
        if self._segments is None:
            return _READABLE, values
        bond = customer.bond
        values += (bond.segment or "", str(bond.segment_seq))
        return _READABLE_WITH_SEGMENT, values

    def _reach(self, customer: Customer, at: int) -> list[Decision]:
        """Bring the customer to ``at``, with what falls due strictly before it."""
        # Before the window slides: the bond's tests look at what counts now.
        bond_falls = self.bonds is not None and self.bonds.due_before(customer, at) is not None
        start = at - self._window
        low, monetary = customer.low, customer.monetary
        customer.slide(start)
        made: list[Decision] = []
        # A tier that still holds at ``at`` held all the way, and nothing was due.
        if bond_falls or not self._is_settled(customer, at):
            customer.low, customer.monetary = low, monetary
            made = self._fall_due(customer, at)
            customer.slide(start)
        customer.time = at
        return made

    def _fall_due(self, customer: Customer, until: int) -> list[Decision]:
        standing, window, bonds = self.standing, self._window, self.bonds
        made: list[Decision] = []
        while True:
            due = standing.next_due(customer)
            if bonds is not None:
                bond_due = bonds.due_before(customer, until)
                # A tier that falls due at the same instant comes first, and one evaluation is for both.
                if bond_due is not None and (due is None or bond_due < due):
                    made += bonds.fall_due(customer, bond_due)
                    continue
            if due is None or due >= until:
                return made
            staying = customer.low
            customer.slide(due - window)
            leaves = customer.low > staying and customer.times[customer.low - 1] == due - window
            reason = standing.reason_at(customer, due, leaves)
            customer.time = due
            made += standing.evaluate(customer, due, reason)
            if bonds is not None:
                made += bonds.evaluate(customer, due, "time")

    def _known(self, customer: Customer, order_id: str, horizon: int) -> Order | None:
        """The order under an id, unless it is so old that its name is forgotten."""
        order = customer.orders.get(order_id)
        if order is None or (order.time is not None and order.time < horizon):
            return None
        return order

    def _purchase(
        self, customer: Customer, event: PurchaseMade, key: int, noted: Any, horizon: int, start: int
    ) -> Order:
        """``noted`` is the event's time, one object for all the places where it is kept."""
        at = event.occurred_at
        order = self._known(customer, event.order_id, horizon)
        if order is None:
            order = Order(0, event.order_id, noted, event.amount, 0, key)
            customer.orders[event.order_id] = order
            order.page = customer.record(order)
            customer.enter(order, start)
            return order
        customer.leave(order, start)
        customer.changed(order)
        order.paid += event.amount
        if order.time is None:
            order.time, order.key = at, key
            waiting = order.waiting or ()
            order.refunded = sum(
                amount for time, amount in zip(waiting[::2], waiting[1::2], strict=True) if time >= horizon
            )
            order.waiting = None
        elif at < order.time:
            if order.key is not None:
                _add_id(customer, order, order.key, order.time)
            order.time, order.key = at, key
        else:
            _add_id(customer, order, key, at)
        customer.enter(order, start)
        return order

    def _refund(self, customer: Customer, event: RefundMade, key: int, horizon: int, start: int) -> Order:
        at = event.occurred_at
        order = self._known(customer, event.order_id, horizon)
        if order is None:
            order = Order(0, event.order_id, None, 0, 0, None, (key, at), (at, event.amount))
            customer.orders[event.order_id] = order
            order.page = customer.record(order)
            return order
        customer.leave(order, start)
        customer.changed(order)
        _add_id(customer, order, key, at)
        if order.time is None:
            order.waiting = (*(order.waiting or ()), at, event.amount)
        else:
            order.refunded += event.amount
        customer.enter(order, start)
        return order

    def _rewind(self, shown: Customer, at: int) -> None:
        """Take a copy back to ``at``, which only what time brought separates from the customer's time."""
        since, until = shown.since, shown.time
        assert until is not None
        if since is not None and since.time <= at:
            shown.time, shown.tier, shown.tier_seq = since.time, since.tier, since.tier_seq
            shown.earned, shown.grace, shown.at_risk = since.earned, since.grace, since.at_risk
            shown.protection = since.protection
            shown.arrange(since.time - self._window)
            self._fall_due(shown, at + 1)
            shown.slide(at - self._window)
            return
        shown.arrange(at - self._window)
        if shown.times and shown.times[-1] > at:
            raise ValueError(f"customer {shown.customer_id!r} bought after {format_ms(at)}")
        # A late event was read since. Where tiers follow from metrics alone, they say how it was all the same.
        if not self.standing.is_plain(shown):
            raise ValueError(f"customer {shown.customer_id!r} changed after {format_ms(at)}")
        tier_seq = shown.tier_seq
        shown.time, shown.earned, shown.tier = at, 0, 0
        shown.tier = shown.earned = self._enterable(shown, at)
        shown.tier_seq = tier_seq - len(self._fall_due(copy(shown), until + 1))


def _since(customer: Customer) -> Since | None:
    if customer.time is None:
        return None
    return Since(
        customer.time,
        customer.tier,
        customer.tier_seq,
        customer.earned,
        customer.grace,
        customer.at_risk,
        customer.protection,
    )


def _channel(customer: Customer, name: str) -> int:
    """The index of a channel among the customer's, by arrival."""
    channels = customer.channels
    if name not in channels:
        if len(channels) >= CHANNELS_KEPT_APART:
            name = OTHER_CHANNEL
        if name not in channels:
            channels.append(name)
    return channels.index(name)


def _add_id(customer: Customer, order: Order, key: int, at: int) -> None:
    """Keep the id of a further event of an order."""
    more = order.more or ()
    if len(more) < 2 * _IDS_IN_ORDER:
        order.more = (*more, key, at)
    else:
        customer.record(Seen(key, at))
