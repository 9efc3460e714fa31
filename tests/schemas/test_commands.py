"""Commands: what an override says, what a clear need not say, and what is named when one is wrong."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from schemas import fields
from schemas.decoding import EventDecoder
from schemas.events import OverrideCommanded
from schemas.program import Program, Tier
from schemas.rejection import Reason, RejectedError
from schemas.times import DAY, parse_rfc3339

OVERRIDE = {
    "event_id": "c1",
    "type": "override",
    "customer_id": "900",
    "occurred_at": "2017-04-02T11:53:26.000Z",
    "mode": "pin",
    "tier": "silver",
    "until": "2017-04-03T11:53:26.000Z",
    "actor": "anna",
    "reason": "a late delivery",
}
AT = parse_rfc3339("2017-04-02T11:53:26.000Z")


def to_json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def rejection(decoder: EventDecoder, record: Any) -> tuple[Reason, str]:
    with pytest.raises(RejectedError) as caught:
        decoder.command(record)
    return caught.value.reason, caught.value.detail


def test_an_override_is_read_whole(decoder: EventDecoder, record: Any) -> None:
    assert decoder.command(record(to_json(OVERRIDE | {"source": "crm"}))) == OverrideCommanded(
        customer_id="900",
        event_id="c1",
        source="crm",
        occurred_at=AT,
        mode="pin",
        tier="silver",
        until=AT + DAY,
        actor="anna",
        reason="a late delivery",
    )


@pytest.mark.parametrize(
    "more", [{}, {"tier": "platinum", "until": "yesterday"}, {"tier": None, "until": 0}, {"tier": ["silver"]}]
)
def test_a_clear_holds_nothing_whatever_else_it_says(
    decoder: EventDecoder, record: Any, more: dict[str, object]
) -> None:
    said = {key: value for key, value in OVERRIDE.items() if key not in fields.HOLDING_NAMES}
    made = decoder.command(record(to_json(said | {"mode": "clear"} | more)))
    assert (made.mode, made.tier, made.until) == ("clear", "", 0)


@pytest.mark.parametrize("kind", ["erase", "merge", "purchase", "", 5, None, ["override"]])
def test_another_type_is_named_before_anything_else(decoder: EventDecoder, record: Any, kind: object) -> None:
    # What the other fields have to be, the type decides: an erasure needs no mode.
    for content in (OVERRIDE | {"type": kind}, {"type": kind, "event_id": 5}):
        assert rejection(decoder, record(to_json(content))) == (
            Reason.INVALID_EVENT,
            'type: expected "override"',
        )


@pytest.mark.parametrize("tier", ["platinum", "Silver", "silver ", "", 5, None])
def test_a_tier_that_the_program_lacks_is_answered_with_those_it_has(
    decoder: EventDecoder, record: Any, tier: object
) -> None:
    assert rejection(decoder, record(to_json(OVERRIDE | {"tier": tier}))) == (
        Reason.INVALID_EVENT,
        'tier: expected "member" or "silver" or "gold"',
    )


def test_of_many_tiers_the_first_ones_are_listed_and_on_one_line(program: Program, record: Any) -> None:
    names = ["first\nline", *(f"tier {number}" for number in range(29))]
    many = EventDecoder(msgspec.structs.replace(program, tiers=tuple(map(Tier, names))))
    _, detail = rejection(many, record(to_json(OVERRIDE)))
    assert detail.startswith('tier: expected "first\\nline" or "tier 0" or ')
    assert detail.endswith('"tier 6", or another of the program\'s 30 tiers')
    assert many.command(record(to_json(OVERRIDE | {"tier": "tier 28"}))).tier == "tier 28"


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (OVERRIDE["occurred_at"], "a time after occurred_at"),
        ("2017-04-02T11:53:26.0009Z", "a time after occurred_at"),
        ("1969-12-31T23:59:59Z", "a time after occurred_at"),
        ("9999-12-31T23:59:59-00:01", "a time before the year 10000 in UTC"),
        ("2017-04-03", fields.UNTIL.expected),
        ("2017-04-03T11:53:26", fields.UNTIL.expected),
        ("", fields.UNTIL.expected),
        (1_491_220_406_000, fields.UNTIL.expected),
    ],
)
def test_an_end_is_a_time_after_the_beginning(
    decoder: EventDecoder, record: Any, until: object, expected: str
) -> None:
    assert rejection(decoder, record(to_json(OVERRIDE | {"until": until}))) == (
        Reason.INVALID_EVENT,
        f"until: expected {expected}",
    )


def test_a_command_from_the_future_is_judged_as_a_purchase_is(decoder: EventDecoder, record: Any) -> None:
    value = to_json(OVERRIDE)
    assert decoder.command(record(value, timestamp=AT - 300_000)).occurred_at == AT
    assert rejection(decoder, record(value, timestamp=AT - 300_001))[0] is Reason.FUTURE_EVENT
    # What is wrong in itself comes before.
    wrong = to_json(OVERRIDE | {"until": OVERRIDE["occurred_at"]})
    assert rejection(decoder, record(wrong, timestamp=0))[0] is Reason.INVALID_EVENT


def test_the_headers_of_a_cloudevent_win(decoder: EventDecoder, record: Any) -> None:
    headers = (("ce_specversion", b"1.0"), ("ce_id", b"ce-1"), ("ce_source", b"/crm"))
    made = decoder.command(record(to_json(OVERRIDE | {"event_id": 5, "source": []}), headers=headers))
    assert (made.event_id, made.source) == ("ce-1", "/crm")
    assert rejection(decoder, record(b"{", headers=(("ce_specversion", b"0.3"),)))[0] is Reason.NOT_JSON


@pytest.mark.parametrize("row", fields.COMMAND_FIELDS, ids=lambda row: row.name)
def test_each_field_of_the_table_is_asked_for_and_kept_to_its_bounds(
    decoder: EventDecoder, record: Any, row: fields.TextField
) -> None:
    wrong: list[dict[str, object]] = [
        {key: value for key, value in OVERRIDE.items() if key != row.name},
        *(OVERRIDE | {row.name: value} for value in (None, 5, {}, "x" * (min(row.most, 1000) + 1))),
        *([OVERRIDE | {row.name: ""}] if row.least else []),
    ]
    for content in wrong:
        reason, detail = rejection(decoder, record(to_json(content)))
        assert (reason, detail.partition(": ")[0]) == (Reason.INVALID_EVENT, row.name)
