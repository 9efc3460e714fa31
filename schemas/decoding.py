"""The decoder from a record's bytes to what it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final, NoReturn, cast

import msgspec
from msgspec.structs import astuple

from schemas import fields as f
from schemas.amounts import Amounts, is_zero
from schemas.bodies import BondTouchpointBody
from schemas.cloud_events import Envelope, read_envelope
from schemas.events import (
    MAX_RECORD_BYTES,
    OverrideCommanded,
    OverrideMode,
    PurchaseMade,
    Record,
    RefundMade,
    TouchpointMade,
)
from schemas.program import Program
from schemas.reading import (
    NO_ENVELOPE,
    read_bond_touchpoint,
    read_identity,
    read_object,
    read_purchase,
    read_touchpoint,
)
from schemas.rejection import Reason, RejectedError
from schemas.strict_json import LONG, check_text, parse
from schemas.times import format_ms, parse_rfc3339
from schemas.zones import is_time_zone

_NAMED: Final = 8

# Where a PurchaseBody has its fields.
_TYPE: Final = 0
_CUSTOMER_ID: Final = 1
_OCCURRED_AT: Final = 2
_ORDER_ID: Final = 3
_AMOUNT: Final = 4
_CURRENCY: Final = 5
_CHANNEL: Final = 6
_STORE_ID: Final = 7
_CAMPAIGN_ID: Final = 8
_SUBSCRIPTION_ID: Final = 9


class EventDecoder:
    """Decodes and validates records for one program.

    Every method raises ``RejectedError`` for a record that cannot be used, with the contract's reasons in its
    order, up to ``future_event``. Whether the record stands in the right place, and in time, the caller
    decides. A valid event takes one typed decode; whatever that cannot take is read again, slowly, to the
    last word.
    """

    def __init__(self, program: Program) -> None:
        self._amounts = Amounts(program)
        self._max_future = program.max_future
        # A program that keeps no bonds does not know their fields, and unknown ones are ignored.
        self._read_touchpoint = read_touchpoint if program.bonds is None else read_bond_touchpoint
        self._tiers = frozenset(tier.name for tier in program.tiers)
        self._tier_names = _names(program)
        self._command_fields = tuple(
            msgspec.structs.replace(field, form=self._tier_names) if field is f.TIER else field
            for field in f.COMMAND_FIELDS
        )

    def purchase(self, record: Record) -> PurchaseMade | RefundMade:
        """The purchase or refund of a record of the purchases topic."""
        value = _admitted(record)
        headers = record.headers
        body, event_id, source = read_purchase(value, _envelope(headers, value) if headers else None)
        # All fields at once: to ask for each by its name takes five times as long.
        said = astuple(body)
        occurred_at = _occurred_at(said[_OCCURRED_AT])
        raw = bytes(said[_AMOUNT])
        amount = self._amounts.minor(raw, said[_CURRENCY])
        is_refund = said[_TYPE] == "refund"
        if is_refund and not amount and is_zero(raw):
            raise f.invalid(f.AMOUNT_NAME, "expected more than zero for a refund")
        if occurred_at > record.timestamp + self._max_future:
            self._reject_future(record)
        if is_refund:
            return RefundMade(
                said[_CUSTOMER_ID],
                event_id,
                source,
                said[_ORDER_ID],
                amount,
                occurred_at,
                said[_CHANNEL],
                said[_STORE_ID],
                said[_CAMPAIGN_ID],
                said[_SUBSCRIPTION_ID],
            )
        return PurchaseMade(
            said[_CUSTOMER_ID],
            event_id,
            source,
            said[_ORDER_ID],
            amount,
            occurred_at,
            said[_CHANNEL],
            said[_STORE_ID],
            said[_CAMPAIGN_ID],
            said[_SUBSCRIPTION_ID],
        )

    def touchpoint(self, record: Record) -> TouchpointMade:
        """The touchpoint of a record of the touchpoints topic."""
        value = _admitted(record)
        headers = record.headers
        envelope = _envelope(headers, value) if headers else None
        body, event_id, source = self._read_touchpoint(value, envelope)
        occurred_at = _occurred_at(body.occurred_at)
        subscription_id = trigger_id = timezone = None
        if isinstance(body, BondTouchpointBody):
            subscription_id, trigger_id, timezone = body.subscription_id, body.trigger_id, body.timezone
            if timezone is not None and not is_time_zone(timezone):
                raise f.invalid(f.TIMEZONE.name, f"expected {f.TIMEZONE.expected}")
        if occurred_at > record.timestamp + self._max_future:
            self._reject_future(record)
        return TouchpointMade(
            body.customer_id,
            event_id,
            source,
            occurred_at,
            body.channel,
            body.direction,
            body.action,
            body.campaign_id,
            body.store_id,
            body.staff_id,
            body.order_id,
            subscription_id,
            trigger_id,
            timezone,
        )

    def command(self, record: Record) -> OverrideCommanded:
        """The override of a record of the customer commands topic. They are rare: there is one way, a slow one."""
        value = _admitted(record)
        envelope = _envelope(record.headers, value) or NO_ENVELOPE
        content = read_object(value)
        # The type comes first: it says what the other fields are.
        f.COMMAND_TYPE.read(content)
        event_id, source = read_identity(content, envelope)
        clears = content.get(f.MODE.name) == "clear"
        texts = {
            field.name: field.read(content) or ""
            for field in self._command_fields
            if not (clears and field.name in f.HOLDING_NAMES)
        }
        occurred_at = _occurred_at(texts["occurred_at"])
        if not clears and texts["tier"] not in self._tiers:
            raise f.invalid(f.TIER.name, f"expected {self._tier_names}")
        until = 0 if clears else _until(texts["until"], occurred_at)
        if occurred_at > record.timestamp + self._max_future:
            self._reject_future(record)
        return OverrideCommanded(
            texts["customer_id"],
            event_id,
            source,
            occurred_at,
            cast("OverrideMode", texts["mode"]),
            texts.get("tier", ""),
            until,
            texts["actor"],
            texts["reason"],
        )

    def _reject_future(self, record: Record) -> NoReturn:
        try:
            latest = f", no later than {format_ms(record.timestamp + self._max_future)}"
        except ValueError:
            latest = ""
        raise RejectedError(
            Reason.FUTURE_EVENT,
            f"occurred_at: expected at most {self._max_future} ms after the record's timestamp{latest}",
        )


def _admitted(record: Record) -> bytes:
    """The value of a record of bearable size, UTF-8 and bearably nested."""
    key, value, headers = record.key, record.value, record.headers
    size = (len(value) if value else 0) + (len(key) if key else 0)
    if headers:
        for name, content in headers:
            # A name's bytes are counted as the characters they decode to were encoded.
            size += len(name) if name.isascii() else len(name.encode("utf-8", "surrogatepass"))
            size += len(content) if content else 0
    if size > MAX_RECORD_BYTES:
        raise RejectedError(
            Reason.TOO_LARGE, f"record: expected at most {MAX_RECORD_BYTES} bytes of key, value and headers"
        )
    if value is None:
        raise f.invalid("value", "expected a JSON object, not null")
    # The usual value needs no more than this question.
    if len(value) > LONG or not value.isascii():
        check_text(value)
    return value


def _envelope(headers: Sequence[tuple[str, bytes | None]], value: bytes) -> Envelope | None:
    try:
        return read_envelope(headers)
    except RejectedError:
        # Whether it is JSON is asked before.
        parse(value)
        raise


def _occurred_at(text: str) -> int:
    try:
        at = parse_rfc3339(text)
    except ValueError:
        at = -1
        expected = f"expected {f.OCCURRED_AT.expected}"
    else:
        expected = "expected 1970-01-01T00:00:00Z or later"
    if at < 0:
        raise f.invalid(f.OCCURRED_AT.name, expected)
    return at


def _until(text: str, occurred_at: int) -> int:
    try:
        until = parse_rfc3339(text)
    except ValueError:
        raise f.invalid(f.UNTIL.name, f"expected {f.UNTIL.expected}") from None
    if until <= occurred_at:
        raise f.invalid(f.UNTIL.name, f"expected a time after {f.OCCURRED_AT.name}")
    try:
        format_ms(until)
    except ValueError:
        # It could not be shown again.
        raise f.invalid(f.UNTIL.name, "expected a time before the year 10000 in UTC") from None
    return until


def _names(program: Program) -> str:
    """The names of the program's tiers on one line, for a detail: the first ones, where there are many."""
    names = [json.dumps(tier.name, ensure_ascii=False) for tier in program.tiers]
    listed = " or ".join(names[:_NAMED])
    return listed if len(names) <= _NAMED else f"{listed}, or another of the program's {len(names)} tiers"
