"""Records that nobody asked for: bad ones with the reason for which each must be a dead letter, odd ones that count."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.space import purchase, text_of, touchpoint

Headers = list[tuple[str, bytes | None]]


class Fuzzed(NamedTuple):
    """One record. `reasons`: for any of which it may be a dead letter; none where it must count."""

    kind: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    reasons: tuple[str, ...]
    #: Whose event it is, where it counts.
    customer: str = ""


def fuzz(seed: int) -> Iterator[Callable[[int], Fuzzed]]:
    """For ever: what makes a record of the time it is given, epoch milliseconds."""
    number = 0
    random_ = random.Random(seed)
    while True:
        number += 1
        maker, name = _Maker(random_, number), random_.choice(_KINDS)
        yield lambda at, maker=maker, name=name: getattr(maker, name)(at)._replace(kind=name)


#: Fields that must be there, and be text.
_REQUIRED = ("event_id", "type", "customer_id", "occurred_at", "order_id", "currency")
_TEXTS_GONE_WRONG: list[Any] = [1, -1.5, True, None, [], {}, ["a"], {"a": "b"}]
_AMOUNTS_GONE_WRONG = [
    *(
        '"-1.00"',
        '"1e3"',
        "1e3",
        "-1",
        "-0",
        '"1.001"',
        "1.001",
        '"10000000000000.00"',
        "10000000000000",
        '""',
    ),
    *(
        '" 1"',
        '"01"',
        '"1."',
        '".5"',
        "null",
        "true",
        "[1]",
        '{"a": 1}',
        '"NaN"',
        '"\\u0661"',
        "1E400",
        '"1,00"',
    ),
]
_NUMBERS_THAT_ARE_NONE = ["NaN", "Infinity", "-Infinity", "+1", "01", "0x10", ".5", "1.", "- 1", "1_000"]
_TIMES_GONE_WRONG = [
    *(
        "1969-12-31T23:59:59Z",
        "2017-02-29T00:00:00Z",
        "2017-01-01",
        "2017-01-01T00:00:00",
        "0001-01-01T00:00:00Z",
    ),
    *(
        "2017-01-01T25:00:00Z",
        "2017-01-01T00:00:00+25:00",
        "yesterday",
        "",
        "1483228800000",
        "2017-13-01T00:00:00Z",
    ),
]
_ENVELOPES_GONE_WRONG: list[Headers] = [
    [("ce_specversion", b"0.3"), ("ce_id", b"x")],
    [("ce_specversion", b""), ("ce_id", b"x")],
    [("ce_specversion", b"1.0 "), ("ce_id", b"x")],
    [("ce_specversion", None)],
    [("ce_specversion", b"1.0"), ("ce_id", b"\xff\xfe")],
    [("ce_specversion", b"1.0"), ("ce_id", b"")],
    [("ce_specversion", b"1.0"), ("ce_id", b"x" * 129)],
    [("ce_specversion", b"1.0"), ("ce_source", b"s" * 129)],
    [("ce_specversion", b"1.0"), ("ce_source", b"\xc3(")],
    [("ce_specversion", b"1.0"), ("ce_id", b"x"), ("ce_specversion", b"2.0")],
    [("content-type", b"application/cloudevents+json; charset=utf-8")],
    [("Content-Type", b" APPLICATION/CLOUDEVENTS-batch+json")],
]
_ENVELOPES: list[Headers] = [
    [("ce_specversion", b"1.0")],
    [("ce_specversion", b"1.0"), ("ce_id", b"x" * 128), ("ce_source", b"")],
    [("ce_specversion", b"1.0"), ("ce_id", "ü".encode() * 128)],
    [("ce_specversion", b"1.0"), ("ce_id", None), ("content-type", b"application/json")],
    [("ce_id", b""), ("ce_source", b"\xff")],  # no CloudEvent: nobody looks at them
    [("ce_specversion", b"0.3"), ("ce_specversion", b"1.0")],  # the last one counts
]


class _Maker:
    """Makes one record."""

    def __init__(self, random_: random.Random, number: int) -> None:
        # Its own, so that what is made does not depend on when it is made.
        self._random = random.Random(random_.random())
        self._number = number
        self._customer = f"fuzzed{number}"

    def _event(self, at: int, **fields: Any) -> dict[str, Any]:
        return purchase(self._customer, f"fuzzed{self._number}", "1.00", at) | fields

    def _bad(
        self, value: bytes | None, *reasons: str, headers: Headers | tuple[()] = (), key: bytes | None = b""
    ) -> Fuzzed:
        return Fuzzed(
            "", "purchases", self._customer.encode() if key == b"" else key, value, list(headers), reasons
        )

    def _counts(self, event: dict[str, Any], headers: Headers | tuple[()] = (), text: str = "") -> Fuzzed:
        value = (text or json.dumps(event)).encode()
        return Fuzzed(
            "", "purchases", event["customer_id"].encode(), value, list(headers), (), event["customer_id"]
        )

    def _with(self, at: int, field: str, text: str) -> bytes:
        """An event with this text in the place of a value."""
        return json.dumps(self._event(at, **{field: "HERE"})).replace('"HERE"', text).encode()

    # -- what cannot be used -------------------------------------------------------------------------------

    def raw_bytes(self, at: int) -> Fuzzed:
        return self._bad(b"\xff" + self._random.randbytes(self._random.randrange(2_000)), "not_json")

    def text_that_is_no_json(self, at: int) -> Fuzzed:
        letters = [chr(self._random.randrange(32, 0xD7FF)) for _ in range(self._random.randrange(1, 500))]
        return self._bad(f"x{''.join(letters)}".encode(), "not_json")

    def cut_json(self, at: int) -> Fuzzed:
        value = json.dumps(self._event(at)).encode()
        return self._bad(value[: self._random.randrange(1, len(value))], "not_json")

    def json_and_more(self, at: int) -> Fuzzed:
        more = self._random.choice([b"}", b"{}", b",", b"\x00", b"null", b"\xef\xbb\xbf"])
        return self._bad(json.dumps(self._event(at)).encode() + more, "not_json")

    def another_json_value(self, at: int) -> Fuzzed:
        value = self._random.choice(
            [b"null", b"0", b'""', b"[]", b"{}", b"true", b"[{}]", b'{"": {}}', b"-1e-400"]
        )
        return self._bad(value, "invalid_event")

    def null_value(self, at: int) -> Fuzzed:
        return self._bad(None, "invalid_event", key=self._random.choice([b"", None]))

    def empty_value(self, at: int) -> Fuzzed:
        return self._bad(self._random.choice([b"", b" ", b"\n\t"]), "not_json")

    def wrong_type(self, at: int) -> Fuzzed:
        field, value = self._random.choice(_REQUIRED), self._random.choice(_TEXTS_GONE_WRONG)
        return self._bad(json.dumps(self._event(at, **{field: value})).encode(), "invalid_event")

    def missing_field(self, at: int) -> Fuzzed:
        event = self._event(at)
        del event[self._random.choice([*_REQUIRED, "amount"])]
        return self._bad(json.dumps(event).encode(), "invalid_event")

    def unknown_type(self, at: int) -> Fuzzed:
        kind = self._random.choice(["gift", "Purchase", "", "touchpoint", "override", "purchase\x00"])
        return self._bad(json.dumps(self._event(at, type=kind)).encode(), "invalid_event")

    def wrong_amount(self, at: int) -> Fuzzed:
        return self._bad(self._with(at, "amount", self._random.choice(_AMOUNTS_GONE_WRONG)), "invalid_event")

    def no_number(self, at: int) -> Fuzzed:
        return self._bad(self._with(at, "amount", self._random.choice(_NUMBERS_THAT_ARE_NONE)), "not_json")

    def wrong_time(self, at: int) -> Fuzzed:
        text = json.dumps(self._random.choice(_TIMES_GONE_WRONG))
        return self._bad(self._with(at, "occurred_at", text), "invalid_event")

    def future(self, at: int) -> Fuzzed:
        text = self._random.choice(["9999-12-31T23:59:59.999Z", "2199-01-01T00:00:00+14:00"])
        return self._bad(json.dumps(self._event(at, occurred_at=text)).encode(), "future_event")

    def too_long(self, at: int) -> Fuzzed:
        field = self._random.choice(["event_id", "customer_id", "order_id", "source"])
        text = self._random.choice("xü絆") * 129
        return self._bad(json.dumps(self._event(at, **{field: text})).encode(), "invalid_event")

    def unknown_currency(self, at: int) -> Fuzzed:
        text = self._random.choice(["EUR", "XTS", "GBP"])
        return self._bad(json.dumps(self._event(at, currency=text)).encode(), "unsupported_currency")

    def deep(self, at: int) -> Fuzzed:
        depth = self._random.choice([128, 1_000, 5_000, 30_000])
        brackets = self._random.choice([("[", "]"), ('{"a":', "}")])
        if brackets[0] == '{"a":':
            depth = min(depth, 5_000)
        inner = "1" if brackets[0] != "[" else ""
        return self._bad(
            self._with(at, "note", brackets[0] * depth + inner + brackets[1] * depth), "not_json"
        )

    def control_character(self, at: int) -> Fuzzed:
        field = self._random.choice([*_REQUIRED, "note"])
        text = chr(self._random.randrange(32))
        return self._bad(self._with(at, field, f'"a{text}b"'), "not_json")

    def lone_surrogate_of_a_customer(self, at: int) -> Fuzzed:
        text = self._random.choice(['"\\ud800"', '"a\\udfff"', '"\\ude00\\ud83d"'])
        return self._bad(self._with(at, "customer_id", text), "not_json", "invalid_event")

    def half_utf_8(self, at: int) -> Fuzzed:
        half = self._random.choice(
            [b"\xc3", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xc0\x80", b"\xf8\x88\x80\x80\x80"]
        )
        return self._bad(self._with(at, "note", '"HALF"').replace(b"HALF", half), "not_json")

    def wrong_envelope(self, at: int) -> Fuzzed:
        headers = self._random.choice(_ENVELOPES_GONE_WRONG)
        return self._bad(json.dumps(self._event(at)).encode(), "invalid_event", headers=headers)

    def large(self, at: int) -> Fuzzed:
        size = self._random.choice([66_000, 100_000])
        value = json.dumps(self._event(at)).encode()
        match self._random.randrange(3):
            case 0:
                return self._bad(value + b" " * size, "too_large")
            case 1:
                return self._bad(value, "too_large", headers=[("x", b"\x00" * size)])
            case _:
                return self._bad(value, "too_large", key=self._random.randbytes(size))

    # -- what is odd, and counts ---------------------------------------------------------------------------

    def odd_headers(self, at: int) -> Fuzzed:
        headers: Headers = self._random.choice(
            [
                [("", b""), ("", None)],
                [("x" * 10_000, b"\x00\xff" * 10_000)],
                [(f"h{n}", None if n % 2 else b"\xff") for n in range(1_000)],
                [("dlq-reason", b"too_late"), ("traceparent", b"\xff")],
                [("名", "前".encode())],
            ]
        )
        return self._counts(self._event(at), headers)

    def odd_text(self, at: int) -> Fuzzed:
        customer = self._random.choice(["é", "e\u0301", "絆", "😀", " ", "a/b", "{0}", "\u202e", "'; --"])
        customer += str(self._number)
        return self._counts(self._event(at, customer_id=customer, order_id=customer[:1], note="\u0000\ufffe"))

    def nested(self, at: int) -> Fuzzed:
        return self._counts(self._event(at), text=self._with(at, "note", "[" * 100 + "]" * 100).decode())

    def bounds(self, at: int) -> Fuzzed:
        event = self._event(at, source="ü" * 128, event_id="x" * 128, order_id="😀" * 128)
        amount = self._random.choice(['"9999999999999.99"', "9999999999999.99", "0", '"0.00"', "0.0", '"1"'])
        return self._counts(event, text=json.dumps(event | {"amount": "HERE"}).replace('"HERE"', amount))

    def given_twice(self, at: int) -> Fuzzed:
        text = json.dumps(self._event(at))
        return self._counts(self._event(at), text=f'{{"amount": [], "type": 1, {text[1:]}')

    def odd_time(self, at: int) -> Fuzzed:
        text = text_of(at).replace("Z", self._random.choice(["999999Z", "+00:00", "-00:00"]))
        return self._counts(self._event(at, occurred_at=text))

    def envelope(self, at: int) -> Fuzzed:
        return self._counts(self._event(at), self._random.choice(_ENVELOPES))

    def wrong_key(self, at: int) -> Fuzzed:
        """Sent on, and counted where it belongs. A touchpoint: it moves no clock."""
        value = json.dumps(touchpoint(self._customer, self._number, "web", "inbound", at)).encode()
        key = self._random.choice([None, b"", b"\xff", b"somebody else"])
        return Fuzzed("", "touchpoints", key, value, [("x", b"\xff")], (), self._customer)


_KINDS = [name for name in vars(_Maker) if not name.startswith("_")]
