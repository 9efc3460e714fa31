"""States are a function of the set of events."""

import json
import random
from collections.abc import Callable
from typing import Any

from tests.space import DAY, Space, now_ms, purchase, refund, touchpoint


def world(random_: random.Random, newest: int) -> list[dict[str, Any]]:
    """Purchases in parts, refunds in part and in full, touchpoints; in order of time."""
    events = []
    for number in range(900):
        customer = f"c{random_.randrange(40)}"
        at = newest - random_.randrange(400 * DAY)
        kind = random_.randrange(10)
        if kind < 2:
            channel, way = random_.choice(("email", "web", "store")), random_.choice(("inbound", "outbound"))
            events.append(touchpoint(customer, number, channel, way, newest - random_.randrange(40 * DAY)))
            continue
        amount = f"{random_.randrange(8_000) / 100:.2f}"
        events.append(purchase(customer, number, amount, at))
        if kind == 2:
            events.append(purchase(customer, f"{number}b", "7.77", at + 60_000, order_id=f"o{number}"))
        if kind in (3, 4):
            returned = amount if kind == 3 and float(amount) else "5.00"
            events.append(refund(customer, f"{number}r", f"o{number}", returned, at + 90_000))
    return sorted(events, key=lambda event: event["occurred_at"])


def states(space: Space, as_of: int) -> list[bytes]:
    """The dump's lines without tier_seq, the rest byte for byte."""
    lines = space.dump(as_of)
    seqs = [b'"tier_seq": %d, ' % json.loads(line)["tier_seq"] for line in lines]
    return [line.replace(seq, b"") for line, seq in zip(lines, seqs, strict=True)]


def test_shuffled_doubled_and_in_other_batches_the_same_events_give_the_same_states(
    new_space: Callable[..., Space],
) -> None:
    random_ = random.Random(20170402)
    newest = now_ms() - DAY
    events = world(random_, newest)
    ordered = new_space(partitions=3)
    ordered.worker()
    ordered.publish(events)
    ordered.wait_read()

    shuffled = new_space(partitions=4)
    shuffled.worker()
    twice = [*events, *events]
    random_.shuffle(twice)
    # Refunds first, so that many wait for their purchase.
    twice.sort(key=lambda event: event["type"] != "refund")
    while twice:
        size = random_.randrange(1, 200)
        part, twice = twice[:size], twice[size:]
        shuffled.publish(part)
        if random_.random() < 0.3:
            shuffled.wait_read()
    shuffled.wait_read()

    as_of = newest + 2 * DAY
    one, other = states(ordered, as_of), states(shuffled, as_of)
    assert len(one) == 40
    assert one == other
    assert ordered.read("dead-letters") == shuffled.read("dead-letters") == []
    last = {body["customer_id"]: body for body in shuffled.changes()}
    for line in map(json.loads, shuffled.dump(now_ms())):
        shown = shuffled.readable(line["customer_id"])
        if line["customer_id"] in last:
            assert shown["tier"] == last[line["customer_id"]]["tier"]
