"""The fold: (customer, event) → customer, changes. Stream, replay, sweep and simulation all run this one.

Customers are changed in place. A caller whose commit fails must throw its customers away.
"""

from __future__ import annotations

from copy import copy

from loyalty.contacts import ContactWindow
from loyalty.customer import CHANNELS_KEPT_APART, OTHER_CHANNEL, Customer, Order, Override, Seen, Since, Touch
from loyalty.scores import score
from loyalty.standing import Standing
from loyalty.views import Beneath, Change, CustomerView
from schemas.events import OverrideCommanded, PurchaseMade, RefundMade, TouchpointMade, event_key
from schemas.money import format_minor
from schemas.program import Program
from schemas.tier_change import TierEvent
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
        self._contacts = ContactWindow(program)
        self.standing = Standing(program, self._contacts)
        self._is_settled = self.standing.is_settled
        self._enterable = self.standing.ladder.enterable

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
        if self._is_known(customer.ids, key, newest):
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
        customer.since = None
        horizon = (at if newest is None or at > newest else newest) - self._ledger
        if isinstance(event, PurchaseMade):
            self._purchase(customer, event, key, horizon, time - self._window)
            # The usual purchase changes nothing of the standing. It may save a tier that was in grace, or was lost
            # at this very instant; a late part may move an order back: then the tier does not hold.
            if self._is_settled(customer, time) and self._enterable(customer, time) == customer.earned:
                return changes
            return changes + self.standing.evaluate(customer, time, "purchase", event.source, event.event_id)
        counted = customer.monetary, len(customer.times)
        self._refund(customer, event, key, horizon, time - self._window)
        if self._is_settled(customer, time):
            return changes
        lowered = customer.monetary < counted[0] or len(customer.times) < counted[1]
        return changes + self.standing.evaluate(
            customer, time, "refund", event.source, event.event_id, lowered
        )

    def command(
        self, customer: Customer, event: OverrideCommanded, newest: int | None
    ) -> list[Change] | None:
        """Apply a command; the changes it brings, what fell due before it first. None for a duplicate.

        ``newest`` is that of the commands partition before it. Raises ``KeyError`` for a tier that the program
        does not have.
        """
        at = event.occurred_at
        key = event_key(event.source, event.event_id)
        if self._is_known(customer.commands, key, newest):
            return None
        changes: list[Change] = []
        if customer.time is None:
            customer.time = at
        elif at > customer.time:
            changes = self._reach(customer, at)
        customer.commands[key] = at
        customer.since = None
        held = customer.override
        if held is None or at >= held.at:
            if event.mode == "clear":
                customer.override = Override(at, "clear", 0, at, event.actor, event.reason)
            else:
                tier = self.standing.ladder.index[event.tier]
                customer.override = Override(at, event.mode, tier, event.until, event.actor, event.reason)
        return changes + self.standing.evaluate(
            customer, customer.time, "override", event.source, event.event_id
        )

    def is_duplicate(
        self, customer: Customer, event: PurchaseMade | RefundMade | OverrideCommanded, newest: int | None
    ) -> bool:
        """Whether ``apply`` or ``command`` would return None. ``newest`` is that of the event's own partition."""
        known = customer.commands if isinstance(event, OverrideCommanded) else customer.ids
        return self._is_known(known, event_key(event.source, event.event_id), newest)

    def _is_known(self, ids: dict[int, int], key: int, newest: int | None) -> bool:
        seen_at = ids.get(key)
        return seen_at is not None and (newest is None or seen_at >= newest - self._ledger)

    def touch(self, customer: Customer, event: TouchpointMade, newest: int | None) -> bool:
        """Note a touchpoint; False for a duplicate. ``newest`` is that of the touchpoints partition before
        it."""
        key = event_key(event.source, event.event_id)
        if self._is_known(customer.touch_ids, key, newest):
            return False
        customer.touch_ids[key] = event.occurred_at
        channel = _channel(customer, event.channel)
        customer.touched(Touch(key, event.occurred_at, channel, event.direction == "outbound"))
        return True

    def advance(self, customer: Customer, until: int) -> list[Change]:
        """What falls due strictly before ``until``, each at its instant, with one evaluation per instant.

        Moves the customer's time to the last instant at which something changed, not further.
        """
        before = None if customer.since is not None else _since(customer)
        changes = self._fall_due(customer, until)
        if before is not None and customer.time != before.time:
            customer.since = before
        return changes

    def next_due(self, customer: Customer) -> int | None:
        """When time alone would next change the standing; None where it never will."""
        return self.standing.next_due(customer)

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
        )

    def as_of(self, customer: Customer, at: int) -> Customer:
        """A copy of the customer, brought to ``at``; raises as ``view`` does."""
        shown = copy(customer)
        if shown.time is not None and at < shown.time:
            self._rewind(shown, at)
        else:
            self.advance(shown, at + 1)
            shown.slide(at - self._window)
        return shown

    def readable(self, customer: Customer) -> dict[str, str]:
        """The small hash that any client may read, as of the customer's own time; null is an empty string."""
        decimals = self.program.decimals
        last = customer.last_purchase_at
        return {
            "tier": self.standing.ladder.names[customer.tier],
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
        # A tier that still holds at ``at`` held all the way, and nothing was due.
        if not self._is_settled(customer, at):
            customer.low, customer.monetary = low, monetary
            changes = self._fall_due(customer, at)
            customer.slide(start)
        customer.time = at
        return changes

    def _fall_due(self, customer: Customer, until: int) -> list[Change]:
        standing, window = self.standing, self._window
        changes: list[Change] = []
        while (due := standing.next_due(customer)) is not None and due < until:
            staying = customer.low
            customer.slide(due - window)
            leaves = customer.low > staying and customer.times[customer.low - 1] == due - window
            reason = standing.reason_at(customer, due, leaves)
            customer.time = due
            changes += standing.evaluate(customer, due, reason)
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
