"""The bodies of purchases and touchpoints, read in one of two ways: a typed decode takes what is valid, and whatever
that cannot take is read again, slowly, to the last word, so that a rejection names its field."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Meta

from schemas import fields as f
from schemas.cloud_events import Envelope
from schemas.strict_json import JsonNumber, parse

# The shapes for the typed decoder: the same rules as the tables in schemas.fields, which a test holds against each
# other. In the shapes without an identity, that of the body is an unknown field.
_Id = Annotated[str, Meta(min_length=1, max_length=128)]
_Source = Annotated[str, Meta(max_length=128)]
_Optional = Annotated[str, Meta(max_length=f.MAX_TEXT)] | None
_TriggerId = Annotated[str, Meta(max_length=f.MAX_TRIGGER_ID)] | None


class PurchaseBody(msgspec.Struct, gc=False, kw_only=True):
    """What a purchase or a refund says besides its identity."""

    type: Literal["purchase", "refund"]
    customer_id: _Id
    occurred_at: str
    order_id: _Id
    amount: msgspec.Raw
    currency: str
    channel: _Optional = None
    store_id: _Optional = None
    campaign_id: _Optional = None
    subscription_id: _Optional = None


class Purchase(PurchaseBody, gc=False, kw_only=True):
    """With its identity."""

    event_id: _Id
    source: _Source | None = None


class TouchpointBody(msgspec.Struct, gc=False, kw_only=True):
    """What a touchpoint says besides its identity."""

    type: Literal["touchpoint"]
    customer_id: _Id
    occurred_at: str
    channel: Annotated[str, Meta(min_length=1, max_length=64)]
    direction: Literal["inbound", "outbound"]
    action: _Optional = None
    campaign_id: _Optional = None
    store_id: _Optional = None
    staff_id: _Optional = None
    order_id: _Optional = None


class Touchpoint(TouchpointBody, gc=False, kw_only=True):
    """With its identity."""

    event_id: _Id
    source: _Source | None = None


class BondTouchpointBody(TouchpointBody, gc=False, kw_only=True):
    """What it says where bonds are kept."""

    subscription_id: _Optional = None
    trigger_id: _TriggerId = None
    timezone: _Optional = None


class BondTouchpoint(BondTouchpointBody, gc=False, kw_only=True):
    """With its identity."""

    event_id: _Id
    source: _Source | None = None


_PURCHASE = msgspec.json.Decoder(Purchase)
_PURCHASE_BODY = msgspec.json.Decoder(PurchaseBody)
_TOUCHPOINT = msgspec.json.Decoder(Touchpoint)
_TOUCHPOINT_BODY = msgspec.json.Decoder(TouchpointBody)
_BOND_TOUCHPOINT = msgspec.json.Decoder(BondTouchpoint)
_BOND_TOUCHPOINT_BODY = msgspec.json.Decoder(BondTouchpointBody)

B = TypeVar("B")

_FAILURES = (msgspec.MsgspecError, UnicodeDecodeError)

NO_ENVELOPE = Envelope(None, None)


def read_purchase(value: bytes, envelope: Envelope | None) -> tuple[PurchaseBody, str, str]:
    """The body, id and source of a purchase or a refund. Raises ``RejectedError``."""
    read = _typed(_PURCHASE, _PURCHASE_BODY, value, envelope)
    return read or _slow_purchase(value, envelope or NO_ENVELOPE)


def read_touchpoint(value: bytes, envelope: Envelope | None) -> tuple[TouchpointBody, str, str]:
    """The body, id and source of a touchpoint, for a program that keeps no bonds. Raises ``RejectedError``."""
    read = _typed(_TOUCHPOINT, _TOUCHPOINT_BODY, value, envelope)
    return read or _slow_touchpoint(value, envelope or NO_ENVELOPE, TouchpointBody, f.PLAIN_TOUCHPOINT_FIELDS)


def read_bond_touchpoint(value: bytes, envelope: Envelope | None) -> tuple[TouchpointBody, str, str]:
    """The same for a program that keeps bonds: the body is a ``BondTouchpointBody``. Raises ``RejectedError``."""
    read = _typed(_BOND_TOUCHPOINT, _BOND_TOUCHPOINT_BODY, value, envelope)
    return read or _slow_touchpoint(value, envelope or NO_ENVELOPE, BondTouchpointBody, f.TOUCHPOINT_FIELDS)


def _typed(
    whole: msgspec.json.Decoder[Any],
    body: msgspec.json.Decoder[B],
    value: bytes,
    envelope: Envelope | None,
) -> tuple[B, str, str] | None:
    """The body, id and source of what a typed decode takes; None where it is to be read slowly."""
    try:
        if envelope is None:
            plain = whole.decode(value)
            return plain, plain.event_id, plain.source or ""
        event_id, source = envelope
        # Half an identity in the headers is rare, and read slowly.
        if event_id is not None and source is not None:
            return body.decode(value), event_id, source
    except _FAILURES:
        pass
    return None


def read_object(value: bytes) -> dict[str, object]:
    """The fields of a value that is one JSON object. Raises ``RejectedError``."""
    content = parse(value)
    if not isinstance(content, dict):
        raise f.invalid("value", "expected a JSON object")
    return content


def read_identity(content: dict[str, object], envelope: Envelope) -> tuple[str, str]:
    """``(event_id, source)``: the headers' where they have them, else the body's. Raises ``RejectedError``."""
    event_id, source = envelope
    if event_id is None:
        event_id = f.EVENT_ID.read(content)
    if source is None:
        source = f.SOURCE.read(content)
    return event_id or "", source or ""


def _slow_purchase(value: bytes, envelope: Envelope) -> tuple[PurchaseBody, str, str]:
    content = read_object(value)
    event_id, source = read_identity(content, envelope)
    texts = {field.name: field.read(content) for field in f.PURCHASE_FIELDS}
    if f.AMOUNT_NAME not in content:
        raise f.invalid(f.AMOUNT_NAME, "missing")
    amount = msgspec.Raw(_json_text(content[f.AMOUNT_NAME]))
    return PurchaseBody(amount=amount, **cast("dict[str, str]", texts)), event_id, source  # type: ignore[arg-type]


def _slow_touchpoint(
    value: bytes, envelope: Envelope, shape: type[TouchpointBody], table: tuple[f.TextField, ...]
) -> tuple[TouchpointBody, str, str]:
    content = read_object(value)
    event_id, source = read_identity(content, envelope)
    texts = {field.name: field.read(content) for field in table}
    return shape(**cast("dict[str, str]", texts)), event_id, source  # type: ignore[arg-type]


def _json_text(value: object) -> bytes:
    """The text that was judged: of a number its own; a string's may be written anew, it means the same."""
    if isinstance(value, JsonNumber):
        return value.encode()
    return json.dumps(value).encode() if isinstance(value, str) else b"null"
