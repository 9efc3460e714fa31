"""Every example beside the schemas, replayed: the valid inputs are understood, the poison ones are named, the
outputs are such as are published."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from schemas import bond_records
from schemas.bond_records import (
    AttributionEvent,
    BondEvent,
    SegmentEvent,
    attribution_id,
    reservation_id,
    segment_event_id,
    trigger_id,
)
from schemas.example_files import (
    Example,
    OutputExample,
    invalid_examples,
    output_examples,
    valid_examples,
)
from schemas.json_schemas import all_schemas
from schemas.rejection import Reason, RejectedError
from schemas.tier_change import decode as decode_output
from schemas.tier_change import encode, headers, tier_event_id

VALID = valid_examples()
INVALID = invalid_examples()
SCHEMAS = {name: jsonschema.Draft202012Validator(schema) for name, schema in all_schemas().items()}

# What a schema alone can tell, by the field it names: not the currencies, the calendar or the headers.
BY_SCHEMA = (
    "event-id",
    "customer-id",
    "order-id",
    "source",
    "store-id",
    "missing",
    "type",
    "array",
    "json-null",
)
# And of the commands: not the program's tiers, the calendar or which time is later.
BEYOND_OVERRIDES_SCHEMA = (
    *("override-unknown-tier", "override-until-occurred-at", "override-until-beyond-year-9999"),
    *("override-future", "override-future-and-wrong", "override-structured", "override-nested"),
)
BY_SHAPE = [
    example
    for example in INVALID
    if example.name.startswith(BY_SCHEMA)
    and example.topic == "purchases"
    and "half-a-pair" not in example.name  # Python's strings can hold that
]
OVERRIDES_BY_SHAPE = [
    example
    for example in INVALID
    if example.name.startswith("override") and example.name not in BEYOND_OVERRIDES_SCHEMA
]


@pytest.mark.parametrize("example", VALID, ids=lambda e: e.name)
def test_a_valid_example_is_understood(example: Example, decode: Callable[[str, Example], Any]) -> None:
    event = decode(example.topic, example)
    said = {name: getattr(event, name) for name in example.expect if name != "event"}
    assert {"event": type(event).__name__, **said} == example.expect


@pytest.mark.parametrize("example", VALID, ids=lambda e: e.name)
def test_a_valid_example_keeps_the_published_schema(example: Example) -> None:
    kind = example.expect["event"].removesuffix("Made").removesuffix("Commanded").lower()
    assert example.value is not None
    body = json.loads(example.value)
    headers = dict(example.headers)
    if "ce_specversion" in headers:
        # What the headers say in place of the body.
        body["event_id"] = (headers.get("ce_id") or str(body.get("event_id")).encode()).decode()
        body["source"] = (headers.get("ce_source") or b"").decode()
    SCHEMAS[kind].validate(body)


@pytest.mark.parametrize("example", INVALID, ids=lambda e: e.name)
def test_a_poison_example_is_rejected_for_its_reason(
    example: Example, decode: Callable[[str, Example], Any]
) -> None:
    with pytest.raises(RejectedError) as caught:
        decode(example.topic, example)
    assert caught.value.reason is Reason(example.expect["reason"])
    field, _, expected = caught.value.detail.partition(": ")
    assert field == example.expect["field"]
    assert expected.startswith(("expected ", "missing"))
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    "example",
    BY_SHAPE,
    ids=lambda e: e.name,
)
def test_the_published_schema_rejects_wrong_shapes_too(example: Example) -> None:
    assert example.value is not None
    body = json.loads(example.value)
    assert not SCHEMAS["purchase"].is_valid(body)


@pytest.mark.parametrize("example", OVERRIDES_BY_SHAPE, ids=lambda e: e.name)
def test_the_published_schema_rejects_wrong_shapes_of_overrides_too(example: Example) -> None:
    assert example.value is not None
    assert not SCHEMAS["override"].is_valid(json.loads(example.value))


@pytest.mark.parametrize("example", output_examples(), ids=lambda e: e.name)
def test_an_output_example_is_a_record_as_it_is_published(example: OutputExample) -> None:
    SCHEMAS[example.schema].validate(example.value)
    body = json.dumps(example.value).encode()
    kinds = {name: kind for kind, name in bond_records.EVENT_TYPES.items()}
    if (kind := kinds.get(example.ce_type)) is not None:
        told = bond_records.decode(kind, body)
        assert json.loads(bond_records.encode(told)) == example.value
        assert dict(bond_records.headers(told))["ce_type"] == example.ce_type.encode()
        assert told.event_id == id_of(told)
        return
    event = decode_output(body)
    assert json.loads(encode(event)) == example.value
    assert dict(headers(event))["ce_type"] == example.ce_type.encode()
    assert event.event_id == tier_event_id(event.program.id, event.customer_id, event.tier_seq)


def id_of(told: BondEvent) -> str:
    """The id that the functions beside the records make."""
    program, customer = told.program.id, told.customer_id
    if isinstance(told, SegmentEvent):
        return segment_event_id(program, customer, told.segment_seq)
    if isinstance(told, AttributionEvent):
        return attribution_id(program, customer, told.attribution_seq)
    if told.scenario is None:
        return reservation_id(program, customer, int(told.event_id.rpartition("/")[2]))
    return trigger_id(program, customer, told.scenario, told.run, told.step)


def test_the_examples_cover_every_reason_that_the_decoder_gives() -> None:
    decided_by_the_caller = {Reason.MISROUTED, Reason.TOO_LATE}
    assert {Reason(e.expect["reason"]) for e in INVALID} == set(Reason) - decided_by_the_caller
