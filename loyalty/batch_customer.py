"""One customer of the batch computation: orders, standing and changes, from the definitions.

Naive on purpose, see ``loyalty.batch``. A customer that was there before a change of program has two
programs: the one it is on, and the one that awaits it.
"""

from __future__ import annotations

from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from loyalty.batch_bond import BatchBond
from loyalty.batch_contact import BatchPermission
from loyalty.batch_facts import BatchOrder
from loyalty.batch_layers import Metrics, Override, Protection
from loyalty.batch_scenarios import Stand
from schemas.events import OverrideCommanded, PurchaseMade, RefundMade, TouchpointMade
from schemas.money import format_minor
from schemas.program import Program, Tier
from schemas.tier_change import (
    ChangeReason,
    ContactCounts,
    Direction,
    Needed,
    ProgramRef,
    Rfm,
    TierEvent,
    tier_event_id,
)
from schemas.times import format_ms
from schemas.zones import time_zone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Event = PurchaseMade | RefundMade | TouchpointMade | OverrideCommanded


class BatchCustomer:
    """One customer: ``changes`` in order, and the state that they led to.

    ``earned`` and ``grace`` (its end), ``override`` and ``protection`` are the layers, ``tier`` and
    ``at_risk`` (until when) what is shown of them. ``awaits`` is the next program, and the instant from which
    on it holds, as long as the customer is not on it.
    """

    def __init__(self, program: Program, customer_id: str) -> None:
        self.program = program
        self.awaits: tuple[Program, int] | None = None
        self.customer_id = customer_id
        self.time: int | None = None
        self.earned = 0
        self.grace: int | None = None
        self.override: Override | None = None
        self.protection: Protection | None = None
        self.tier = 0
        self.at_risk: int | None = None
        self.tier_seq = 0
        self.changes: list[TierEvent] = []
        self.bond = BatchBond(customer_id)
        self._orders = self.bond.facts.orders
        self._ids: dict[tuple[str, str, str], int] = {}
        self._channels: list[str] = []
        self._touches: list[tuple[int, str, str]] = []

    def is_duplicate(self, topic: str, event: Event, horizon: int | None) -> bool:
        """Whether the event's id is known in its topic; ids before the horizon are forgotten. Notes it if
        not."""
        key = (topic, event.source, event.event_id)
        known = self._ids.get(key)
        if known is not None and (horizon is None or known >= horizon):
            return True
        self._ids[key] = event.occurred_at
        return False

    def on_touchpoint(self, event: TouchpointMade) -> None:
        """Let fall due what does of the bond before the touchpoint, count it, and evaluate the bond once."""
        channel = event.channel
        if channel not in self._channels:
            if len(self._channels) < 32:
                self._channels.append(channel)
            else:
                channel = "other"
        self._touches.append((event.occurred_at, channel, event.direction))
        self._fire(before=event.occurred_at, tiers=False)
        self.bond.facts.touched(event, channel)
        self.bond.evaluate(self._stand(), event.occurred_at, "touchpoint", event)

    def on_purchase_or_refund(self, event: PurchaseMade | RefundMade, horizon: int) -> None:
        """Let fall due what does before the event, apply it, and evaluate once."""
        time = self._reach(event.occurred_at)
        before = self.metrics(time)
        order = self._order_of(event.order_id, horizon)
        if isinstance(event, PurchaseMade):
            if not order.purchases:
                order.refunds = [refund for refund in order.refunds if refund.occurred_at >= horizon]
            order.purchases.append(event)
            self.bond.facts.bought(event)
        else:
            order.refunds.append(event)
        order.sum_up()
        if isinstance(event, PurchaseMade):
            self._evaluate(time, raises=True)
            self._show(time, "purchase", event)
            self.bond.evaluate(self._stand(), time, "purchase", event)
        else:
            after = self.metrics(time)
            lowered = after.monetary < before.monetary or after.frequency < before.frequency
            self._evaluate(time, lowered=lowered)
            self._show(time, "refund", event)
            self.bond.evaluate(self._stand(), time, "refund", event)

    def on_command(self, event: OverrideCommanded) -> None:
        """Let fall due what does before the command, let it hold unless it is older, and evaluate once."""
        if self.awaits is not None and event.mode != "clear" and event.tier not in _names(self.program):
            self.move()  # only the program that is awaited knows the tier
        time = self._reach(event.occurred_at)
        if self.override is None or event.occurred_at >= self.override.occurred_at:
            self.override = Override(event.occurred_at, event.mode, event.tier, event.until)
            self._evaluate(time)
            self._show(time, "override", event)
        self.bond.evaluate(self._stand(), time, "override", event)

    def change_program(self, program: Program, at: int) -> None:
        """Let another program hold from an instant on. Who awaits one already is moved to that first."""
        self.move()
        self.awaits = program, at

    def move(self) -> None:
        """Move to the program that is awaited, whatever the clock: the later of its instant and the
        customer's time is when. What falls due before that comes first."""
        if self.awaits is None:
            return
        self._fire(before=self.awaits[1])
        (program, time), old = self.awaits, self.program
        self.program, self.awaits = program, None
        if self.time is None:
            self.bond.evaluate(self._stand(), time, "program_change", None, new=False)
            return
        self.time = time = max(self.time, time)
        shown = old.tiers[self.tier], self.tier, self.at_risk
        names, name = _names(program), old.tiers[self.earned].name
        self.earned = names.index(name) if name in names else self._enters(time)
        if self.override is not None and self.override.tier not in names:
            self.override = self.override._replace(mode="clear")
        if self.protection is not None and self.protection.tier not in names[1:]:
            self.protection = None
        if program.protect_until is not None and program.protect_until > time:
            tier, until = names.index(name) if name in names else 0, program.protect_until
            if self.protection is not None and time < self.protection.until:
                tier = max(tier, names.index(self.protection.tier))
                until = max(until, self.protection.until)
            if tier:
                self.protection = Protection(names[tier], until, "program_change")
        self._evaluate(time, raises=True)
        self._show(time, "program_change", None, moved_from=shown)
        self.bond.evaluate(self._stand(), time, "program_change", None, new=False)

    def let_fall(self, before: int) -> None:
        """Everything that time brings strictly before an instant, a change of program among it."""
        if self.awaits is not None:
            at = self.awaits[1]
            self._fire(min(before, at))
            if before <= at:
                return
            self.move()
        self._fire(before)

    def next_due(self) -> int | None:
        """The first instant, of all at which anything could happen, at which time changes something."""
        due = [self._next_fired(), self.bond.next_due(self._stand())]
        if self.awaits is not None and self.time is not None:
            due.append(max(self.awaits[1], self.time))
        elif self.awaits is not None and self.awaits[0].bonds is not None:
            due.append(max(self.awaits[1], self.bond.time or 0))
        return min((at for at in due if at is not None), default=None)

    def permission(self, channel: str, action: str | None, at: int) -> BatchPermission:
        """Whether the customer may be contacted at an instant, by the program that holds then. The customer is left as
        it is."""
        then = self
        if self.awaits is not None and at >= self.awaits[1]:
            then = copy(self)
            then.changes, then.bond = [], self.bond.copy()
            then.move()
        return then.bond.permission(then.program, channel, action, at)

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
        then = copy(self)
        then.changes, then.bond = [], self.bond.copy()
        then.let_fall(before=at + 1)
        return then._line(at)

    def _line(self, at: int) -> dict[str, Any]:
        program, metrics, bonds = self.program, self.metrics(at), self.program.bonds
        last = metrics.last_purchase_at
        r, f, m = self._scores(metrics)
        return {
            "customer_id": self.customer_id,
            "as_of": format_ms(at),
            "tier": program.tiers[self.tier].name,
            "tier_seq": self.tier_seq,
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
            **(
                {}
                if bonds is None or not bonds.segments
                else {
                    "segment": None if self.bond.time is None else self.bond.segment_at(program, at),
                    "attachment": self.bond.facts.attachment(program, at),
                }
            ),
        }

    def _order_of(self, order_id: str, horizon: int) -> BatchOrder:
        """The order of that id, unless it is from before the horizon: then a new one."""
        for order in self._orders:
            if order.order_id == order_id and (order.time is None or order.time >= horizon):
                return order
        order = BatchOrder(order_id)
        self._orders.append(order)
        return order

    def _reach(self, at: int) -> int:
        """Let fall due what does strictly before an event, and set the customer's time to the later of
        both."""
        if self.awaits is not None and max(at, at if self.time is None else self.time) >= self.awaits[1]:
            self.move()
        self._fire(before=at)
        self.time = at if self.time is None else max(self.time, at)
        return self.time

    def _fire(self, before: int, *, tiers: bool = True) -> None:
        """What time alone changes strictly before an instant, by the program that the customer is on: of tiers, if
        they are to move, and of the bond, instant by instant."""
        while True:
            tier = self._next_fired(before) if tiers else None
            bond = self.bond.next_due(self._stand(), before)
            if tier is not None and (bond is None or tier <= bond):
                reason = self._reason(tier)
                self.time = tier
                self._evaluate(tier)
                self._show(tier, reason, None)
                self.bond.evaluate(self._stand(), tier, "time", None)
            elif bond is not None:
                self.bond.evaluate(self._stand(), bond, "time", None)
            else:
                return

    def _stand(self) -> Stand:
        return Stand(self.program, self.tier, self.at_risk)

    def _next_fired(self, before: int | None = None) -> int | None:
        """The first instant, before one where given, at which time alone changes the tier."""
        asked = (at for at in self._candidates() if before is None or at < before)
        return next((at for at in asked if self._is_due(at)), None)

    def _candidates(self) -> list[int]:
        """Every instant after the customer's time at which time alone could change something: where an order
        leaves the window, where the recency of an order reaches a limit, and every end of something."""
        time = self.time
        if time is None:
            return []
        limits = {self.program.window} | {
            t.max_recency for t in self.program.tiers if t.max_recency is not None
        }
        instants = {o.time + limit for limit in limits for o in self._orders if o.time is not None}
        instants |= {end for end in (self.grace, self._override_end(), self._protection_end()) if end}
        return sorted(instant for instant in instants if instant > time)

    def _is_due(self, at: int) -> bool:
        stops = self.grace is None and not self._retains(at)
        return stops or at in (self.grace, self._override_end(), self._protection_end())

    def _override_end(self) -> int | None:
        """The end of an override that holds something at the customer's time."""
        held = self.override
        return None if held is None or held.mode == "clear" else held.until

    def _protection_end(self) -> int | None:
        return None if self.protection is None else self.protection.until

    def _reason(self, at: int) -> ChangeReason:
        """Why something changes at an instant that time alone brings."""
        if at == self._override_end():
            return "override"
        if self.protection is not None and at == self.protection.until:
            return self.protection.reason
        leaving = any(o.counts and o.time == at - self.program.window for o in self._orders)
        return "window_expiry" if leaving else "inactivity"

    def _evaluate(self, at: int, *, raises: bool = False, lowered: bool = False) -> None:
        """The earned tier at an instant, by the first rule that fits."""
        tier = self.program.tiers[self.earned]
        if raises and self._enters(at) > self.earned:
            self.earned, self.grace = self._enters(at), None
        elif self._retains(at):
            self.grace = None
        elif lowered and tier.refund_policy == "reverse":
            self._fall(at)
        elif self.grace is not None:
            if at >= self.grace:
                self._fall(at)
        elif tier.grace_period:
            self.grace = at + tier.grace_period
        else:
            self._fall(at)

    def _fall(self, at: int) -> None:
        """The earned tier falls, in its own way."""
        downgrade, self.grace = self.program.tiers[self.earned].downgrade, None
        if downgrade == "base":
            self.earned = 0
        elif downgrade == "requalify":
            self.earned = self._enters(at)
        else:
            self.earned -= 1
            if not self._retains(at):
                self.grace = at + (self.program.tiers[self.earned].grace_period or self.program.window)

    def _enters(self, at: int) -> int:
        """The highest tier that can be entered."""
        metrics = self.metrics(at)
        return max(
            index
            for index, tier in enumerate(self.program.tiers)
            if index == 0
            or (
                metrics.monetary >= tier.min_monetary
                and metrics.frequency >= tier.min_frequency
                and _is_recent(tier, metrics)
            )
        )

    def _retains(self, at: int) -> bool:
        """Whether the earned tier's thresholds to stay hold."""
        tier, metrics = self.program.tiers[self.earned], self.metrics(at)
        monetary, frequency = tier.stays_at
        return self.earned == 0 or (
            metrics.monetary >= monetary and metrics.frequency >= frequency and _is_recent(tier, metrics)
        )

    def _shown(self, at: int) -> tuple[int, int | None]:
        """The tier that is shown, and until when it is at risk."""
        names = _names(self.program)
        floors = []
        held = self.override
        if held is not None and held.mode != "clear" and at < held.until:
            if held.mode == "pin":
                return names.index(held.tier), None
            floors.append(names.index(held.tier))
        if self.protection is not None and at < self.protection.until:
            floors.append(names.index(self.protection.tier))
        if floors and max(floors) >= self.earned:
            return max(floors), None
        return self.earned, self.grace

    def _show(
        self,
        at: int,
        reason: ChangeReason,
        cause: Event | None,
        moved_from: tuple[Tier, int, int | None] | None = None,
    ) -> None:
        """Compare what is shown with what was, and publish the difference."""
        program = self.program
        before, rank, was_at_risk = moved_from or (program.tiers[self.tier], self.tier, self.at_risk)
        self.tier, self.at_risk = self._shown(at)
        tier = program.tiers[self.tier]
        if program.publish_from is not None and at < program.publish_from:
            return
        if tier.name != before.name:
            # A tier that is gone: its place in the ladder before is compared, and the same place is no fall.
            names = _names(program)
            rank = names.index(before.name) if before.name in names else rank - 1
            direction: Direction = "upgrade" if self.tier > rank else "downgrade"
            self._publish(at, reason, cause, before.name, direction)
            if self.at_risk is not None:
                self._publish(at, reason, cause, tier.name)
        elif self.at_risk != was_at_risk or (
            moved_from and self.tier_seq and tier.benefits != before.benefits
        ):
            self._publish(at, reason, cause, tier.name)

    def _publish(
        self,
        at: int,
        reason: ChangeReason,
        cause: Event | None,
        previous: str,
        direction: Direction | msgspec.UnsetType = msgspec.UNSET,
    ) -> None:
        """The next change: with a direction one of the tier, without one that it is at risk, or retained."""
        program, tier = self.program, self.program.tiers[self.tier]
        self.tier_seq += 1
        metrics = self.metrics(at)
        r, f, m = self._scores(metrics)
        body = TierEvent(
            event_id=tier_event_id(program.id, self.customer_id, self.tier_seq),
            customer_id=self.customer_id,
            tier_seq=self.tier_seq,
            previous_tier=previous,
            tier=tier.name,
            direction=direction,
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
            benefits=tier.benefits if any(t.benefits for t in program.tiers) else msgspec.UNSET,
        )
        if program.bonds is not None and program.bonds.segments:
            body.segment = self.bond.segment_at(program, at)
        if direction is msgspec.UNSET and self.at_risk is not None:
            body.at_risk_until = format_ms(self.at_risk)
            body.needed = self._needed(metrics)
        self.changes.append(body)

    def _needed(self, metrics: Metrics) -> Needed:
        """What the earned tier lacks of its thresholds to stay."""
        tier = self.program.tiers[self.earned]
        monetary, frequency = tier.stays_at
        limit = None if _is_recent(tier, metrics) else tier.max_recency
        return Needed(
            monetary=format_minor(max(0, monetary - metrics.monetary), self.program.decimals),
            frequency=max(0, frequency - metrics.frequency),
            recency_seconds=None if limit is None else limit // 1000,
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


def _names(program: Program) -> list[str]:
    return [tier.name for tier in program.tiers]


def _is_recent(tier: Tier, metrics: Metrics) -> bool:
    return tier.max_recency is None or (metrics.recency is not None and metrics.recency < tier.max_recency)
