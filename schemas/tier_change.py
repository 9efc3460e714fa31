"""What is told of a customer's tier: the records of ``tier-changes`` and ``customer-tiers``, body and headers.

Three kinds share one body and one sequence: the tier changed, it is at risk, it is retained.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Kind = Literal["changed", "at-risk", "retained"]
EVENT_TYPES: dict[Kind, str] = {
    "changed": "loyalty.tier.changed.v1",
    "at-risk": "loyalty.tier.at-risk.v1",
    "retained": "loyalty.tier.retained.v1",
}

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


class Needed(msgspec.Struct, frozen=True):
    """What the tier at risk lacks of its thresholds to be retained, as of ``effective_at``."""

    monetary: Annotated[
        str,
        Meta(
            pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?$",
            description="The amount that is missing, with exactly the currency's decimals; zero where none is.",
        ),
    ]
    frequency: Annotated[Count, Meta(description="How many orders are missing.")]
    recency_seconds: Annotated[
        int | None,
        Meta(description="Where the newest order is too old: an order is needed that is newer than this."),
    ]


class TierEvent(msgspec.Struct, kw_only=True):
    """One record, its fields in the order in which they are written. Times are RFC 3339.

    ``benefits`` is there where the program names any, so that the bodies of one that does not stay as they were.
    ``direction`` is there where the tier changed, ``at_risk_until`` and ``needed`` where it is at risk. In the
    other two kinds ``previous_tier`` is the tier.
    """

    event_id: Annotated[
        str, Meta(description="<program id>/<customer_id>/<tier_seq>: one id, one body, for ever.")
    ]
    customer_id: str
    tier_seq: Annotated[int, Meta(ge=1, description="1, 2, 3, … for each customer, without holes.")]
    previous_tier: str
    tier: str
    direction: Direction | msgspec.UnsetType = msgspec.UNSET
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
    benefits: Annotated[
        tuple[str, ...] | msgspec.UnsetType,
        Meta(description="What the program gives with the tier; absent where it names no benefits at all."),
    ] = msgspec.UNSET
    at_risk_until: Annotated[
        str | msgspec.UnsetType,
        Meta(
            description="The tier is kept until, not including, this instant, unless it is retained before."
        ),
    ] = msgspec.UNSET
    needed: Needed | msgspec.UnsetType = msgspec.UNSET
    segment: Annotated[
        str | msgspec.UnsetType | None,
        Meta(
            description="The customer's segment as of effective_at, by what had been read: no part of any promise of "
            "equality. Absent where the program has no segments."
        ),
    ] = msgspec.UNSET

    @property
    def kind(self) -> Kind:
        """Which of the three it is."""
        if self.direction is not msgspec.UNSET:
            return "changed"
        return "retained" if self.at_risk_until is msgspec.UNSET else "at-risk"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(TierEvent)


def tier_event_id(program_id: str, customer_id: str, tier_seq: int) -> str:
    """The id of a customer's change number ``tier_seq``: unambiguous, as a program's id holds no slash."""
    return f"{program_id}/{customer_id}/{tier_seq}"


def encode(change: TierEvent) -> bytes:
    """The record's value: compact JSON in UTF-8, the same bytes for the same change."""
    return _encoder.encode(change)


def decode(value: bytes) -> TierEvent:
    """The change of a record's value, unknown fields ignored. Raises ``ValueError`` for anything else."""
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a tier change: {error}") from error


def headers(change: TierEvent) -> list[tuple[str, bytes]]:
    """The record's headers. Source: CloudEvents 1.0.2, Kafka protocol binding, section 3.2."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", EVENT_TYPES[change.kind].encode()),
        ("ce_source", f"/loyalty/{change.program.id}".encode()),
        ("ce_id", change.event_id.encode()),
        ("ce_subject", change.customer_id.encode()),
        ("ce_time", change.effective_at.encode()),
        ("content-type", b"application/json"),
    ]
