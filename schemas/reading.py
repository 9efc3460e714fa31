"""The bodies of purchases and touchpoints, read in one of two ways: a typed decode takes what is valid, and whatever
that cannot take is read again, slowly, to the last word, so that a rejection names its field."""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

import msgspec

from schemas import fields as f
from schemas.bodies import (
    BondTouchpoint,
    BondTouchpointBody,
    Purchase,
    PurchaseBody,
    Touchpoint,
    TouchpointBody,
)
from schemas.cloud_events import Envelope
from schemas.strict_json import JsonNumber, parse

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
