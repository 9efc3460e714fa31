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

_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"
_Time = Annotated[str, Meta(pattern=_TIME, extra_json_schema={"format": "date-time"})]
_EffectiveAt = Annotated[
    str,
    Meta(
        pattern=_TIME,
        description="The customer's bond time at the decision, which never goes back.",
        extra_json_schema={"format": "date-time"},
    ),
]
_Money = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?$")]
_Seconds = Annotated[int, Meta(ge=0)]
_CauseSource = Annotated[
    str | None,
    Meta(description="The source of the event that caused it; null where time or a new program did."),
]
_CauseId = Annotated[
    str | None,
    Meta(description="The event_id of the event that caused it; null where time or a new program did."),
]


class SegmentEvent(msgspec.Struct, kw_only=True):
    """A customer's segment changed. ``previous_segment`` is null for the first; both causes where time or another
    program brought it."""

    event_id: Annotated[
        str, Meta(description="<program id>:segment/<customer_id>/<segment_seq>: one id, one body.")
    ]
    customer_id: str
    segment_seq: Annotated[int, Meta(ge=1, description="1, 2, 3, … for each customer, without holes.")]
    previous_segment: Annotated[
        str | None, Meta(description="Null for the first, and after a program without any.")
    ]
    segment: Annotated[str, Meta(description="A name from the program.")]
    reason: Annotated[
        SegmentReason, Meta(description="What brought the change. Readers must expect further reasons.")
    ]
    cause_source: _CauseSource
    cause_event_id: _CauseId
    effective_at: _EffectiveAt
    program: ProgramRef
    value: Annotated[int, Meta(ge=0, le=10, description="The scores f and m, added, as of effective_at.")]
    attachment: Annotated[int, Meta(ge=0, description="In points, as of effective_at.")]
    tier: Annotated[str, Meta(description="The tier that is shown.")]


class HoldoutDraw(msgspec.Struct, frozen=True):
    """Whether a customer is held out: of everything, of this scenario; and by which salt it was drawn."""

    overall: Annotated[bool, Meta(description="Held out of all scenarios.")]
    scenario: Annotated[bool, Meta(description="Held out of this one, by its own share.")]
    salt: str
    version: Annotated[int, Meta(ge=1, description="The salt's, from the program.")]


class TriggerEvent(msgspec.Struct, kw_only=True):
    """A step of a scenario's run, or (``reserved``, without a scenario) a place that somebody reserved.

    ``reason`` says why it was suppressed or held out. ``expires_at`` is when its place is free again unless its
    touchpoint came; there for ``sent`` and ``reserved`` where there is a contact policy. ``step`` counts from 1.
    ``steps`` is how many the scenario has: with the last the run is over.
    """

    event_id: Annotated[
        str,
        Meta(
            description="<program id>:trigger/<customer_id>/<scenario>/<run>/<step>, or "
            "<program id>:reserved/<customer_id>/<number>: one id, one body. Comes back as trigger_id."
        ),
    ]
    customer_id: str
    scenario: Annotated[
        str | None, Meta(description="Its name from the program; null where a place was reserved.")
    ]
    run: Annotated[
        int, Meta(ge=0, description="Which run of the scenario for this customer, from 1; else 0.")
    ]
    step: Annotated[int, Meta(ge=0, description="Which step of the run, from 1; else 0.")]
    steps: Annotated[int, Meta(ge=0, description="How many the scenario has; with the last the run is over.")]
    status: Annotated[
        TriggerStatus, Meta(description="Only sent asks for a message. Readers must expect further ones.")
    ]
    reason: Annotated[str | None, Meta(description="For people: why it was suppressed or held out.")]
    channel: Annotated[str, Meta(description="By which way.")]
    content: Annotated[
        str | None, Meta(description="What to say, as the program names it; null for a reserved place.")
    ]
    effective_at: _EffectiveAt
    run_started_at: Annotated[_Time | None, Meta(description="Null where a place was reserved.")]
    expires_at: Annotated[
        _Time | None,
        Meta(
            description="When its place is free again, unless its touchpoint came; null where it takes none."
        ),
    ]
    holdout: Annotated[
        HoldoutDraw | None,
        Meta(
            description="How the customer was drawn; null by a program without [holdout], and for a reserved place."
        ),
    ]
    segment: Annotated[str | None, Meta(description="The customer's segment then.")]
    tier: Annotated[str, Meta(description="The tier that is shown.")]
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

    kind: Annotated[ConversionKind, Meta(description="Readers must expect further ones.")]
    order_id: Annotated[str | None, Meta(description="Null for a visit.")]
    event_id: Annotated[str | None, Meta(description="The visit's; null for a purchase.")]
    source: Annotated[str | None, Meta(description="The visit's; null for a purchase.")]
    occurred_at: _Time
    channel: str | None
    store_id: str | None
    campaign_id: str | None


class AttributionEvent(msgspec.Struct, kw_only=True):
    """Which online touch brought the customer to which store, how long after, and for which amount.

    ``revision`` counts what was told of this conversion, from 1. ``amount`` is the order's net, null for a visit,
    zero where it is withdrawn; ``lag_seconds`` are whole seconds, cut.
    """

    event_id: Annotated[
        str, Meta(description="<program id>:attribution/<customer_id>/<attribution_seq>: one id, one body.")
    ]
    customer_id: str
    attribution_seq: Annotated[int, Meta(ge=1, description="1, 2, 3, … for each customer, without holes.")]
    revision: Annotated[
        int, Meta(ge=1, description="Which record of this conversion: the largest says how it stands.")
    ]
    status: Annotated[
        AttributionStatus, Meta(description="Withdrawn: no touch brought it, or it no longer counts.")
    ]
    conversion: Conversion
    touch: Annotated[Touched | None, Meta(description="Null where it is withdrawn.")]
    match: Annotated[
        Match | None, Meta(description="By its campaign_id, or by the window alone; null where withdrawn.")
    ]
    lag_seconds: Annotated[
        _Seconds | None,
        Meta(description="From the touch to the conversion, whole seconds, cut; null where withdrawn."),
    ]
    amount: Annotated[
        _Money | None,
        Meta(
            description="The order's net, with exactly the currency's decimals; zero where withdrawn; null for a visit."
        ),
    ]
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$", description="The program's currency, ISO 4217.")]
    effective_at: _EffectiveAt
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
