"""The same a second time: tier changes and state straight from the contract's definitions, summed from
scratch.

This is the reference that the stream is held against, so it is naive on purpose and shares nothing with the
fold but the program, the events, the wire's structs and the time zone data. At every evaluation all orders of
the customer are summed anew; falls by time are found by trying every instant at which anything could happen.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from schemas.events import PurchaseMade, RefundMade, TouchpointMade
from schemas.money import format_minor
from schemas.program import Program, Tier
from schemas.tier_change import ChangeReason, ContactCounts, ProgramRef, Rfm, TierChanged, tier_event_id
from schemas.times import format_ms
from schemas.zones import time_zone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Metrics(NamedTuple):
    """What the tiers look at, as of some instant. ``recency`` in ms, ``monetary`` in minor units."""

    frequency: int
    monetary: int
    last_purchase_at: int | None
    recency: int | None


class _Order:
    """One order: all its purchases and refunds as they came, ``(time, amount)``."""

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id
        self.purchases: list[tuple[int, int]] = []
        self.refunds: list[tuple[int, int]] = []
        self.time: int | None = None
        self.net = 0
        self.counts = False

    def sum_up(self) -> None:
        bought = sum(amount for _, amount in self.purchases)
        returned = sum(amount for _, amount in self.refunds)
        self.time = min((time for time, _ in self.purchases), default=None)
        self.net = max(0, bought - returned)
        self.counts = bool(self.purchases) and not (returned >= bought and returned > 0)


class BatchCustomer:
    """One customer: ``changes`` in order, and the state that they led to."""

    def __init__(self, program: Program, customer_id: str) -> None:
        self.program = program
        self.customer_id = customer_id
        self.time: int | None = None
        self.tier = 0
        self.tier_seq = 0
        self.changes: list[TierChanged] = []
        self._orders: list[_Order] = []
        self._ids: dict[tuple[bool, str, str], int] = {}
        self._channels: list[str] = []
        self._touches: list[tuple[int, str, str]] = []

    def is_duplicate(self, event: PurchaseMade | RefundMade | TouchpointMade, horizon: int | None) -> bool:
        """Whether the event's id is known in its topic; ids before the horizon are forgotten. Notes it if
        not."""
        key = (isinstance(event, TouchpointMade), event.source, event.event_id)
        known = self._ids.get(key)
        if known is not None and (horizon is None or known >= horizon):
            return True
        self._ids[key] = event.occurred_at
        return False

    def on_touchpoint(self, event: TouchpointMade) -> None:
        """Count a touchpoint."""
        channel = event.channel
        if channel not in self._channels:
            if len(self._channels) < 32:
                self._channels.append(channel)
            else:
                channel = "other"
        self._touches.append((event.occurred_at, channel, event.direction))

    def on_purchase_or_refund(self, event: PurchaseMade | RefundMade, horizon: int) -> None:
        """Let fall due what does before the event, apply it, and evaluate once."""
        if self.time is None:
            self.time = event.occurred_at
        else:
            self.let_fall(before=event.occurred_at)
            self.time = max(self.time, event.occurred_at)
        order = self._order_of(event.order_id, horizon)
        if isinstance(event, PurchaseMade):
            if not order.purchases:
                order.refunds = [refund for refund in order.refunds if refund[0] >= horizon]
            order.purchases.append((event.occurred_at, event.amount))
        else:
            order.refunds.append((event.occurred_at, event.amount))
        order.sum_up()
        tier = self._tier_at(self.time)
        if tier != self.tier:
            reason: ChangeReason = "purchase" if isinstance(event, PurchaseMade) else "refund"
            self._change(tier, self.time, reason, event)

    def let_fall(self, before: int) -> None:
        """Every fall that time brings strictly before an instant."""
        if self.time is None:
            return
        for instant in self._candidates(self.time, before):
            tier = self._tier_at(instant)
            if tier != self.tier:
                leaving = any(o.counts and o.time == instant - self.program.window for o in self._orders)
                self._change(tier, instant, "window_expiry" if leaving else "inactivity", None)
                self.time = instant

    def metrics(self, at: int) -> Metrics:
        """Frequency, monetary and recency as of an instant, over all orders."""
        start = at - self.program.window
        counted = [o for o in self._orders if o.counts and o.time is not None and start < o.time <= at]
        last = max((o.time for o in counted if o.time is not None), default=None)
        return Metrics(
            frequency=len(counted),
            monetary=sum([o.net for o in counted]),
            last_purchase_at=last,
            recency=None if last is None else at - last,
        )

    def line(self, at: int) -> dict[str, Any]:
        """The ``state dump`` line as of ``at``, what falls due at ``at`` included. ``at`` is not before the
        customer's time. The customer is left as it is."""
        kept = self.time, self.tier, self.tier_seq, len(self.changes)
        self.let_fall(before=at + 1)
        tier, tier_seq = self.tier, self.tier_seq
        self.time, self.tier, self.tier_seq = kept[:3]
        del self.changes[kept[3] :]
        program, metrics = self.program, self.metrics(at)
        last = metrics.last_purchase_at
        r, f, m = self._scores(metrics)
        return {
            "customer_id": self.customer_id,
            "as_of": format_ms(at),
            "tier": program.tiers[tier].name,
            "tier_seq": tier_seq,
            "frequency": metrics.frequency,
            "monetary": format_minor(metrics.monetary, program.decimals),
            "last_purchase_at": None if last is None else format_ms(last),
            "r": r,
            "f": f,
            "m": m,
            "lifetime_orders": sum(o.counts for o in self._orders),
            "lifetime_monetary": format_minor(
                sum(o.net for o in self._orders if o.purchases), program.decimals
            ),
            "contacts": {
                channel: {"inbound": counts.inbound, "outbound": counts.outbound}
                for channel, counts in self._contacts(at).items()
            },
        }

    def _order_of(self, order_id: str, horizon: int) -> _Order:
        """The order of that id, unless it is from before the horizon: then a new one."""
        for order in self._orders:
            if order.order_id == order_id and (order.time is None or order.time >= horizon):
                return order
        order = _Order(order_id)
        self._orders.append(order)
        return order

    def _candidates(self, after: int, before: int) -> list[int]:
        """Every instant between two at which time alone could change something: where an order leaves the
        window, and where the recency of an order reaches a limit."""
        limits = {self.program.window} | {
            t.max_recency for t in self.program.tiers if t.max_recency is not None
        }
        instants = [o.time + limit for limit in limits for o in self._orders if o.time is not None]
        return sorted({instant for instant in instants if after < instant < before})

    def _tier_at(self, at: int) -> int:
        metrics = self.metrics(at)
        return max(i for i, tier in enumerate(self.program.tiers) if _holds(tier, metrics))

    def _change(
        self, tier: int, at: int, reason: ChangeReason, cause: PurchaseMade | RefundMade | None
    ) -> None:
        previous, self.tier = self.tier, tier
        program = self.program
        if program.publish_from is not None and at < program.publish_from:
            return
        self.tier_seq += 1
        metrics = self.metrics(at)
        r, f, m = self._scores(metrics)
        self.changes.append(
            TierChanged(
                event_id=tier_event_id(program.id, self.customer_id, self.tier_seq),
                customer_id=self.customer_id,
                tier_seq=self.tier_seq,
                previous_tier=program.tiers[previous].name,
                tier=program.tiers[tier].name,
                direction="upgrade" if tier > previous else "downgrade",
                reason=reason,
                cause_source=None if cause is None else cause.source,
                cause_event_id=None if cause is None else cause.event_id,
                effective_at=format_ms(at),
                program=ProgramRef(program.id, program.version),
                rfm=Rfm(
                    recency_seconds=None if metrics.recency is None else metrics.recency // 1000,
                    frequency=metrics.frequency,
                    monetary=format_minor(metrics.monetary, program.decimals),
                    currency=program.currency,
                    r=r,
                    f=f,
                    m=m,
                ),
                contacts=self._contacts(at),
            )
        )

    def _scores(self, metrics: Metrics) -> tuple[int, int, int]:
        if metrics.recency is None:
            return 0, 0, 0
        cuts = self.program.scores
        return (
            1 + sum(metrics.recency <= cut for cut in cuts.recency),
            1 + sum(metrics.frequency >= cut for cut in cuts.frequency),
            1 + sum(metrics.monetary >= cut for cut in cuts.monetary),
        )

    def _contacts(self, at: int) -> dict[str, ContactCounts]:
        first_day = self._local_day(at) - self.program.contact_days + 1
        counted = [
            (channel, direction)
            for time, channel, direction in self._touches
            if time <= at and self._local_day(time) >= first_day
        ]
        return {
            channel: ContactCounts(counted.count((channel, "inbound")), counted.count((channel, "outbound")))
            for channel in sorted({channel for channel, _ in counted})
        }

    def _local_day(self, at: int) -> int:
        return (_EPOCH + timedelta(milliseconds=at)).astimezone(time_zone(self.program.timezone)).toordinal()


class Batch:
    """One partition's customers by id, those with touchpoints only too, and how many events were too late.

    Purchases and refunds on the one hand, touchpoints on the other, have a newest time each. Events older
    than the ledger are left out, as are duplicates, and neither moves it.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.customers: dict[str, BatchCustomer] = {}
        self.too_late = 0
        self._newest: dict[bool, int] = {}

    def read(self, event: PurchaseMade | RefundMade | TouchpointMade) -> bool:
        """Read the next event of the log; whether it counts, being neither too late nor a duplicate."""
        topic, ledger = isinstance(event, TouchpointMade), self.program.ledger
        horizon = self._newest[topic] - ledger if topic in self._newest else None
        if horizon is not None and event.occurred_at < horizon:
            self.too_late += 1
            return False
        customer = self.customers.get(event.customer_id)
        if customer is None:
            customer = self.customers[event.customer_id] = BatchCustomer(self.program, event.customer_id)
        if customer.is_duplicate(event, horizon):
            return False
        self._newest[topic] = max(event.occurred_at, self._newest.get(topic, 0))
        if isinstance(event, TouchpointMade):
            customer.on_touchpoint(event)
        else:
            customer.on_purchase_or_refund(event, self._newest[topic] - ledger)
        return True

    def let_fall(self, before: int) -> None:
        """Every fall that time brings strictly before an instant, for all customers."""
        for customer in self.customers.values():
            customer.let_fall(before)

    def lines(self, at: int) -> list[dict[str, Any]]:
        """The whole ``state dump`` as of ``at``, sorted by customer_id."""
        return [self.customers[customer_id].line(at) for customer_id in sorted(self.customers)]


def batch(
    program: Program,
    events: Iterable[PurchaseMade | RefundMade | TouchpointMade],
    until: int,
    lateness: int | None = None,
) -> Batch:
    """Everything that follows from one partition's events, given in the order of its logs.

    ``until`` is the clock in epoch milliseconds: at the end all that falls due strictly before
    ``until - lateness`` has fallen; ``lateness`` is the program's ``allowed_lateness`` unless given.
    """
    read = Batch(program)
    for event in events:
        read.read(event)
    read.let_fall(before=until - (program.allowed_lateness if lateness is None else lateness))
    return read


def _holds(tier: Tier, metrics: Metrics) -> bool:
    recent = tier.max_recency is None or (metrics.recency is not None and metrics.recency < tier.max_recency)
    return metrics.monetary >= tier.min_monetary and metrics.frequency >= tier.min_frequency and recent
