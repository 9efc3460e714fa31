"""Why a customer has its tier: what counts, which thresholds hold, what holds the tier by hand, what comes next.

Values only, found by the same rules that decide; nothing here decides anything.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Literal

import msgspec

from loyalty.customer import Customer
from loyalty.rules import Rules
from loyalty.tiers import Ladder
from loyalty.views import Change
from schemas.events import OverrideMode
from schemas.money import format_minor
from schemas.program import Tier
from schemas.tier_change import ChangeReason, Kind
from schemas.times import format_ms

Name = Literal["monetary", "frequency", "recency"]

# Instants at which time alone does something and publishes nothing are few: tiers, ends of holds. So this is never
# reached; it is a bound all the same.
_MOST_INSTANTS = 1_000


class CountedOrder(msgspec.Struct, frozen=True):
    """An order that counts, until it leaves the window. ``order_id`` is None where it is forgotten."""

    order_id: str | None
    time: int
    paid: int
    refunded: int
    net: int
    leaves_at: int


class Threshold(msgspec.Struct, frozen=True):
    """One threshold, in minor units, orders or milliseconds. ``has`` is None where no order counts.

    ``until`` is when it stops to hold, if nothing more arrives; None where it does not hold, or never stops.
    """

    name: Name
    needs: int
    has: int | None
    holds: bool
    until: int | None


class Asked(msgspec.Struct, frozen=True):
    """What a tier asks for, to be retained or to enter: only what it asks for at all."""

    tier: str
    thresholds: tuple[Threshold, ...]

    @property
    def failing(self) -> tuple[Name, ...]:
        """Those that do not hold."""
        return tuple(one.name for one in self.thresholds if not one.holds)

    @property
    def lost_first(self) -> tuple[tuple[Name, ...], int] | None:
        """Of thresholds that all hold: which time takes away first, and when; None where it never does."""
        ends = [one.until for one in self.thresholds if one.until is not None]
        if self.failing or not ends:
            return None
        first = min(ends)
        return tuple(one.name for one in self.thresholds if one.until == first), first


class Missing(msgspec.Struct, frozen=True):
    """What a tier's thresholds lack: money in minor units, orders, and the milliseconds within which the newest
    order would have to lie, None where it does."""

    tier: str
    monetary: int
    frequency: int
    recency: int | None


class HeldByHand(msgspec.Struct, frozen=True):
    """An override that holds."""

    mode: OverrideMode
    tier: str
    since: int
    until: int
    actor: str
    reason: str


class Protected(msgspec.Struct, frozen=True):
    """A protection that holds; ``reason`` is the one that its end will have."""

    tier: str
    until: int
    reason: ChangeReason


class Coming(msgspec.Struct, frozen=True):
    """A record that time alone will bring."""

    kind: Kind
    previous_tier: str
    tier: str
    at: int
    reason: ChangeReason
    at_risk_until: int | None


class Why(msgspec.Struct, frozen=True):
    """A customer's tier as of ``as_of``, explained. Times are epoch milliseconds, money is minor units.

    ``grace_until`` is the end of the earned tier's grace, also beneath a hold. ``enter`` and ``missing`` are of
    the tier above the earned one, None at the top; ``needed`` is what it takes to stay, None but in grace.
    ``next`` are the records that come next by time alone, all of one instant; empty where none ever will.
    """

    customer_id: str
    as_of: int
    program: str
    version: str
    currency: str
    decimals: int
    tier: str
    tier_seq: int
    earned: str
    at_risk_until: int | None
    grace_until: int | None
    override: HeldByHand | None
    protection: Protected | None
    orders: tuple[CountedOrder, ...]
    retain: Asked
    enter: Asked | None
    missing: Missing | None
    needed: Missing | None
    next: tuple[Coming, ...]

    @property
    def monetary(self) -> int:
        """What the counted orders come to."""
        return sum(order.net for order in self.orders)


def why(rules: Rules, customer: Customer, at: int) -> Why:
    """Explain a customer as of ``at``, were nothing more to arrive; what falls due at ``at`` is included.

    The customer given stays as it is. The rules are not to tell of who is moved. Raises ``ValueError`` where
    ``Rules.view`` does.
    """
    program, ladder, shown = rules.advanced(customer, at)
    orders = _orders(shown, program.window)
    earned, above = program.tiers[shown.earned], program.tiers[shown.earned + 1 : shown.earned + 2]
    return Why(
        customer_id=shown.customer_id,
        as_of=at,
        program=program.id,
        version=program.version,
        currency=program.currency,
        decimals=program.decimals,
        tier=ladder.names[shown.tier],
        tier_seq=shown.tier_seq,
        earned=earned.name,
        at_risk_until=shown.at_risk,
        grace_until=shown.grace,
        override=_override(shown, ladder, at),
        protection=_protection(shown, ladder, at),
        orders=orders,
        retain=_asked(earned, *earned.stays_at, orders, at),
        enter=_asked(above[0], above[0].min_monetary, above[0].min_frequency, orders, at) if above else None,
        missing=_missing(shown, ladder, at, shown.earned + 1, to_enter=True) if above else None,
        needed=None if shown.grace is None else _missing(shown, ladder, at, shown.earned, to_enter=False),
        next=_next(rules, shown),
    )


def _orders(shown: Customer, window: int) -> tuple[CountedOrder, ...]:
    return tuple(
        CountedOrder(
            order.order_id or None,
            time,
            order.paid,
            order.refunded,
            order.paid - order.refunded,
            time + window,
        )
        for time, order in zip(shown.times[shown.low :], shown.counted[shown.low :], strict=True)
    )


def _override(shown: Customer, ladder: Ladder, at: int) -> HeldByHand | None:
    held = shown.override
    if held is None or held.mode == "clear" or at >= held.until:
        return None
    return HeldByHand(held.mode, ladder.names[held.tier], held.at, held.until, held.actor, held.reason)


def _protection(shown: Customer, ladder: Ladder, at: int) -> Protected | None:
    held = shown.protection
    if held is None or at >= held.until:
        return None
    return Protected(ladder.names[held.tier], held.until, held.reason)


def _asked(tier: Tier, monetary: int, frequency: int, orders: tuple[CountedOrder, ...], at: int) -> Asked:
    thresholds: list[Threshold] = []
    if monetary:
        until = _spent_until(orders, monetary)
        has = sum(order.net for order in orders)
        thresholds.append(Threshold("monetary", monetary, has, has >= monetary, until))
    if frequency:
        holds = len(orders) >= frequency
        until = orders[-frequency].leaves_at if holds else None
        thresholds.append(Threshold("frequency", frequency, len(orders), holds, until))
    if tier.max_recency is not None:
        recency = at - orders[-1].time if orders else None
        holds = recency is not None and recency < tier.max_recency
        until = orders[-1].time + tier.max_recency if holds else None
        thresholds.append(Threshold("recency", tier.max_recency, recency, holds, until))
    return Asked(tier.name, tuple(thresholds))


def _spent_until(orders: tuple[CountedOrder, ...], least: int) -> int | None:
    """When the order leaves without which the others come to less; None where all of them do."""
    held = 0
    for order in reversed(orders):
        held += order.net
        if held >= least:
            return order.leaves_at
    return None


def _missing(shown: Customer, ladder: Ladder, at: int, tier: int, *, to_enter: bool) -> Missing:
    return Missing(ladder.names[tier], *ladder.missing(shown, at, tier, to_enter=to_enter))


def _next(rules: Rules, shown: Customer) -> tuple[Coming, ...]:
    """What the first instant brings at which something is published."""
    then = copy(shown)
    for _ in range(_MOST_INSTANTS):
        due = rules.next_due(then)
        if due is None:
            return ()
        if changes := rules.advance(then, due + 1):
            return tuple(_coming(change) for change in changes if isinstance(change, Change))
    return ()


def _coming(change: Change) -> Coming:
    return Coming(
        change.kind,
        change.previous_tier,
        change.tier,
        change.effective_at,
        change.reason,
        change.at_risk_until,
    )


def why_line(found: Why) -> dict[str, Any]:
    """The same for JSON: money as text, times in RFC 3339, recency in whole seconds, cut."""
    return {
        "customer_id": found.customer_id,
        "as_of": format_ms(found.as_of),
        "program": {"id": found.program, "version": found.version, "currency": found.currency},
        "tier": found.tier,
        "tier_seq": found.tier_seq,
        "earned": found.earned,
        "at_risk_until": _time(found.at_risk_until),
        "grace_until": _time(found.grace_until),
        "override": None if found.override is None else _hold_line(found.override),
        "protection": None if found.protection is None else _hold_line(found.protection),
        "frequency": len(found.orders),
        "monetary": format_minor(found.monetary, found.decimals),
        "orders": [_order_line(found, order) for order in found.orders],
        "thresholds": {
            "retain": _asked_line(found, found.retain) | {"lost_first": _lost_line(found.retain)},
            "enter": None
            if found.enter is None
            else _asked_line(found, found.enter) | {"decided_by": list(found.enter.failing)},
        },
        "missing": _missing_line(found, found.missing),
        "needed": _missing_line(found, found.needed),
        "next": [
            msgspec.to_builtins(one) | {"at": format_ms(one.at), "at_risk_until": _time(one.at_risk_until)}
            for one in found.next
        ]
        or None,
    }


def _time(at: int | None) -> str | None:
    return None if at is None else format_ms(at)


def _hold_line(held: HeldByHand | Protected) -> dict[str, Any]:
    line: dict[str, Any] = msgspec.to_builtins(held)
    return {name: format_ms(value) if name in {"since", "until"} else value for name, value in line.items()}


def _order_line(found: Why, order: CountedOrder) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "time": format_ms(order.time),
        **{name: format_minor(getattr(order, name), found.decimals) for name in ("paid", "refunded", "net")},
        "leaves_at": format_ms(order.leaves_at),
    }


def _asked_line(found: Why, asked: Asked) -> dict[str, Any]:
    def value(name: Name, amount: int | None) -> str | int | None:
        if amount is None:
            return None
        if name == "monetary":
            return format_minor(amount, found.decimals)
        return amount if name == "frequency" else amount // 1000

    return {
        "tier": asked.tier,
        "asks": [
            {
                "name": one.name,
                "needs": value(one.name, one.needs),
                "has": value(one.name, one.has),
                "holds": one.holds,
                "until": _time(one.until),
            }
            for one in asked.thresholds
        ],
    }


def _lost_line(asked: Asked) -> dict[str, Any] | None:
    if asked.lost_first is None:
        return None
    names, at = asked.lost_first
    return {"names": list(names), "at": format_ms(at)}


def _missing_line(found: Why, missing: Missing | None) -> dict[str, Any] | None:
    if missing is None:
        return None
    return {
        "tier": missing.tier,
        "monetary": format_minor(missing.monetary, found.decimals),
        "frequency": missing.frequency,
        "recency_seconds": None if missing.recency is None else missing.recency // 1000,
    }
