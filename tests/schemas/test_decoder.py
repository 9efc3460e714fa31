"""The decoder: order of reasons, sizes, the fast way against the slow one, and bytes that nobody foresaw."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas import bodies, fields, reading
from schemas.bond_records import trigger_id
from schemas.decoding import EventDecoder
from schemas.event_key import event_key
from schemas.events import InputEvent, OverrideCommanded, PurchaseMade, RefundMade, TouchpointMade
from schemas.program import Program
from schemas.rejection import Reason, RejectedError
from schemas.strict_json import check_text
from schemas.times import parse_rfc3339
from schemas.zones import _NAMES, is_time_zone, time_zone

PURCHASE = {
    "event_id": "b1",
    "type": "purchase",
    "customer_id": "900",
    "occurred_at": "2017-04-02T11:53:26.000Z",
    "order_id": "o1",
    "amount": "12.40",
    "currency": "USD",
}
TOUCHPOINT = {
    "event_id": "t1",
    "type": "touchpoint",
    "customer_id": "900",
    "occurred_at": "2017-04-02T11:53:26.000Z",
    "channel": "email",
    "direction": "inbound",
}
OVERRIDE = {
    "event_id": "c1",
    "type": "override",
    "customer_id": "900",
    "occurred_at": "2017-04-02T11:53:26.000Z",
    "mode": "pin",
    "tier": "silver",
    "until": "2017-05-02T00:00:00Z",
    "actor": "anna",
    "reason": "a late delivery",
}
BOND_FIELDS = {
    "subscription_id": "coffee",
    "trigger_id": "grocery:trigger/900/come-back/1/1",
    "timezone": "Asia/Tokyo",
}
LIMIT = 65_536
relaxed = settings(
    deadline=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def to_json(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogatepass")


def rejection(decode: Any, record: Any) -> tuple[Reason, str]:
    with pytest.raises(RejectedError) as caught:
        decode(record)
    return caught.value.reason, caught.value.detail


@pytest.fixture
def slow_decoder(program: Program, monkeypatch: pytest.MonkeyPatch) -> EventDecoder:
    """One whose typed decoders take nothing, so that every event goes the slow way."""

    class Refusing:
        def decode(self, value: bytes) -> None:
            raise msgspec.DecodeError

    for name in SHAPES:
        monkeypatch.setattr(reading, name, Refusing())
    return EventDecoder(program)


def outcome(decode: Any, record: Any) -> object:
    try:
        return decode(record)
    except RejectedError as error:
        return error.reason, error.detail


# --- size, and what comes first


def test_a_record_of_exactly_64_kib_passes_and_one_byte_more_is_too_large(decoder: Any, record: Any) -> None:
    value = to_json(PURCHASE)
    headers = (("trace", b"12"),)
    filled = value + b" " * (LIMIT - len(value) - len(b"900") - len(b"trace12"))
    assert isinstance(decoder.purchase(record(filled, headers=headers)), PurchaseMade)
    assert rejection(decoder.purchase, record(filled + b" ", headers=headers))[0] is Reason.TOO_LARGE
    assert rejection(decoder.purchase, record(filled, headers=(("tracé", b"12"),)))[0] is Reason.TOO_LARGE
    assert rejection(decoder.purchase, record(filled, key=b"9000", headers=headers))[0] is Reason.TOO_LARGE


@pytest.mark.parametrize("topic", ["purchase", "touchpoint", "command"])
def test_null_with_a_large_key_is_too_large_and_else_invalid(decoder: Any, record: Any, topic: str) -> None:
    decode = getattr(decoder, topic)
    assert rejection(decode, record(None, key=b"x" * LIMIT + b"x"))[0] is Reason.TOO_LARGE
    assert rejection(decode, record(None, key=None))[0] is Reason.INVALID_EVENT


def test_a_record_without_a_key_is_understood_as_its_place_is_the_callers_matter(
    decoder: Any, record: Any
) -> None:
    assert decoder.purchase(record(to_json(PURCHASE), key=None)).customer_id == "900"


def test_max_future_is_measured_from_the_records_own_timestamp(decoder: Any, record: Any) -> None:
    at = parse_rfc3339(PURCHASE["occurred_at"])
    value = to_json(PURCHASE)
    assert decoder.purchase(record(value, timestamp=at - 300_000)).occurred_at == at
    assert rejection(decoder.purchase, record(value, timestamp=at - 300_001))[0] is Reason.FUTURE_EVENT
    assert rejection(decoder.purchase, record(value, timestamp=-(10**18)))[0] is Reason.FUTURE_EVENT


# --- meaning


def test_a_refund_that_is_worth_less_than_a_cent_is_a_refund_of_nothing_but_valid(
    program: Program, record: Any
) -> None:
    poor = msgspec.structs.replace(program, rates={"KRW": Decimal("0.0007")})
    decode = EventDecoder(poor).purchase
    refund = PURCHASE | {"type": "refund", "currency": "KRW"}
    assert decode(record(to_json(refund | {"amount": 1}))) == RefundMade(
        "900", "b1", "", "o1", 0, parse_rfc3339(PURCHASE["occurred_at"])
    )
    assert rejection(decode, record(to_json(refund | {"amount": "0"})))[1].startswith("amount: ")


def test_a_field_given_twice_counts_as_its_last(decoder: Any, record: Any) -> None:
    twice = b'{"amount": 5, "customer_id": 7, ' + to_json(PURCHASE)[1:]
    made = decoder.purchase(record(twice))
    assert (made.customer_id, made.amount) == ("900", 1240)
    last_wrong = to_json(PURCHASE)[:-1] + b', "customer_id": 7}'
    assert rejection(decoder.purchase, record(last_wrong))[1].startswith("customer_id: ")


def test_caches_stay_bounded_and_right(
    program: Program, record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from schemas import amounts

    monkeypatch.setattr(amounts, "_CACHED", 8)
    decoder = EventDecoder(program)
    for cents in [*range(100), *range(100)]:
        value = to_json(PURCHASE | {"amount": f"{cents // 100}.{cents % 100:02d}"})
        made = decoder.purchase(record(value))
        assert made.amount == cents
        assert len(decoder._amounts._seen["USD"]) <= 8


def test_event_keys_are_64_bits_and_tell_pairs_apart_that_read_alike() -> None:
    pairs = [("", "ab"), ("a", "b"), ("ab", ""), ("1", ":a"), ("", "1:1:a"), ("é", "b"), ("", "éb")]
    keys = [event_key(*pair) for pair in pairs]
    assert len(set(keys)) == len(pairs)
    assert all(0 <= key < 2**64 for key in keys)
    # Stored for as long as the ledger: the number must never change.
    assert event_key("pos-7", "b31198570044") == 0xAC5525EE32005D44


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"[" * 30_000 + b"]" * 30_000,
        b"]" * 400 + b"[" * 400,
        b'["' + b'\\"[' * 20_000 + b'"' + b"[" * 400,
        b'"' + b"[" * 60_000,
        b"[" * 129 + b"]" * 129,
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_nested_beyond_reason_is_not_json_without_recursion(
    decoder: Any, record: Any, value: bytes
) -> None:
    assert rejection(decoder.purchase, record(value))[0] is Reason.NOT_JSON


def test_brackets_in_strings_are_not_nesting() -> None:
    check_text(to_json(["[" * 500, '\\"[{' * 500]))
    check_text(b"[" * 128 + b'"' + b"{" * 400 + b'"' + b"]" * 128)
    with pytest.raises(RejectedError, match="128 levels"):
        check_text(b"[" * 129 + b'"' + b"}" * 400 + b'"' + b"]" * 129)


# --- what only a program reads that keeps bonds


def test_a_touchpoint_says_what_bonds_ask_for(bonded: Any, record: Any) -> None:
    made = bonded.touchpoint(record(to_json(TOUCHPOINT | BOND_FIELDS)))
    assert {name: getattr(made, name) for name in BOND_FIELDS} == BOND_FIELDS
    made = bonded.touchpoint(record(to_json(TOUCHPOINT | dict.fromkeys(BOND_FIELDS))))
    assert {name: getattr(made, name) for name in BOND_FIELDS} == dict.fromkeys(BOND_FIELDS)
    assert bonded.touchpoint(record(to_json(TOUCHPOINT))) == made


WRONG = [
    ("subscription_id", "x" * 257),
    ("subscription_id", 5),
    ("trigger_id", "x" * 513),
    ("trigger_id", ["a"]),
    ("timezone", ""),
    ("timezone", "Mars/Base"),
    ("timezone", "asia/tokyo"),
    ("timezone", "../UTC"),
    ("timezone", "+09:00"),
    ("timezone", "x" * 300),
    ("timezone", 9),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: repr(value)[:20])
def test_what_bonds_cannot_use_is_rejected_there_and_unknown_elsewhere(
    decoder: Any, bonded: Any, record: Any, name: str, value: object
) -> None:
    body = to_json(TOUCHPOINT | {name: value})
    for headers in ((), (("ce_specversion", b"1.0"), ("ce_id", b"t1"), ("ce_source", b""))):
        reason, detail = rejection(bonded.touchpoint, record(body, headers=headers))
        assert reason is Reason.INVALID_EVENT
        assert detail.startswith(f"{name}: expected ")
        plain = decoder.touchpoint(record(body, headers=headers))
        assert plain == decoder.touchpoint(record(to_json(TOUCHPOINT)))


def test_a_program_without_bonds_does_not_read_what_only_bonds_ask_for(decoder: Any, record: Any) -> None:
    made = decoder.touchpoint(record(to_json(TOUCHPOINT | BOND_FIELDS)))
    assert made == decoder.touchpoint(record(to_json(TOUCHPOINT)))
    assert {name: getattr(made, name) for name in BOND_FIELDS} == dict.fromkeys(BOND_FIELDS)


def test_a_wrong_time_zone_comes_before_a_future_event(bonded: Any, record: Any) -> None:
    late = record(to_json(TOUCHPOINT | {"timezone": "Mars/Base"}), timestamp=0)
    assert rejection(bonded.touchpoint, late)[0] is Reason.INVALID_EVENT


def test_the_longest_trigger_can_be_sent_back(bonded: Any, record: Any) -> None:
    longest = trigger_id("p" * 64, "c" * 128, "s" * 64, 10**9, 16)
    assert len(longest) > fields.MAX_TEXT
    made = bonded.touchpoint(record(to_json(TOUCHPOINT | {"trigger_id": longest})))
    assert made.trigger_id == longest


def test_a_time_zone_is_known_by_name_where_it_can_be_read() -> None:
    assert is_time_zone("UTC")
    for name in _NAMES:
        assert time_zone(name).key == name
    for name in ("", "Europe", "Mars/Base", "../UTC", "zone.tab", "leapseconds", "europe/paris"):
        assert not is_time_zone(name)
        with pytest.raises(ValueError, match="no "):
            time_zone(name)


# --- the two ways, and arbitrary input

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=20)
    | st.text(st.characters(categories=["L", "Cs"]), max_size=4)  # halves of surrogate pairs
    | st.sampled_from(
        [
            "purchase",
            "refund",
            "touchpoint",
            "clear",
            "gold",
            "Asia/Tokyo",
            "USD",
            "EUR",
            "JPY",
            "BTC",
            "0",
            "1.5",
            "x" * 129,
            "x" * 257,
            "x" * 513,
        ]
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(
    sorted(
        {*PURCHASE, *TOUCHPOINT, *OVERRIDE, *BOND_FIELDS, "source", "store_id", "action", "staff_id", "other"}
    )
)
headers = st.lists(
    st.tuples(
        st.sampled_from(["ce_specversion", "ce_id", "ce_source", "content-type", "trace"]),
        st.none()
        | st.binary(max_size=8)
        | st.sampled_from(
            [b"1.0", b"1.0", b"1.0", b"application/json", b"application/cloudevents+json", b"x" * 129]
        ),
    ),
    max_size=4,
).map(tuple)


@st.composite
def mutated_events(draw: st.DrawFn) -> bytes:
    content: dict[str, Any] = dict(
        draw(st.sampled_from([PURCHASE, PURCHASE | {"type": "refund", "amount": 12.5}, TOUCHPOINT, OVERRIDE]))
    )
    for _ in range(draw(st.integers(0, 2))):
        content[draw(names)] = draw(json_values)
    for _ in range(draw(st.integers(0, 1))):
        content.pop(draw(names), None)
    value = json.dumps(content, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        return value
    at = draw(st.integers(0, len(value)))
    return value[:at] + draw(st.binary(max_size=2)) + value[at + draw(st.integers(0, 2)) :]


@relaxed
@given(
    value=st.binary(max_size=300) | mutated_events(), headers=headers, key=st.none() | st.binary(max_size=9)
)
def test_whatever_comes_is_an_event_or_a_rejection(
    decoder: Any, bonded: Any, record: Any, value: bytes, headers: Any, key: bytes | None
) -> None:
    for decode in (decoder.purchase, decoder.touchpoint, decoder.command, bonded.touchpoint):
        event = outcome(decode, record(value, key, headers))
        if isinstance(event, tuple):
            reason, detail = event
            assert reason in Reason
            assert ": " in detail
            detail.encode()
        else:
            assert isinstance(event, PurchaseMade | RefundMade | TouchpointMade | OverrideCommanded)
            assert event.occurred_at >= 0
            # Whatever is accepted can be written on.
            msgspec.json.encode(event.said())


@relaxed
@given(value=mutated_events(), headers=headers)
def test_the_fast_way_and_the_slow_way_say_the_same(
    slow_decoder: EventDecoder, bonded: EventDecoder, record: Any, value: bytes, headers: Any
) -> None:
    ways = (slow_decoder.purchase, slow_decoder.touchpoint, bonded.touchpoint)
    # The slow decoder's fixture has replaced the typed decoders for the whole test: back for a moment.
    with pytest.MonkeyPatch.context() as fast_again:
        for name, shape in SHAPES.items():
            fast_again.setattr(reading, name, msgspec.json.Decoder(shape))
        fast = [outcome(decode, record(value, headers=headers)) for decode in ways]
    assert fast == [outcome(decode, record(value, headers=headers)) for decode in ways]


SHAPES = {
    "_PURCHASE": bodies.Purchase,
    "_PURCHASE_BODY": bodies.PurchaseBody,
    "_TOUCHPOINT": bodies.Touchpoint,
    "_TOUCHPOINT_BODY": bodies.TouchpointBody,
    "_BOND_TOUCHPOINT": bodies.BondTouchpoint,
    "_BOND_TOUCHPOINT_BODY": bodies.BondTouchpointBody,
}


@relaxed
@given(value=st.binary(max_size=200) | mutated_events())
def test_not_json_comes_before_invalid_event(decoder: Any, record: Any, value: bytes) -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        json.loads(value.decode("utf-8"), parse_constant=refuse)
        is_json = True
    except ValueError:
        is_json = False
    for decode in (decoder.purchase, decoder.touchpoint, decoder.command):
        result = outcome(decode, record(value))
        assert (isinstance(result, tuple) and result[0] is Reason.NOT_JSON) == (not is_json)


@relaxed
@given(
    text=st.text("0123456789.", min_size=1, max_size=17) | st.decimals(0, 10**14, places=2).map(str),
    as_number=st.booleans(),
    currency=st.sampled_from(["USD", "EUR"]),
)
def test_amounts_are_read_as_decimal_reads_them(
    decoder: Any, record: Any, text: str, as_number: bool, currency: str
) -> None:
    value = to_json(PURCHASE | {"amount": "@", "currency": currency})
    value = value.replace(b'"@"', text.encode() if as_number else f'"{text}"'.encode())
    result = outcome(decoder.purchase, record(value))
    whole, _, fraction = text.partition(".")
    plain = whole.isdigit() and (whole == "0" or whole[0] != "0") and len(whole) <= 13
    if plain and (fraction.isdigit() or "." not in text) and len(fraction) <= 2:
        assert isinstance(result, PurchaseMade)
        exact = Decimal(text) * (Decimal("1.08") if currency == "EUR" else 1) * 100
        assert result.amount == exact.to_integral_value("ROUND_HALF_EVEN")
    else:
        assert isinstance(result, tuple)
        assert result[0] in {Reason.INVALID_EVENT, Reason.NOT_JSON}


def test_the_typed_shapes_have_the_fields_of_the_published_tables() -> None:
    def optional(shape: type[msgspec.Struct]) -> dict[str, bool]:
        return {field.name: not field.required for field in msgspec.structs.fields(shape)}

    def table(rows: tuple[fields.TextField, ...]) -> dict[str, bool]:
        return {row.name: not row.required for row in (*fields.IDENTITY_FIELDS, *rows)}

    assert optional(bodies.Purchase) == {**table(fields.PURCHASE_FIELDS), "amount": False}
    assert optional(bodies.Touchpoint) == table(fields.PLAIN_TOUCHPOINT_FIELDS)
    assert optional(bodies.BondTouchpoint) == table(fields.TOUCHPOINT_FIELDS)
    assert PurchaseMade.FIELDS == RefundMade.FIELDS
    # The decoder asks for them by their places.
    assert bodies.Purchase.__struct_fields__[:10] == bodies.PurchaseBody.__struct_fields__


@pytest.mark.parametrize("type_", ["purchase", "refund"])
def test_each_field_of_a_purchase_is_where_it_belongs(decoder: EventDecoder, record: Any, type_: str) -> None:
    places = {name: f"the {name}" for name in ("channel", "store_id", "campaign_id", "subscription_id")}
    body = PURCHASE | places | {"type": type_, "source": "pos"}
    told = {"occurred_at": parse_rfc3339(body["occurred_at"]), "amount": 12_40}
    event = decoder.purchase(record(json.dumps(body).encode()))
    assert event.said() == {name: told.get(name, body.get(name)) for name in PurchaseMade.FIELDS}


@pytest.mark.parametrize(
    "event",
    [
        PurchaseMade("c", "e", "s", "o", 5, 7, "web"),
        RefundMade("c", "e", "s", "o", 5, 7, None, "s1"),
        TouchpointMade("c", "e", "s", 7, "email", "inbound"),
        OverrideCommanded("c", "e", "s", 7, "pin", "gold", 9, "who", "why"),
    ],
)
def test_an_event_with_other_fields_is_another_event(event: InputEvent) -> None:
    assert event.but() == event
    assert event.but() is not event
    for name, value in event.said().items():
        other = event.but(**{name: 11 if isinstance(value, int) else "floor"})
        assert other != event
        assert {key for key in event.FIELDS if getattr(other, key) != getattr(event, key)} == {name}
        assert f"{name}={getattr(other, name)!r}" in repr(other)
    assert PurchaseMade("c", "e", "s", "o", 5, 7) != RefundMade("c", "e", "s", "o", 5, 7)
