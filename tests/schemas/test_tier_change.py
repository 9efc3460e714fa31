"""What is told of a tier: the three kinds' bodies, the change's as the contract prints it, headers, and back."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.example_files import OutputExample, output_examples
from schemas.json_schemas import tier_event_schema
from schemas.money import format_minor
from schemas.tier_change import (
    EVENT_TYPES,
    ContactCounts,
    Kind,
    Needed,
    ProgramRef,
    Rfm,
    TierEvent,
    decode,
    encode,
    headers,
    tier_event_id,
)
from schemas.times import format_ms

OUTPUTS = {e.name: e for e in output_examples() if e.ce_type in EVENT_TYPES.values()}
CHANGE = OUTPUTS["tier-change"].value
EXAMPLE = decode(json.dumps(CHANGE).encode())
KINDS: dict[str, Kind] = {"tier-change": "changed", "tier-at-risk": "at-risk", "tier-retained": "retained"}
# What only some kinds have.
OWN: dict[Kind, set[str]] = {
    "changed": {"direction"},
    "at-risk": {"at_risk_until", "needed"},
    "retained": set(),
}

scores = st.integers(0, 5)
counts = st.integers(0, 10**6)
amounts = st.builds(format_minor, st.integers(0, 10**20), st.integers(0, 4))
times = st.integers(0, 10**14).map(format_ms)
own_fields = (
    st.fixed_dictionaries({"direction": st.sampled_from(["upgrade", "downgrade"])})
    | st.fixed_dictionaries(
        {"at_risk_until": times, "needed": st.builds(Needed, amounts, counts, st.none() | counts)}
    )
    | st.just({})
)
common = st.builds(
    TierEvent,
    event_id=st.text(),
    customer_id=st.text(min_size=1),
    tier_seq=st.integers(1, 2**40),
    previous_tier=st.text(min_size=1),
    tier=st.text(min_size=1),
    reason=st.sampled_from(
        ["purchase", "refund", "window_expiry", "inactivity", "override", "program_change"]
    ),
    cause_source=st.none() | st.text(),
    cause_event_id=st.none() | st.text(),
    effective_at=times,
    program=st.builds(ProgramRef, id=st.text(), version=st.text()),
    rfm=st.builds(
        Rfm,
        recency_seconds=st.none() | counts,
        frequency=counts,
        monetary=amounts,
        currency=st.just("USD"),
        r=scores,
        f=scores,
        m=scores,
    ),
    contacts=st.dictionaries(st.text(max_size=5), st.builds(ContactCounts, counts, counts), max_size=3),
    benefits=st.lists(st.text(min_size=1, max_size=8), max_size=3).map(tuple),
    segment=st.just(msgspec.UNSET) | st.none() | st.text(min_size=1),
)
events = st.builds(lambda event, own: msgspec.structs.replace(event, **own), common, own_fields)


def body(name: str, *without: str, **more: Any) -> bytes:
    """An example's body, less or more than it says."""
    kept = {key: value for key, value in OUTPUTS[name].value.items() if key not in without}
    return json.dumps(kept | more, separators=(",", ":")).encode()


def test_there_is_an_example_of_each_kind() -> None:
    assert set(OUTPUTS) == set(KINDS)
    assert set(EVENT_TYPES) == set(KINDS.values())


@pytest.mark.parametrize("example", OUTPUTS.values(), ids=lambda e: e.name)
def test_the_bodies_have_the_fields_of_their_kind_in_order(example: OutputExample) -> None:
    # The changed kind's is the contract's, with benefits and segment.
    event = decode(body(example.name))
    assert encode(event) == body(example.name)
    assert event.kind == KINDS[example.name]
    assert {"direction", "at_risk_until", "needed"} & example.value.keys() == OWN[event.kind]


@pytest.mark.parametrize("example", OUTPUTS.values(), ids=lambda e: e.name)
def test_the_type_in_the_headers_tells_the_kind(example: OutputExample) -> None:
    said = dict(headers(decode(body(example.name))))
    assert said["ce_type"] == example.ce_type.encode() == EVENT_TYPES[KINDS[example.name]].encode()


def test_in_a_record_that_changes_no_tier_the_previous_tier_is_the_tier() -> None:
    for name in ("tier-at-risk", "tier-retained"):
        assert OUTPUTS[name].value["previous_tier"] == OUTPUTS[name].value["tier"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_body_of_a_program_without_benefits_says_nothing_of_them(name: str) -> None:
    plain = decode(body(name, "benefits"))
    assert not plain.benefits
    assert encode(plain) == body(name, "benefits")
    # A tier without any says so, where other tiers have some.
    assert json.loads(encode(decode(body(name, benefits=[]))))["benefits"] == []


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_body_of_a_program_without_segments_says_nothing_of_them(name: str) -> None:
    plain = decode(body(name, "segment"))
    assert plain.segment is msgspec.UNSET
    assert encode(plain) == body(name, "segment")
    # A customer without one says so, where there are segments.
    assert json.loads(encode(decode(body(name, segment=None))))["segment"] is None


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_schema_asks_for_the_fields_of_its_kind_and_for_no_other(name: str) -> None:
    schema = tier_event_schema(KINDS[name])
    validator = jsonschema.Draft202012Validator(schema)
    assert list(schema["properties"]) == list(OUTPUTS[name].value)
    assert set(schema["required"]) == schema["properties"].keys() - {"benefits", "segment"}
    validator.validate(OUTPUTS[name].value)
    for key in OUTPUTS[name].value:
        assert validator.is_valid(json.loads(body(name, key))) == (key in {"benefits", "segment"})


def test_no_schema_takes_what_lacks_its_own_fields() -> None:
    for kind in KINDS.values():
        validator = jsonschema.Draft202012Validator(tier_event_schema(kind))
        taken = {KINDS[name] for name, example in OUTPUTS.items() if validator.is_valid(example.value)}
        assert taken == {other for other in KINDS.values() if OWN[kind] <= OWN[other]}


def test_the_headers_are_cloudevents_in_the_contracts_order() -> None:
    assert headers(EXAMPLE) == [
        ("ce_specversion", b"1.0"),
        ("ce_type", b"loyalty.tier.changed.v1"),
        ("ce_source", b"/loyalty/grocery"),
        ("ce_id", b"grocery/900/3"),
        ("ce_subject", b"900"),
        ("ce_time", b"2017-04-02T11:53:26.000Z"),
        ("content-type", b"application/json"),
    ]


def test_the_event_id_is_program_customer_and_number() -> None:
    assert tier_event_id("grocery", "9/0", 3) == "grocery/9/0/3"


@given(events)
def test_a_record_survives_being_written_and_read_and_keeps_the_schema(event: TierEvent) -> None:
    assert decode(encode(event)) == event
    assert encode(decode(encode(event))) == encode(event)
    schema = tier_event_schema(event.kind)
    jsonschema.Draft202012Validator(schema).validate(json.loads(encode(event)))


def test_unknown_fields_are_ignored_as_later_versions_may_have_more() -> None:
    more = CHANGE | {"points": 5, "rfm": CHANGE["rfm"] | {"segment": "loyal"}}
    assert decode(json.dumps(more).encode()) == EXAMPLE


@pytest.mark.parametrize(
    "value", [b"", b"null", b"{}", b"\xff", b'{"event_id": "\xff"}', encode(EXAMPLE)[:-1]]
)
def test_anything_else_is_a_value_error(value: bytes) -> None:
    with pytest.raises(ValueError, match="expected a tier change"):
        decode(value)
