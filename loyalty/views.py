"""What the fold tells: a tier change, and a customer as of an instant. Values only; text is made at the
edge."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.money import format_minor
from schemas.program import Program
from schemas.tier_change import (
    ChangeReason,
    ContactCounts,
    Direction,
    ProgramRef,
    Rfm,
    TierChanged,
    tier_event_id,
)
from schemas.times import format_ms


class Change(msgspec.Struct, frozen=True):
    """A published tier change. ``effective_at`` and ``recency`` are in milliseconds, money in minor units.

    Recency, frequency, monetary and the scores are as of ``effective_at``; ``contacts`` too, of what had been
    read. Both causes are None where time brought the change.
    """

    customer_id: str
    tier_seq: int
    previous_tier: str
    tier: str
    direction: Direction
    reason: ChangeReason
    cause_source: str | None
    cause_event_id: str | None
    effective_at: int
    recency: int | None
    frequency: int
    monetary: int
    r: int
    f: int
    m: int
    contacts: dict[str, ContactCounts]


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


def change_body(program: Program, change: Change) -> TierChanged:
    """The wire's body of a change."""
    return TierChanged(
        event_id=tier_event_id(program.id, change.customer_id, change.tier_seq),
        customer_id=change.customer_id,
        tier_seq=change.tier_seq,
        previous_tier=change.previous_tier,
        tier=change.tier,
        direction=change.direction,
        reason=change.reason,
        cause_source=change.cause_source,
        cause_event_id=change.cause_event_id,
        effective_at=format_ms(change.effective_at),
        program=ProgramRef(program.id, program.version),
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
    )


def dump_line(program: Program, view: CustomerView) -> dict[str, Any]:
    """A line of ``state dump --json``, its fields in the contract's order."""
    last = view.last_purchase_at
    return {
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
