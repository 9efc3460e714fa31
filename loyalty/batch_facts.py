"""The batch computation's facts about a bond: what was read of one customer, and what it says as of an instant.

Naive on purpose, see ``loyalty.batch``: every question goes through all orders and all touches. The rules are in
docs/bonds.md.
"""

from __future__ import annotations

from itertools import pairwise

from schemas.bond_records import Match
from schemas.event_key import event_key
from schemas.events import PurchaseMade, RefundMade, TouchpointMade
from schemas.program import Program
from schemas.program_bonds import Attribution, Points, Segment, SubscriptionState
from schemas.times import DAY

KEPT_APART = 32
_WORDS = {"resume": 0, "pause": 1, "cancel": 2}
"""What can be said of a subscription, in the order in which it wins at one instant."""


class BatchOrder:
    """One order: all its purchases and refunds as they came. ``net`` is in minor units."""

    def __init__(self, order_id: str) -> None:
        self.order_id = order_id
        self.purchases: list[PurchaseMade] = []
        self.refunds: list[RefundMade] = []
        self.time: int | None = None
        self.net = 0
        self.counts = False

    def sum_up(self) -> None:
        bought = sum(purchase.amount for purchase in self.purchases)
        returned = sum(refund.amount for refund in self.refunds)
        self.time = min((purchase.occurred_at for purchase in self.purchases), default=None)
        self.net = max(0, bought - returned)
        self.counts = bool(self.purchases) and not (returned >= bought and returned > 0)

    @property
    def first(self) -> PurchaseMade:
        """The earliest purchase, of two at one instant the one that was read first."""
        return min(self.purchases, key=lambda purchase: purchase.occurred_at)


class Converted:
    """A conversion with its touch: an order or a visit, None as the touch where none brought it."""

    def __init__(self, event: PurchaseMade | TouchpointMade, order: BatchOrder | None) -> None:
        self.event = event
        self.order = order
        self.touch: TouchpointMade | None = None
        self.match: Match | None = None

    @property
    def rank(self) -> tuple[int, int]:
        """Conversions are told in this order: by time, then by the key of the event."""
        return self.event.occurred_at, event_key(self.event.source, self.event.event_id)


class BatchFacts:
    """What was read of one customer, in order of arrival. The channels of ``told_apart`` are the first 32, and
    ``other``; those of ``touches`` are as they came."""

    def __init__(self) -> None:
        self.orders: list[BatchOrder] = []
        self.touches: list[TouchpointMade] = []
        self.told_apart: list[TouchpointMade] = []
        self._kept: list[str] = []
        self._said: list[tuple[str, int, str]] = []

    def bought(self, event: PurchaseMade) -> None:
        """Note a purchase, beside its order."""
        if event.subscription_id is not None:
            self._keep(event.subscription_id)

    def touched(self, event: TouchpointMade, channel: str) -> None:
        """Note a touchpoint, and the channel as which it counts."""
        self.touches.append(event)
        self.told_apart.append(event.but(channel=channel))
        if event.action not in _WORDS:
            return
        if event.subscription_id is None:
            named = list(self._kept)
        else:
            named = [event.subscription_id] if self._keep(event.subscription_id) else []
        self._said += [(subscription, event.occurred_at, event.action) for subscription in named]

    def _keep(self, subscription: str) -> bool:
        if subscription not in self._kept and len(self._kept) < KEPT_APART:
            self._kept.append(subscription)
        return subscription in self._kept

    # Orders

    def lifetime_orders(self) -> list[BatchOrder]:
        """Those that are not refunded in full."""
        return [order for order in self.orders if order.counts]

    def counted(self, program: Program, at: int) -> list[tuple[int, BatchOrder]]:
        """The orders that count as of an instant, by time."""
        inside = [(o.time, o) for o in self.orders if o.counts and o.time is not None]
        return sorted(
            [(time, order) for time, order in inside if at - program.window < time <= at],
            key=lambda pair: pair[0],
        )

    def first_at(self) -> int | None:
        """The first purchase, refunded or not."""
        return min((o.time for o in self.orders if o.time is not None), default=None)

    # Subscriptions

    def subscriptions(self) -> list[str]:
        """Those that are kept apart, by arrival."""
        return list(self._kept)

    def paid(self, subscription: str) -> list[int]:
        """When a subscription was bought and renewed, refunded or not."""
        return sorted(
            purchase.occurred_at
            for order in self.orders
            for purchase in order.purchases
            if purchase.subscription_id == subscription
        )

    def said(self, subscription: str) -> tuple[int, str] | None:
        """The newest that was said of a subscription, and when."""
        words = [(at, _WORDS[word], word) for name, at, word in self._said if name == subscription]
        if not words:
            return None
        at, _, word = max(words)
        return at, word

    def state(self, program: Program, subscription: str, at: int) -> SubscriptionState:
        """A subscription's state as of an instant."""
        assert program.bonds is not None
        paid, said = self.paid(subscription), self.said(subscription)
        holds = paid[-1] if paid else None
        if said is not None and (not paid or said[0] >= paid[-1]):
            if said[1] == "cancel":
                return "cancelled"
            if said[1] == "pause":
                return "paused"
            holds = said[0]
        assert holds is not None, "a subscription is kept for a purchase or for what was said"
        section = program.bonds.subscriptions
        return "lapsed" if at >= holds + section.period + section.grace else "active"

    def is_renewal(self, order: BatchOrder) -> bool:
        """Whether an order that counts renews a subscription."""
        subscription = order.first.subscription_id
        if subscription is None or subscription not in self._kept or order.time is None:
            return False
        return order.time > self.paid(subscription)[0]

    # Both axes

    def attachment(self, program: Program, at: int) -> int:
        """The points as of an instant."""
        assert program.bonds is not None
        section = program.bonds.attachment
        inbound = [
            touch
            for touch in self.told_apart
            if touch.direction == "inbound" and at - section.window < touch.occurred_at <= at
        ]
        renewals = [
            order
            for time, order in self.counted(program, at)
            if at - section.window < time and self.is_renewal(order)
        ]
        first = self.first_at()
        years = 0 if first is None or at < first else (at - first) // (365 * DAY)
        return (
            sum(_points(section.points, touch) for touch in inbound)
            + section.breadth * len({touch.channel for touch in inbound})
            + section.renewal * len(renewals)
            + section.tenure * min(years, section.tenure_years)
        )

    def value(self, program: Program, at: int) -> int:
        """The sum of the scores f and m as of an instant."""
        counted = self.counted(program, at)
        if not counted:
            return 0
        monetary = sum(order.net for _, order in counted)
        cuts = program.scores
        return (
            2
            + sum(len(counted) >= cut for cut in cuts.frequency)
            + sum(monetary >= cut for cut in cuts.monetary)
        )

    # Segments

    def segment(self, program: Program, at: int) -> str | None:
        """The first segment all of whose tests hold; None where the program has no segments."""
        assert program.bonds is not None
        for segment in program.bonds.segments:
            if self._fits(program, segment, at):
                return segment.name
        return None

    def _fits(self, program: Program, segment: Segment, at: int) -> bool:
        lifetime = len(self.lifetime_orders())
        tests = [
            self.value(program, at) >= segment.min_value,
            self.attachment(program, at) >= segment.min_attachment,
            lifetime >= segment.min_orders,
            segment.max_orders is None or lifetime <= segment.max_orders,
        ]
        counted = [time for time, _ in self.counted(program, at)]
        if segment.min_silence is not None:
            tests.append(lifetime > 0 and not any(at - time < segment.min_silence for time in counted))
        if segment.min_gaps is not None:
            usual = usual_gap(counted)
            tests.append(usual is not None and (at - counted[-1]) * 1000 > segment.min_gaps * usual)
        if segment.subscription is not None:
            states = [self.state(program, subscription, at) for subscription in self._kept]
            tests.append(segment.subscription in states)
        return all(tests)

    # Attribution

    def in_store(self, section: Attribution | None, event: PurchaseMade | TouchpointMade) -> bool:
        """Whether it happened on an offline channel or names a store."""
        offline = ("store",) if section is None else section.offline
        return event.channel in offline or event.store_id is not None

    def conversions(self, section: Attribution) -> list[Converted]:
        """All orders and visits with their touches, in the order in which they are told."""
        all_of_them = [Converted(order.first, order) for order in self.orders if order.purchases]
        all_of_them += [
            Converted(touch, None)
            for touch in self.touches
            if touch.direction == "inbound"
            and touch.action in section.visits
            and self.in_store(section, touch)
        ]
        for conversion in all_of_them:
            self._attribute(section, conversion)
        return sorted(all_of_them, key=lambda conversion: conversion.rank)

    def _attribute(self, section: Attribution, conversion: Converted) -> None:
        event, order = conversion.event, conversion.order
        if order is not None and not (order.counts and self.in_store(section, event)):
            return
        before = [
            touch
            for touch in self.touches
            if touch.channel in section.online
            and touch is not event
            and touch.occurred_at <= event.occurred_at
        ]
        campaign = [
            touch
            for touch in before
            if event.campaign_id is not None
            and touch.campaign_id == event.campaign_id
            and touch.occurred_at > event.occurred_at - section.campaign_window
        ]
        window = [touch for touch in before if touch.occurred_at > event.occurred_at - section.window]
        if campaign:
            conversion.touch, conversion.match = max(campaign, key=_rank), "campaign"
        elif window:
            conversion.touch, conversion.match = max(window, key=_rank), "window"


def usual_gap(counted: list[int]) -> int | None:
    """The lower median of the gaps between the newest six of instants in order; None where there is no gap."""
    gaps = sorted(after - before for before, after in pairwise(counted[-6:]))
    return gaps[(len(gaps) - 1) // 2] if gaps else None


def _points(points: tuple[Points, ...], touch: TouchpointMade) -> int:
    for row in points:
        if row.channel in (None, touch.channel) and row.action in (None, touch.action):
            return row.points
    return 0


def _rank(touch: TouchpointMade) -> tuple[int, int]:
    return touch.occurred_at, event_key(touch.source, touch.event_id)
