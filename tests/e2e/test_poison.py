"""Each record that cannot be used is one dead letter, and costs its neighbours nothing."""

import json
from collections.abc import Callable

import pytest

from tests.space import Space, purchase

AT = "2017-04-01T12:00:00Z"


def bad(**fields: object) -> bytes:
    return json.dumps(purchase("somebody", 1, "1.00", AT) | fields).encode()


def without(field: str) -> bytes:
    event = purchase("somebody", 1, "1.00", AT)
    del event[field]
    return json.dumps(event).encode()


def amount(text: str) -> bytes:
    return bad(amount="HERE").replace(b'"HERE"', text.encode())


POISON: dict[str, tuple[bytes | None, str, str]] = {
    "not JSON": (b"{oops", "not_json", "value"),
    "nothing": (b"", "not_json", "value"),
    "not UTF-8": (bad(channel="HERE").replace(b"HERE", b"\xff"), "not_json", "value"),
    "an array": (b"[]", "invalid_event", "value"),
    "null": (None, "invalid_event", "value"),
    "no order_id": (without("order_id"), "invalid_event", "order_id"),
    "no event_id": (without("event_id"), "invalid_event", "event_id"),
    "no amount": (without("amount"), "invalid_event", "amount"),
    "NaN": (amount("NaN"), "not_json", "value"),
    "1e400": (amount("1e400"), "invalid_event", "amount"),
    "negative": (amount('"-1.00"'), "invalid_event", "amount"),
    "too many decimals": (amount("1.001"), "invalid_event", "amount"),
    "naive time": (bad(occurred_at="2017-04-01T12:00:00"), "invalid_event", "occurred_at"),
    "year 1": (bad(occurred_at="0001-01-01T00:00:00Z"), "invalid_event", "occurred_at"),
    "year 9999": (bad(occurred_at="9999-12-31T23:59:59Z"), "future_event", "occurred_at"),
    "900 kB": (bad(note="x" * 900_000), "too_large", "record"),
    "5,000 levels deep": (
        bad(note="HERE").replace(b'"HERE"', b"[" * 5_000 + b"]" * 5_000),
        "not_json",
        "value",
    ),
    "unknown currency": (bad(currency="XTS"), "unsupported_currency", "currency"),
    "a currency without a rate": (bad(currency="EUR"), "unsupported_currency", "currency"),
}


@pytest.fixture(scope="module")
def space(module_space: Callable[..., Space]) -> Space:
    """Each poison under a key of its own, between two good purchases of that customer."""
    made = module_space(clock="event")
    made.worker()
    for name, (value, _, _) in POISON.items():
        for number, record in enumerate(
            (purchase(name, 1, "60.00", AT), value, purchase(name, 2, "50.00", AT))
        ):
            data = json.dumps(record).encode() if number != 1 else value
            made.send("purchases", data, name.encode())
    made.send("customer-commands", bad(), b"a command")
    made.flush()
    made.wait_read()
    return made


@pytest.mark.parametrize("name", POISON)
def test_poison_is_one_dead_letter_with_its_reason_and_field_and_its_neighbours_count(
    space: Space, name: str
) -> None:
    value, reason, field = POISON[name]
    (letter,) = (r for r in space.read("dead-letters") if r.key == name.encode())
    assert letter.value == value
    assert letter.header["dlq-reason"] == reason.encode()
    assert (letter.header["dlq-detail"] or b"").startswith(f"{field}: ".encode())
    hash_ = space.readable(name)
    assert (hash_["lifetime_orders"], hash_["monetary"], hash_["tier"]) == ("2", "110.00", "silver")
    assert [change["cause_event_id"] for change in space.changes(name)] == ["e2"]


def test_every_customer_command_is_a_dead_letter_until_there_are_commands(space: Space) -> None:
    (letter,) = (r for r in space.read("dead-letters") if r.key == b"a command")
    assert (letter.header["dlq-reason"], letter.header["dlq-topic"]) == (
        b"invalid_event",
        space.topic("customer-commands").encode(),
    )


def test_nothing_else_is_a_dead_letter_and_nobody_else_a_customer(space: Space) -> None:
    assert len(space.read("dead-letters", "read_uncommitted")) == len(POISON) + 1
    assert {json.loads(line)["customer_id"] for line in space.dump("2017-04-02T00:00:00Z")} == set(POISON)


def test_an_event_from_the_future_is_judged_by_the_brokers_clock_and_a_late_one_by_the_ledger(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(clock="event", ledger="365d", partitions=1)
    space.worker()
    space.publish(
        [
            purchase("a", 1, "5.00", "2017-06-01T00:00:00Z"),
            purchase("a", 2, "5.00", "2016-06-01T00:00:00Z"),  # exactly the ledger: in time
            purchase("a", 3, "5.00", "2016-05-31T23:59:59.999Z"),
        ]
    )
    space.wait_read()
    (letter,) = space.read("dead-letters")
    assert letter.json["event_id"] == "e3"
    assert letter.header["dlq-reason"] == b"too_late"
    assert space.readable("a")["lifetime_orders"] == "2"


class Latin1(str):
    """A header's name as careless clients in other languages send it; Python's encode names."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


def test_a_header_whose_name_is_not_utf_8_stops_nobody_and_its_event_counts(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(clock="event", partitions=1)
    space.worker()
    for number, headers in enumerate([(), [(Latin1("café"), b"x")], ()]):
        value = json.dumps(purchase("a", number, "40.00", AT)).encode()
        space.send("purchases", value, b"a", headers=headers)
    space.send("purchases", b"{oops", b"a", headers=[(Latin1("café"), b"x")])
    space.flush()
    space.wait_read()
    assert space.readable("a")["lifetime_orders"] == "3"
    (letter,) = space.read("dead-letters")
    assert letter.headers[0] == ("caf\\xe9", b"x")
    assert letter.header["dlq-reason"] == b"not_json"
