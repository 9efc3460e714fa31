"""Each record becomes an event, a dead letter, or a record to send on."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from schemas.murmur2 import home
from schemas.program import Program
from schemas.rejection import Reason
from schemas.reroute import REROUTED_HEADER
from streams.intake import Intake
from streams.protocols import COMMANDS, PURCHASES, TOUCHPOINTS, Batch
from streams.settings import Settings
from streams.topics import DEAD_LETTERS
from tests.streams.conftest import HandMadeRecord

PARTITIONS = 12
HERE = home(b"900", PARTITIONS)


@pytest.fixture
def intake(grocery: Program) -> Intake:
    return Intake(Settings(topic_prefix="shop."), grocery, PARTITIONS)


def body(**given: Any) -> bytes:
    purchase = {
        "event_id": "e1",
        "type": "purchase",
        "customer_id": "900",
        "occurred_at": "2017-04-02T11:53:26Z",
        "order_id": "o1",
        "amount": "5.00",
        "currency": "USD",
    }
    return json.dumps(purchase | given).encode()


def contact(**given: Any) -> bytes:
    touchpoint = {
        "event_id": "t1",
        "type": "touchpoint",
        "customer_id": "900",
        "occurred_at": "2017-04-02T11:53:26Z",
        "channel": "email",
        "direction": "outbound",
    }
    return json.dumps(touchpoint | given).encode()


def record(value: bytes | None, key: bytes | None = b"900", **given: Any) -> HandMadeRecord:
    return HandMadeRecord(given.pop("offset", 7), key, value, **given)


def batch(*records: HandMadeRecord, topic: str = PURCHASES, partition: int = HERE) -> Batch:
    return Batch(topic, partition, 0, len(records), records)


def only(headers: Sequence[tuple[str, bytes | None]], name: str) -> bytes | None:
    [value] = [v for n, v in headers if n == name]
    return value


def test_events_come_in_order_each_beside_its_record(intake: Intake) -> None:
    records = [record(body(event_id=str(n)), offset=n) for n in range(3)]
    events, out = intake.read(batch(*records))
    assert [read for read, _ in events] == records
    assert [event.customer_id for _, event in events] == ["900"] * 3
    assert out == []


def test_touchpoints_are_read_as_touchpoints(intake: Intake) -> None:
    events, out = intake.read(batch(record(contact()), topic=TOUCHPOINTS))
    assert len(events) == 1
    assert out == []


@pytest.mark.parametrize(
    ("key", "partition"),
    [(None, HERE), (b"other", HERE), (b"", HERE), (b"900", (HERE + 1) % PARTITIONS)],
    ids=["no key", "another key", "an empty key", "another partition"],
)
def test_a_misplaced_record_is_sent_on_to_where_its_customer_lives(
    intake: Intake, key: bytes | None, partition: int
) -> None:
    headers = [("trace", b"1"), ("empty", None)]
    events, [entry] = intake.read(batch(record(body(), key, headers=headers), partition=partition))
    assert events == []
    assert (entry.topic, entry.partition, entry.key, entry.value) == (PURCHASES, HERE, b"900", body())
    assert list(entry.headers) == [*headers, (REROUTED_HEADER, b"1")]
    assert entry.reason is None


def test_what_was_sent_on_and_arrived_is_an_event(intake: Intake) -> None:
    events, out = intake.read(batch(record(body(), headers=[(REROUTED_HEADER, b"1")])))
    assert len(events) == 1
    assert out == []


def test_what_is_still_wrong_after_it_was_sent_on_is_a_dead_letter(intake: Intake) -> None:
    headers = [("trace", b"1"), (REROUTED_HEADER, b"1")]
    events, [entry] = intake.read(
        batch(record(body(), b"other", headers=headers, timestamp=1_600_000_000_099))
    )
    assert events == []
    assert (entry.topic, entry.reason) == (DEAD_LETTERS, Reason.MISROUTED)
    assert (entry.key, entry.value) == (b"other", body())
    assert list(entry.headers[:2]) == headers
    assert only(entry.headers, "dlq-reason") == b"misrouted"
    assert only(entry.headers, "dlq-topic") == b"shop.purchases"
    assert only(entry.headers, "dlq-partition") == str(HERE).encode()
    assert only(entry.headers, "dlq-offset") == b"7"
    assert only(entry.headers, "dlq-timestamp") == b"1600000000099"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (bytes(65 * 1024), Reason.TOO_LARGE),
        (b"{", Reason.NOT_JSON),
        (b"", Reason.NOT_JSON),
        (None, Reason.INVALID_EVENT),
        (body(amount="-1"), Reason.INVALID_EVENT),
        (body(currency="JPY", amount="5"), Reason.UNSUPPORTED_CURRENCY),
        (body(occurred_at="2100-01-01T00:00:00Z"), Reason.FUTURE_EVENT),
    ],
)
def test_what_cannot_be_used_is_a_dead_letter_as_it_was(
    intake: Intake, value: bytes | None, reason: Reason
) -> None:
    events, [entry] = intake.read(batch(record(value)))
    assert events == []
    assert (entry.topic, entry.reason, entry.key, entry.value) == (DEAD_LETTERS, reason, b"900", value)
    assert only(entry.headers, "dlq-reason") == str(reason).encode()


def test_what_is_wrong_and_misplaced_is_a_dead_letter_at_once(intake: Intake) -> None:
    _, [entry] = intake.read(batch(record(b"{", b"other")))
    assert entry.reason is Reason.NOT_JSON


def test_every_command_is_a_dead_letter_for_now(intake: Intake) -> None:
    command = b'{"type":"erase","customer_id":"900"}'
    events, [entry] = intake.read(batch(record(command), topic=COMMANDS))
    assert events == []
    assert entry.reason is Reason.INVALID_EVENT


def test_one_bad_record_does_not_keep_the_others(intake: Intake) -> None:
    events, out = intake.read(batch(record(body()), record(b"{"), record(body(), b"x"), record(body())))
    assert len(events) == 2
    assert [entry.topic for entry in out] == [DEAD_LETTERS, PURCHASES]
