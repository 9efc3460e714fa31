"""A customer's tier changed: the record of ``tier-changes`` and ``customer-tiers``, body and headers."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

EVENT_TYPE = "loyalty.tier.changed.v1"

Direction = Literal["upgrade", "downgrade"]
ChangeReason = Literal["purchase", "refund", "window_expiry", "inactivity", "override", "program_change"]
Score = Annotated[
    int, Meta(ge=0, le=5, description="1 to 5 by the program's cut points; 0 where no order counts.")
]
Count = Annotated[int, Meta(ge=0)]


class ProgramRef(msgspec.Struct, frozen=True):
    """By which program the change was decided."""

    id: str
    version: Annotated[str, Meta(description="A hash of the program's parsed content.")]


class Rfm(msgspec.Struct, frozen=True):
    """Recency, frequency and monetary as of ``effective_at``, with their scores."""

    recency_seconds: Annotated[
        int | None,
        Meta(description="Whole seconds, cut, since the newest counted order; null where none counts."),
    ]
    frequency: Annotated[Count, Meta(description="How many orders count in the window.")]
    monetary: Annotated[
        str,
        Meta(
            pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?$",
            description="Net sum of the counted orders, with exactly the currency's decimals.",
        ),
    ]
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", description="The program's currency, ISO 4217.")]
    r: Score
    f: Score
    m: Score


class ContactCounts(msgspec.Struct, frozen=True):
    """Touchpoints of one channel in the program's contact window."""

    inbound: Count
    outbound: Count


class TierChanged(msgspec.Struct):
    """One tier change, its fields in the order in which they are written. ``effective_at`` is RFC 3339."""

    event_id: Annotated[
        str, Meta(description="<program id>/<customer_id>/<tier_seq>: one id, one body, for ever.")
    ]
    customer_id: str
    tier_seq: Annotated[int, Meta(ge=1, description="1, 2, 3, … for each customer, without holes.")]
    previous_tier: str
    tier: str
    direction: Direction
    reason: Annotated[
        ChangeReason, Meta(description="What brought the change. Readers must expect further reasons.")
    ]
    cause_source: Annotated[
        str | None, Meta(description="The source of the event that caused it; null where time did.")
    ]
    cause_event_id: Annotated[
        str | None, Meta(description="The event_id of the event that caused it; null where time did.")
    ]
    effective_at: Annotated[
        str,
        Meta(
            pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
            description="The customer's time at the change: never decreases with tier_seq.",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    program: ProgramRef
    rfm: Rfm
    contacts: Annotated[
        dict[str, ContactCounts],
        Meta(description="By channel, what had been read by then: no part of any promise of equality."),
    ]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(TierChanged)


def tier_event_id(program_id: str, customer_id: str, tier_seq: int) -> str:
    """The id of a customer's change number ``tier_seq``: unambiguous, as a program's id holds no slash."""
    return f"{program_id}/{customer_id}/{tier_seq}"


def encode(change: TierChanged) -> bytes:
    """The record's value: compact JSON in UTF-8, the same bytes for the same change."""
    return _encoder.encode(change)


def decode(value: bytes) -> TierChanged:
    """The change of a record's value, unknown fields ignored. Raises ``ValueError`` for anything else."""
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a tier change: {error}") from error


def headers(change: TierChanged) -> list[tuple[str, bytes]]:
    """The record's headers. Source: CloudEvents 1.0.2, Kafka protocol binding, section 3.2."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", EVENT_TYPE.encode()),
        ("ce_source", f"/loyalty/{change.program.id}".encode()),
        ("ce_id", change.event_id.encode()),
        ("ce_subject", change.customer_id.encode()),
        ("ce_time", change.effective_at.encode()),
        ("content-type", b"application/json"),
    ]
