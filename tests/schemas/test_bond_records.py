"""What is told of a bond: bodies there and back, their schemas, ids that cannot be mistaken, and headers."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.bond_records import (
    EVENT_TYPES,
    AttributionEvent,
    BondEvent,
    Conversion,
    HoldoutDraw,
    SegmentEvent,
    Touched,
    TriggerEvent,
    attribution_id,
    decode,
    encode,
    headers,
    reservation_id,
    segment_event_id,
    trigger_id,
)
from schemas.example_files import OutputExample, output_examples
from schemas.json_schemas import bond_event_schema
from schemas.money import format_minor
from schemas.tier_change import ProgramRef, tier_event_id
from schemas.times import format_ms

KINDS = {name: kind for kind, name in EVENT_TYPES.items()}
OUTPUTS = [example for example in output_examples() if example.ce_type in KINDS]

texts = st.text(max_size=8)
some = st.none() | texts
times = st.integers(0, 10**14).map(format_ms)
counts = st.integers(0, 10**6)
numbers = st.integers(1, 2**40)
refs = st.builds(ProgramRef, texts, texts)
segments = st.builds(
    SegmentEvent,
    **dict.fromkeys(("event_id", "customer_id", "segment", "tier"), texts),
    **dict.fromkeys(("previous_segment", "cause_source", "cause_event_id"), some),
    segment_seq=numbers,
    reason=st.sampled_from(["purchase", "refund", "touchpoint", "override", "time", "program_change"]),
    effective_at=times,
    program=refs,
    value=st.integers(0, 10),
    attachment=counts,
)
triggers = st.builds(
    TriggerEvent,
    **dict.fromkeys(("event_id", "customer_id", "channel", "tier"), texts),
    **dict.fromkeys(("scenario", "reason", "content", "segment"), some),
    **dict.fromkeys(("run", "step", "steps"), counts),
    status=st.sampled_from(["sent", "suppressed", "held_out", "reserved"]),
    effective_at=times,
    run_started_at=st.none() | times,
    expires_at=st.none() | times,
    holdout=st.none() | st.builds(HoldoutDraw, st.booleans(), st.booleans(), texts, numbers),
    program=refs,
)
attributions = st.builds(
    AttributionEvent,
    event_id=texts,
    customer_id=texts,
    attribution_seq=numbers,
    revision=numbers,
    status=st.sampled_from(["attributed", "withdrawn"]),
    conversion=st.builds(
        Conversion, st.sampled_from(["purchase", "visit"]), some, some, some, times, some, some, some
    ),
    touch=st.none()
    | st.builds(Touched, texts, texts, texts, st.sampled_from(["inbound", "outbound"]), some, some, times),
    match=st.sampled_from(["campaign", "window", None]),
    lag_seconds=st.none() | counts,
    amount=st.none() | st.builds(format_minor, st.integers(0, 10**20), st.integers(0, 4)),
    currency=st.just("USD"),
    effective_at=times,
    program=refs,
)


def body(example: OutputExample) -> bytes:
    return json.dumps(example.value, ensure_ascii=False, separators=(",", ":")).encode()


def test_there_is_an_example_of_each_kind_by_the_name_of_its_schema() -> None:
    plain = {example.schema: example for example in OUTPUTS if example.name == example.schema}
    assert {example.ce_type for example in plain.values()} == set(KINDS)
    assert {example.schema for example in OUTPUTS} == set(plain)


@pytest.mark.parametrize("example", OUTPUTS, ids=lambda example: example.name)
def test_a_body_is_written_with_the_fields_in_order_and_the_same_bytes(example: OutputExample) -> None:
    kind = KINDS[example.ce_type]
    assert encode(decode(kind, body(example))) == body(example)
    schema = bond_event_schema(kind)
    assert list(schema["properties"]) == list(example.value) == schema["required"]
    assert schema["title"] == example.schema


@given(segments | triggers | attributions)
def test_a_record_survives_being_written_and_read_and_keeps_the_schema(event: BondEvent) -> None:
    assert decode(type(event), encode(event)) == event
    schema = bond_event_schema(type(event))
    jsonschema.Draft202012Validator(schema).validate(json.loads(encode(event)))


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
def test_a_schema_asks_for_every_field_and_takes_values_that_may_come(kind: type[BondEvent]) -> None:
    (example,) = [e for e in OUTPUTS if e.name == e.schema == bond_event_schema(kind)["title"]]
    validator = jsonschema.Draft202012Validator(bond_event_schema(kind))
    for name in example.value:
        assert not validator.is_valid({key: value for key, value in example.value.items() if key != name})
    for open_one in {"reason", "status"} & example.value.keys():
        assert validator.is_valid(example.value | {open_one: "whatever comes"})
    assert validator.is_valid(example.value | {"more": 1})
    assert "enum" not in json.dumps(bond_event_schema(kind))


def test_unknown_fields_are_ignored_as_later_versions_may_have_more() -> None:
    for example in OUTPUTS:
        more: dict[str, Any] = example.value | {"more": {"a": [1]}}
        kind = KINDS[example.ce_type]
        assert decode(kind, json.dumps(more).encode()) == decode(kind, body(example))


@pytest.mark.parametrize("kind", EVENT_TYPES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", [b"", b"null", b"{}", b"\xff", b'{"event_id": "\xff"}'])
def test_anything_else_is_a_value_error(kind: type[BondEvent], value: bytes) -> None:
    with pytest.raises(ValueError, match=f"expected a {EVENT_TYPES[kind]}"):
        decode(kind, value)


def test_the_headers_are_cloudevents_in_order() -> None:
    (example,) = [example for example in OUTPUTS if example.name == "segment-change"]
    assert headers(decode(SegmentEvent, body(example))) == [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"loyalty.segment.changed.v1"),
        ("ce_source", b"/loyalty/grocery"),
        ("ce_id", b"grocery:segment/900/4"),
        ("ce_subject", b"900"),
        ("ce_time", b"2017-04-20T18:02:11.000Z"),
        ("content-type", b"application/json"),
    ]


# Customers may be called anything, also like the parts of an id.
customers = st.text("a1/:", min_size=1, max_size=6) | st.sampled_from(["a/1/1", "1/1", "segment/a", "a/x/1"])
names = st.sampled_from(["x", "a", "1"])
small = st.integers(1, 3)
parts = (
    st.tuples(st.just(tier_event_id), customers, small)
    | st.tuples(st.just(segment_event_id), customers, small)
    | st.tuples(st.just(attribution_id), customers, small)
    | st.tuples(st.just(reservation_id), customers, small)
    | st.tuples(st.just(trigger_id), customers, names, small, small)
)


@given(parts, parts)
def test_no_two_records_have_one_id(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    first, second = (make("p", *rest) for make, *rest in (one, other))
    assert (first == second) == (one == other)


def test_every_struct_says_what_its_fields_are_worth() -> None:
    for kind in EVENT_TYPES:
        described = msgspec.json.schema_components([kind])[1][kind.__name__]["properties"]
        assert {name for name, about in described.items() if "description" not in about} <= {
            *("customer_id", "program", "conversion")
        }
