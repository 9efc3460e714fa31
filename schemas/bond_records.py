"""What is told of a customer's bond: the records of ``segment-changes``, ``nurturing-triggers`` and ``attributions``.

What they mean: docs/bonds.md. Times are RFC 3339 with milliseconds, in UTC.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.tier_change import ProgramRef

SegmentReason = Literal["purchase", "refund", "touchpoint", "override", "time", "program_change"]
TriggerStatus = Literal["sent", "suppressed", "held_out", "reserved"]
AttributionStatus = Literal["attributed", "withdrawn"]
ConversionKind = Literal["purchase", "visit"]
Match = Literal["campaign", "window"]

_Time = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        extra_json_schema={"format": "date-time"},
    ),
]


class SegmentEvent(msgspec.Struct, kw_only=True):
    """A customer's segment changed. ``previous_segment`` is null for the first; both causes where time brought it."""

    event_id: str
    customer_id: str
    segment_seq: int
    previous_segment: str | None
    segment: str
    reason: SegmentReason
    cause_source: str | None
    cause_event_id: str | None
    effective_at: _Time
    program: ProgramRef
    value: int
    attachment: int
    tier: str


class HoldoutDraw(msgspec.Struct, frozen=True):
    """Whether a customer is held out: of everything, of this scenario; and by which salt it was drawn."""

    overall: bool
    scenario: bool
    salt: str
    version: int


class TriggerEvent(msgspec.Struct, kw_only=True):
    """A step of a scenario's run, or (``reserved``, without a scenario) a place that somebody reserved.

    ``reason`` says why it was suppressed or held out. ``expires_at`` is when its place is free again unless its
    touchpoint came; there for ``sent`` and ``reserved`` where there is a contact policy. ``step`` counts from 1.
    ``steps`` is how many the scenario has: with the last the run is over.
    """

    event_id: str
    customer_id: str
    scenario: str | None
    run: int
    step: int
    steps: int
    status: TriggerStatus
    reason: str | None
    channel: str
    content: str | None
    effective_at: _Time
    run_started_at: _Time | None
    expires_at: _Time | None
    holdout: HoldoutDraw | None
    segment: str | None
    tier: str
    program: ProgramRef


class Touched(msgspec.Struct, frozen=True):
    """The touch to which a conversion is attributed."""

    event_id: str
    source: str
    channel: str
    direction: Literal["inbound", "outbound"]
    action: str | None
    campaign_id: str | None
    occurred_at: _Time


class Conversion(msgspec.Struct, frozen=True):
    """An order, by ``order_id``, or a visit, by the id of its touchpoint."""

    kind: ConversionKind
    order_id: str | None
    event_id: str | None
    source: str | None
    occurred_at: _Time
    channel: str | None
    store_id: str | None
    campaign_id: str | None


class AttributionEvent(msgspec.Struct, kw_only=True):
    """Which online touch brought the customer to which store, how long after, and for which amount.

    ``revision`` counts what was told of this conversion, from 1. ``amount`` is the order's net, null for a visit,
    zero where it is withdrawn; ``lag_seconds`` are whole seconds, cut.
    """

    event_id: str
    customer_id: str
    attribution_seq: int
    revision: int
    status: AttributionStatus
    conversion: Conversion
    touch: Touched | None
    match: Match | None
    lag_seconds: int | None
    amount: str | None
    currency: str
    effective_at: _Time
    program: ProgramRef


BondEvent = SegmentEvent | TriggerEvent | AttributionEvent

EVENT_TYPES: dict[type, str] = {
    SegmentEvent: "loyalty.segment.changed.v1",
    TriggerEvent: "loyalty.nurturing.triggered.v1",
    AttributionEvent: "loyalty.attribution.changed.v1",
}


def segment_event_id(program_id: str, customer_id: str, segment_seq: int) -> str:
    """Unambiguous, also beside those of tier changes: a program's id holds neither colon nor slash."""
    return f"{program_id}:segment/{customer_id}/{segment_seq}"


def trigger_id(program_id: str, customer_id: str, scenario: str, run: int, step: int) -> str:
    """The id of a step: a scenario's name holds no slash."""
    return f"{program_id}:trigger/{customer_id}/{scenario}/{run}/{step}"


def reservation_id(program_id: str, customer_id: str, number: int) -> str:
    """The id of a reserved place."""
    return f"{program_id}:reserved/{customer_id}/{number}"


def attribution_id(program_id: str, customer_id: str, attribution_seq: int) -> str:
    """The id of what is told of an attribution."""
    return f"{program_id}:attribution/{customer_id}/{attribution_seq}"


_encoder = msgspec.json.Encoder()
_decoders: dict[type, msgspec.json.Decoder[BondEvent]] = {
    kind: msgspec.json.Decoder(kind) for kind in EVENT_TYPES
}


def encode(event: BondEvent) -> bytes:
    """The record's value: compact JSON in UTF-8, the same bytes for the same event."""
    return _encoder.encode(event)


def decode(kind: type[BondEvent], value: bytes) -> BondEvent:
    """The event of a record's value, unknown fields ignored. Raises ``ValueError`` for anything else."""
    try:
        return _decoders[kind].decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a {EVENT_TYPES[kind]}: {error}") from error


def headers(event: BondEvent) -> list[tuple[str, bytes]]:
    """The record's headers. Source: CloudEvents 1.0.2, Kafka protocol binding, section 3.2."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_type", EVENT_TYPES[type(event)].encode()),
        ("ce_source", f"/loyalty/{event.program.id}".encode()),
        ("ce_id", event.event_id.encode()),
        ("ce_subject", event.customer_id.encode()),
        ("ce_time", event.effective_at.encode()),
        ("content-type", b"application/json"),
    ]
