"""What the tests of `kizuna rebuild` share: a stream of events, the command, and what must be right after it."""

import json
import random
from collections import Counter
from typing import Any

from cli.demo.check import compare_changes, compare_states, compute, read_published, read_states
from cli.demo.data import Event
from tests.space import (
    DAY,
    TOPICS,
    Space,
    purchase,
    refund,
    touchpoint,
    wait_until,
)

START = 1_500_000_000_000
EVENTS = 16_000
SHARED = {"clock": "event", "window": "30d", "ledger": "120d", "silver": "100.00"}


def stream(customers: int = 250) -> list[dict[str, Any]]:
    """In order of time; over twice the window, so that customers rise and fall."""
    random_ = random.Random(7)
    events: list[dict[str, Any]] = []
    for number in range(EVENTS):
        customer, at = f"c{random_.randrange(customers)}", START + number * (60 * DAY // EVENTS)
        kind = random_.randrange(10)
        if kind == 0:
            events.append(touchpoint(customer, number, "email", "outbound", at))
        elif kind == 1 and events:
            events.append(refund(customer, number, f"o{random_.randrange(number)}", "9.00", at))
        else:
            events.append(purchase(customer, number, f"{random_.randrange(3_000) / 100:.2f}", at))
    return events


def strays(count: int, position: int) -> list[dict[str, Any]]:
    """One purchase each of customers of their own, at that place of the stream: when it is read does not matter."""
    at = START + position * (60 * DAY // EVENTS)
    return [purchase(f"s{position}/{n}", f"s{position}/{n}", "150.00", at) for n in range(count)]


def send_broken(space: Space, count: int) -> None:
    """Records that are no events."""
    for number in range(count):
        space.send("purchases", b'{"event_id": "x%d"' % number, f"c{number}".encode())
    space.flush()


def send_by_crc32(space: Space, events: list[dict[str, Any]]) -> None:
    """As librdkafka's clients place them by default: many in the wrong partition."""
    producer = space.confluent(partitioner="consistent")
    for event in events:
        topic = space.topic(TOPICS.get(event["type"], "purchases"))
        producer.produce(topic, json.dumps(event).encode(), event["customer_id"].encode())
    assert producer.flush(30) == 0


def rebuild(space: Space, *arguments: str, **env: Any) -> dict[str, Any]:
    done = space.kizuna("rebuild", "--yes", "--json", *arguments, **env)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def workers_stop(space: Space) -> None:
    """The store is gone under their feet."""
    for worker in space.workers:
        wait_until(lambda w=worker: w.process.poll() is not None, 60, "the workers stop")
        last = worker.log.read_text().splitlines()[-1]
        assert "the store is empty" in last
        assert "kizuna rebuild" in last


async def matches_the_batch(
    space: Space, events: list[dict[str, Any]], dead: int = 0, *, moved: bool = False
) -> None:
    """Every state, every change and every dead letter; each change once, each dead letter once.

    `moved`: there were fewer partitions once, and what was published then stands where it stood.
    """
    expected = compute(space.program, [_event(event) for event in events], space.partitions, lambda _: None)
    count = sum(map(len, expected.changes.values()))
    assert count > 250
    wait_until(lambda: len(space.read("tier-changes")) >= count, 60, f"{count} changes")
    found = read_published(space.settings, space.partitions)
    if moved:
        found = found._replace(misplaced=0, newest=_largest(space), changes=_by_number(found.changes))
    states = await read_states(space.settings, space.program)
    assert compare_states(states, expected.states).differences == []
    assert compare_changes(found, expected.changes).differences == []
    twice = Counter(record.header["ce_id"] for record in space.read_with_confluent("tier-changes"))
    assert [key for key, times in twice.items() if times > 1] == []
    letters = Counter(
        tuple(record.header[name] for name in ("dlq-topic", "dlq-partition", "dlq-offset"))
        for record in space.read("dead-letters")
    )
    assert [place for place, times in letters.items() if times > 1] == []
    assert len(letters) == dead + sum(expected.dead_letters.values())


def _largest(space: Space) -> dict[str, dict[str, Any]]:
    """Of each customer the record of the largest number, as a reader of a table with more partitions keeps it."""
    found: dict[str, dict[str, Any]] = {}
    for body in sorted((r.json for r in space.read("customer-tiers")), key=lambda body: body["tier_seq"]):
        found[body["customer_id"]] = body
    return found


def _by_number(changes: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {i: sorted(bodies, key=lambda body: body["tier_seq"]) for i, bodies in changes.items()}


def _event(event: dict[str, Any]) -> Event:
    topic = TOPICS.get(event["type"], "purchases")
    return Event(topic, event["customer_id"].encode(), json.dumps(event).encode(), 0)


def more_partitions(space: Space, count: int) -> None:
    done = space.kizuna("topics", "add-partitions", str(count), "--json")
    assert done.returncode == 0, done.stderr.decode()
    space.grown(count)
