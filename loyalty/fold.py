"""The fold: (customer, event) → customer, changes. Stream, replay, sweep and simulation all run this one.

Customers are changed in place. A caller whose commit fails must throw its customers away.
"""

from __future__ import annotations

from copy import copy
from typing import Any

from loyalty.contacts import ContactWindow
from loyalty.customer import CHANNELS_KEPT_APART, OTHER_CHANNEL, Customer, Order, Seen, Touch
from loyalty.scores import score
from loyalty.tiers import Ladder
from loyalty.views import Change, CustomerView, change_body, dump_line
from schemas.events import PurchaseMade, RefundMade, TouchpointMade, event_key
from schemas.money import format_minor
from schemas.program import Program
from schemas.tier_change import ChangeReason, TierChanged
from schemas.times import format_ms

# Pairs of further ids an order holds itself. Some shops send one order id for everything.
_IDS_IN_ORDER = 16


class Fold:
    """One program's rules, applied to customers. Times are epoch milliseconds, money is minor units."""

    def __init__(self, program: Program) -> None:
        """Raises ``ValueError`` where the tzdata package lacks the program's time zone."""
        self.program = program
        self._window = program.window
        self._ledger = program.ledger
        self._ladder = Ladder(program)
        self._contacts = ContactWindow(program)

    def apply(
        self, customer: Customer, event: PurchaseMade | RefundMade, newest: int | None
    ) -> list[Change] | None:
        """Apply an event of the purchases topic; the changes it brings, what fell due before it first.

        ``newest`` is the newest ``occurred_at`` of the partition before this event, None where it is the
        first. None is returned for a duplicate, which changes nothing. The caller has refused events before
        ``newest - ledger``.
        """
        at = event.occurred_at
        key = event_key(event.source, event.event_id)
        seen_at = customer.ids.get(key)
        if seen_at is not None and (newest is None or seen_at >= newest - self._ledger):
            return None
        time = customer.time
        if time is None:
            customer.time = time = at
            changes = []
        elif at > time:
            changes = self._reach(customer, at)
            time = at
        else:
            changes = []
        customer.ids[key] = at
        horizon = (at if newest is None or at > newest else newest) - self._ledger
        reason: ChangeReason
        if isinstance(event, PurchaseMade):
            reason = "purchase"
            self._purchase(customer, event, key, horizon, time - self._window)
        else:
            reason = "refund"
            self._refund(customer, event, key, horizon, time - self._window)
        tier = self._ladder.tier_for(customer, time)
        if tier != customer.tier:
            changes += self._move(customer, tier, reason, event.source, event.event_id)
        return changes

    def touch(self, customer: Customer, event: TouchpointMade, newest: int | None) -> bool:
        """Note a touchpoint; False for a duplicate. ``newest`` is that of the touchpoints partition before
        it."""
        key = event_key(event.source, event.event_id)
        seen_at = customer.touch_ids.get(key)
        if seen_at is not None and (newest is None or seen_at >= newest - self._ledger):
            return False
        customer.touch_ids[key] = event.occurred_at
        channel = _channel(customer, event.channel)
        customer.touched(Touch(key, event.occurred_at, channel, event.direction == "outbound"))
        return True

    def advance(self, customer: Customer, until: int) -> list[Change]:
        """What falls due strictly before ``until``, each at its instant, with one evaluation per instant.

        Moves the customer's time to the last instant at which the tier changed, not further.
        """
        changes: list[Change] = []
        while (due := self._ladder.next_fall(customer)) is not None and due < until:
            staying = customer.low
            customer.slide(due - self._window)
            leaves = customer.low > staying and customer.times[customer.low - 1] == due - self._window
            customer.time = due
            tier = self._ladder.tier_for(customer, due)
            changes += self._move(customer, tier, "window_expiry" if leaves else "inactivity", None, None)
        return changes

    def next_due(self, customer: Customer) -> int | None:
        """When time alone would next change the tier; None where it never will."""
        return self._ladder.next_fall(customer)

    def adopt(self, customer: Customer, tier: str, tier_seq: int, effective_at: int) -> None:
        """Take over what a published change says, where the store lost it: the later of the two times holds.

        Raises ``ValueError`` for a tier that the program does not have.
        """
        if tier not in self._ladder.names:
            raise ValueError(f"the program has no tier {tier!r}")
        customer.tier = self._ladder.names.index(tier)
        customer.tier_seq = tier_seq
        if customer.time is None or effective_at > customer.time:
            customer.time = effective_at
            customer.slide(effective_at - self._window)

    def view(self, customer: Customer, at: int) -> CustomerView:
        """The customer as of ``at``, were nothing more to arrive; what falls due at ``at`` is included.

        The customer given stays as it is. ``at`` may lie before the customer's time, where only falls by time
        lie between. Raises ``ValueError`` where a counted purchase lies between.
        """
        shown = copy(customer)
        if shown.time is not None and at < shown.time:
            self._rewind(shown, at)
        else:
            self.advance(shown, at + 1)
            shown.slide(at - self._window)
        last = shown.last_purchase_at
        r, f, m = score(
            self.program.scores, None if last is None else at - last, shown.frequency, shown.monetary
        )
        return CustomerView(
            customer_id=shown.customer_id,
            as_of=at,
            tier=self._ladder.names[shown.tier],
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
        )

    def dump_line(self, view: CustomerView) -> dict[str, Any]:
        """A line of ``state dump --json``."""
        return dump_line(self.program, view)

    def change_body(self, change: Change) -> TierChanged:
        """The wire's body of a change."""
        return change_body(self.program, change)

    def readable(self, customer: Customer) -> dict[str, str]:
        """The small hash that any client may read, as of the customer's own time; null is an empty string."""
        decimals = self.program.decimals
        last = customer.last_purchase_at
        return {
            "tier": self._ladder.names[customer.tier],
            "tier_seq": str(customer.tier_seq),
            "as_of": "" if customer.time is None else format_ms(customer.time),
            "frequency": str(customer.frequency),
            "monetary": format_minor(customer.monetary, decimals),
            "last_purchase_at": "" if last is None else format_ms(last),
            "lifetime_orders": str(customer.lifetime_orders),
            "lifetime_monetary": format_minor(customer.lifetime_monetary, decimals),
        }

    def _reach(self, customer: Customer, at: int) -> list[Change]:
        """Bring the customer to ``at``, with what falls due strictly before it."""
        start = at - self._window
        low, monetary = customer.low, customer.monetary
        customer.slide(start)
        changes: list[Change] = []
        # Time alone only takes away: a tier that still holds at ``at`` held all the way, and nothing was due.
        if not self._ladder.holds(customer, at):
            customer.low, customer.monetary = low, monetary
            changes = self.advance(customer, at)
            customer.slide(start)
        customer.time = at
        return changes

    def _known(self, customer: Customer, order_id: str, horizon: int) -> Order | None:
        """The order under an id, unless it is so old that its name is forgotten."""
        order = customer.orders.get(order_id)
        if order is None or (order.time is not None and order.time < horizon):
            return None
        return order

    def _purchase(self, customer: Customer, event: PurchaseMade, key: int, horizon: int, start: int) -> None:
        at = event.occurred_at
        order = self._known(customer, event.order_id, horizon)
        if order is None:
            order = Order(0, event.order_id, at, event.amount, 0, key)
            customer.orders[event.order_id] = order
            order.page = customer.record(order)
            customer.enter(order, start)
            return
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

    def _refund(self, customer: Customer, event: RefundMade, key: int, horizon: int, start: int) -> None:
        at = event.occurred_at
        order = self._known(customer, event.order_id, horizon)
        if order is None:
            order = Order(0, event.order_id, None, 0, 0, None, (key, at), (at, event.amount))
            customer.orders[event.order_id] = order
            order.page = customer.record(order)
            return
        customer.leave(order, start)
        customer.changed(order)
        _add_id(customer, order, key, at)
        if order.time is None:
            order.waiting = (*(order.waiting or ()), at, event.amount)
        else:
            order.refunded += event.amount
        customer.enter(order, start)

    def _move(
        self, customer: Customer, tier: int, reason: ChangeReason, source: str | None, event_id: str | None
    ) -> list[Change]:
        """Move to another tier at the customer's time; the change, unless it is before ``publish_from``."""
        previous, customer.tier = customer.tier, tier
        at = customer.time
        assert at is not None  # without a time there was neither an event nor an order to leave
        publish_from = self.program.publish_from
        if publish_from is not None and at < publish_from:
            return []
        customer.tier_seq += 1
        last = customer.last_purchase_at
        recency = None if last is None else at - last
        r, f, m = score(self.program.scores, recency, customer.frequency, customer.monetary)
        return [
            Change(
                customer_id=customer.customer_id,
                tier_seq=customer.tier_seq,
                previous_tier=self._ladder.names[previous],
                tier=self._ladder.names[tier],
                direction="upgrade" if tier > previous else "downgrade",
                reason=reason,
                cause_source=source,
                cause_event_id=event_id,
                effective_at=at,
                recency=recency,
                frequency=customer.frequency,
                monetary=customer.monetary,
                r=r,
                f=f,
                m=m,
                contacts=self._contacts.counts(customer, at),
            )
        ]

    def _rewind(self, shown: Customer, at: int) -> None:
        """Take a copy back to ``at``: the tier is what the metrics earned then, less the changes that time
        made."""
        shown.arrange(at - self._window)
        if shown.times and shown.times[-1] > at:
            raise ValueError(f"customer {shown.customer_id!r} bought after {format_ms(at)}")
        until, tier_seq = shown.time, shown.tier_seq
        assert until is not None
        shown.time = at
        shown.tier = self._ladder.tier_for(shown, at)
        shown.tier_seq = tier_seq - len(self.advance(copy(shown), until + 1))


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
