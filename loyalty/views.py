"""What the fold tells: a tier change, and a customer as of an instant. Values only; text is made at the
edge."""

from __future__ import annotations

from typing import Any

import msgspec

from loyalty.bond import BondChange
from schemas.money import format_minor
from schemas.program import Program
from schemas.tier_change import (
    ChangeReason,
    ContactCounts,
    Direction,
    Kind,
    Needed,
    ProgramRef,
    Rfm,
    TierEvent,
    tier_event_id,
)
from schemas.times import format_ms

Readable = tuple[tuple[str, ...], list[str]]
"""The small hash of a customer: its fields, the same tuple for all customers of a fold, and their values."""


class Beneath(msgspec.Struct, frozen=True):
    """What stands beneath the tier that is shown: the earned tier by name, the end of its grace, and the
    protection as ``(tier, until, reason)``."""

    earned: str
    grace: int | None
    protection: tuple[str, int, ChangeReason] | None


class Change(msgspec.Struct, frozen=True):
    """One record to publish. Instants and ``recency`` are in milliseconds, money in minor units.

    Recency, frequency, monetary and the scores are as of ``effective_at``; ``contacts`` and ``segment`` too, of what
    had been read (the latter absent where there are none). Both causes are None where time or a new program brought
    it. ``version`` is that of the program which decided. ``needed`` is what a tier at risk lacks: money, orders, and
    within how many milliseconds the newest order would have to lie. ``beneath`` is None where the record shows all of
    the standing.
    """

    customer_id: str
    tier_seq: int
    kind: Kind
    previous_tier: str
    tier: str
    direction: Direction | None
    reason: ChangeReason
    cause_source: str | None
    cause_event_id: str | None
    effective_at: int
    version: str
    recency: int | None
    frequency: int
    monetary: int
    r: int
    f: int
    m: int
    contacts: dict[str, ContactCounts]
    benefits: tuple[str, ...] | msgspec.UnsetType
    at_risk_until: int | None
    needed: tuple[int, int, int | None] | None
    beneath: Beneath | None
    segment: str | msgspec.UnsetType | None = msgspec.UNSET


Decision = Change | BondChange
"""What an event or time brings, to be published in the order in which it was decided."""


class CustomerView(msgspec.Struct, frozen=True):
    """A customer as of ``as_of``. Times are epoch milliseconds, money is minor units; see the contract, 8."""

    customer_id: str
    as_of: int
    tier: str
    tier_seq: int
    frequency: int
    monetary: int
    last_purchase_at: int | None
    r: int
    f: int
    m: int
    lifetime_orders: int
    lifetime_monetary: int
    contacts: dict[str, ContactCounts]
    has_segments: bool = False
    segment: str | None = None
    attachment: int = 0


def change_body(program: Program, change: Change) -> TierEvent:
    """The wire's body of a change."""
    return TierEvent(
        event_id=tier_event_id(program.id, change.customer_id, change.tier_seq),
        customer_id=change.customer_id,
        tier_seq=change.tier_seq,
        previous_tier=change.previous_tier,
        tier=change.tier,
        direction=msgspec.UNSET if change.direction is None else change.direction,
        reason=change.reason,
        cause_source=change.cause_source,
        cause_event_id=change.cause_event_id,
        effective_at=format_ms(change.effective_at),
        program=ProgramRef(program.id, change.version),
        rfm=Rfm(
            recency_seconds=None if change.recency is None else change.recency // 1000,
            frequency=change.frequency,
            monetary=format_minor(change.monetary, program.decimals),
            currency=program.currency,
            r=change.r,
            f=change.f,
            m=change.m,
        ),
        contacts=change.contacts,
        benefits=change.benefits,
        at_risk_until=msgspec.UNSET if change.at_risk_until is None else format_ms(change.at_risk_until),
        needed=msgspec.UNSET if change.needed is None else needed(program, change.needed),
        segment=change.segment,
    )


def needed(program: Program, missing: tuple[int, int, int | None]) -> Needed:
    """What thresholds lack, as the wire says it."""
    monetary, frequency, recency = missing
    return Needed(
        format_minor(monetary, program.decimals), frequency, None if recency is None else recency // 1000
    )


def dump_line(program: Program, view: CustomerView) -> dict[str, Any]:
    """A line of ``state dump --json``, its fields in the contract's order; then those of segments, if there are any."""
    last = view.last_purchase_at
    line: dict[str, Any] = {
        "customer_id": view.customer_id,
        "as_of": format_ms(view.as_of),
        "tier": view.tier,
        "tier_seq": view.tier_seq,
        "frequency": view.frequency,
        "monetary": format_minor(view.monetary, program.decimals),
        "last_purchase_at": None if last is None else format_ms(last),
        "r": view.r,
        "f": view.f,
        "m": view.m,
        "lifetime_orders": view.lifetime_orders,
        "lifetime_monetary": format_minor(view.lifetime_monetary, program.decimals),
        "contacts": {
            channel: {"inbound": counts.inbound, "outbound": counts.outbound}
            for channel, counts in view.contacts.items()
        },
    }
    if view.has_segments:
        line |= {"segment": view.segment, "attachment": view.attachment}
    return line
