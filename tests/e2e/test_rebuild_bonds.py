"""`kizuna rebuild` with bonds on real servers: what was told is told once, and what follows goes on from it."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from streams.topics import BOND_TOPICS
from tests.space import DAY, PROGRAM, Space, purchase, touchpoint, wait_until

START = 1_500_000_000_000
HOUR = DAY // 24
BONDS = """
[attachment]
window = "20d"
points = [{ points = 3, action = "review" }, { points = 1 }]

[contact_policy]
caps = [{ channel = "email", most = 2, within = "10d" }]
lapse = "1d"

[holdout]
share = "0.2"
salt = "rebuilt"

[[scenarios]]
name = "welcome"
when = "first_order"
after = "1d"
goal = "none"
steps = [{ channel = "email", content = "hello" }, { channel = "email", content = "again", wait = "2d" }]

[attribution]
window = "3d"
"""


def stream(count: int, first: int = 0) -> list[dict[str, Any]]:
    """In order of time, an hour from one to the next."""
    random_ = random.Random(f"bonds {first}")
    events: list[dict[str, Any]] = []
    for number in range(first, first + count):
        customer, at = f"c{random_.randrange(60)}", START + number * HOUR
        if random_.random() < 0.4:
            event = touchpoint(customer, number, random_.choice(("web", "sns")), "inbound", at)
            events.append(event | ({"action": "review"} if random_.random() < 0.3 else {}))
        else:
            store = {"store_id": "s1"} if random_.random() < 0.5 else {}
            amount = f"{random_.randrange(1, 9_000) / 100:.2f}"
            events.append(purchase(customer, number, amount, at, **store))
    return events


def told(space: Space) -> dict[str, list[dict[str, Any]]]:
    """By customer what was published of its bond, in the order of its marks; each id once, `seq` without holes."""
    found: defaultdict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    ids: Counter[str] = Counter()
    for topic in BOND_TOPICS:
        for record in space.read(topic):
            ids[record.json["event_id"]] += 1
            mark = json.loads(record.header["loyalty-bond"] or b"")
            assert record.partition == space.home(record.json["customer_id"])
            found[record.json["customer_id"]].append((mark["seq"], record.json))
    assert [event_id for event_id, times in ids.items() if times > 1] == []
    for records in found.values():
        records.sort(key=lambda one: one[0])
        assert [seq for seq, _ in records] == list(range(1, len(records) + 1))
    return {customer_id: [body for _, body in records] for customer_id, records in found.items()}


def all_is_out(space: Space) -> bool:
    """Whether all is read, and all that was decided is published."""
    outboxes = [f"{space.name}:{{{p}}}:outbox" for p in range(space.partitions)]
    return space.all_is_read() and not any(space.redis.llen(key) for key in outboxes)


def segments(bodies: dict[str, list[dict[str, Any]]]) -> dict[str, str]:
    """The segment that each customer was told last."""
    return {c: [body for body in told if "segment_seq" in body][-1]["segment"] for c, told in bodies.items()}


def shown(space: Space) -> dict[str, str]:
    """The segment that any client reads."""
    keys = [
        key
        for p in range(space.partitions)
        for key in space.redis.scan_iter(f"{space.name}:{{{p}}}:customer:*")
    ]
    return {key.rpartition(":")[2]: space.redis.hget(key, "segment") for key in keys}


@pytest.mark.parametrize("is_lost", [True, False])
def test_what_was_told_of_bonds_is_told_once_also_from_an_emptied_redis(
    new_space: Callable[..., Space], is_lost: bool
) -> None:
    text = PROGRAM.format(window="30d", ledger="120d", silver="100.00") + BONDS
    space = new_space(partitions=3, clock="event", program=text)
    worker = space.worker()
    events = stream(1_500)
    space.publish(events[:1_000])
    wait_until(lambda: all_is_out(space), 60, "all is read and told")
    before = told(space)
    kinds = Counter(body["event_id"].split("/")[0] for bodies in before.values() for body in bodies)
    assert min(kinds[f"shop:{kind}"] for kind in ("segment", "trigger", "attribution")) > 20, kinds
    if is_lost:
        worker.stop()
        for key in space.redis.scan_iter(f"{space.name}*"):
            space.redis.delete(key)
    done = space.kizuna("rebuild", "--yes", "--json")
    assert done.returncode == 0, done.stderr.decode()
    if is_lost:
        space.worker()
    wait_until(lambda: all_is_out(space), 60, "all is told")
    assert {c: bodies[: len(before[c])] for c, bodies in told(space).items() if c in before} == before
    space.publish(events[1_000:])
    wait_until(lambda: all_is_out(space), 60, "the rest is told")
    after = told(space)
    assert {c: bodies[: len(before[c])] for c, bodies in after.items() if c in before} == before
    assert sum(map(len, after.values())) > sum(map(len, before.values())) + 50
    # Time still brings something now and then, until all of it is swept.
    wait_until(lambda: shown(space) == segments(told(space)), 30, "everyone stands where they were told")
