"""The tier change: its body as the contract prints it, its headers, and the way back."""

from __future__ import annotations

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.asyncapi import TIER_CHANGE_EXAMPLE
from schemas.json_schemas import tier_change_schema
from schemas.money import format_minor
from schemas.tier_change import (
    ContactCounts,
    ProgramRef,
    Rfm,
    TierChanged,
    decode,
    encode,
    headers,
    tier_event_id,
)
from schemas.times import format_ms

EXAMPLE = decode(json.dumps(TIER_CHANGE_EXAMPLE).encode())
scores = st.integers(0, 5)
counts = st.integers(0, 10**6)
changes = st.builds(
    TierChanged,
    event_id=st.text(),
    customer_id=st.text(min_size=1),
    tier_seq=st.integers(1, 2**40),
    previous_tier=st.text(min_size=1),
    tier=st.text(min_size=1),
    direction=st.sampled_from(["upgrade", "downgrade"]),
    reason=st.sampled_from(["purchase", "refund", "window_expiry", "inactivity"]),
    cause_source=st.none() | st.text(),
    cause_event_id=st.none() | st.text(),
    effective_at=st.integers(0, 10**14).map(format_ms),
    program=st.builds(ProgramRef, id=st.text(), version=st.text()),
    rfm=st.builds(
        Rfm,
        recency_seconds=st.none() | counts,
        frequency=counts,
        monetary=st.builds(format_minor, st.integers(0, 10**20), st.integers(0, 4)),
        currency=st.just("USD"),
        r=scores,
        f=scores,
        m=scores,
    ),
    contacts=st.dictionaries(st.text(max_size=5), st.builds(ContactCounts, counts, counts), max_size=3),
)


def test_the_body_has_the_contracts_fields_in_the_contracts_order() -> None:
    assert encode(EXAMPLE) == json.dumps(TIER_CHANGE_EXAMPLE, separators=(",", ":")).encode()


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


@given(changes)
def test_a_change_survives_being_written_and_read_and_keeps_the_schema(change: TierChanged) -> None:
    assert decode(encode(change)) == change
    assert encode(decode(encode(change))) == encode(change)
    jsonschema.Draft202012Validator(tier_change_schema()).validate(json.loads(encode(change)))


def test_unknown_fields_are_ignored_as_later_versions_may_have_more() -> None:
    more = TIER_CHANGE_EXAMPLE | {"points": 5, "rfm": TIER_CHANGE_EXAMPLE["rfm"] | {"segment": "loyal"}}
    assert decode(json.dumps(more).encode()) == EXAMPLE


@pytest.mark.parametrize(
    "value", [b"", b"null", b"{}", b"\xff", b'{"event_id": "\xff"}', encode(EXAMPLE)[:-1]]
)
def test_anything_else_is_a_value_error(value: bytes) -> None:
    with pytest.raises(ValueError, match="expected a tier change"):
        decode(value)
