"""CloudEvents 1.0 over Kafka, read: binary mode, where headers carry what else would be fields.

Source: CloudEvents 1.0.2 and its Kafka protocol binding 1.0.2, sections 3.1 and 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from schemas.fields import EVENT_ID, SOURCE, TextField, invalid

_STRUCTURED = b"application/cloudevents"


class Envelope(NamedTuple):
    """What the headers said in place of the body; None where they said nothing, and the body decides."""

    event_id: str | None
    source: str | None


def read_envelope(headers: Sequence[tuple[str, bytes | None]]) -> Envelope | None:
    """The CloudEvents attributes of a record in binary mode, or None for a record that is no CloudEvent.

    Without ``ce_specversion`` other ``ce_…`` headers mean nothing. Of a header given twice the last counts;
    one without a value was not given. Raises ``RejectedError`` (``invalid_event``), naming the header, for
    another ``ce_specversion`` than ``1.0``, for structured mode, and for an id or a source outside the
    fields' bounds.
    """
    last = dict(headers)
    # Spelt as in HTTP by some clients.
    content_type = last.get("content-type") or last.get("Content-Type")
    if content_type is not None and content_type.strip().lower().startswith(_STRUCTURED):
        raise invalid("content-type", "expected binary mode or a plain event, not structured CloudEvents")
    if "ce_specversion" not in last:
        return None
    if last["ce_specversion"] != b"1.0":
        raise invalid("ce_specversion", "expected 1.0")
    return Envelope(
        _text("ce_id", last.get("ce_id"), EVENT_ID), _text("ce_source", last.get("ce_source"), SOURCE)
    )


def _text(name: str, value: bytes | None, field: TextField) -> str | None:
    if value is None:
        return None
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise invalid(name, "expected UTF-8") from None
    if not field.least <= len(text) <= field.most:
        raise invalid(name, f"expected {field.expected}")
    return text
