"""What producers do to events on the way: sent twice, late, shuffled, refunds before, twice, in part, after the window,
on both sides of the ledger. A worker is killed in the midst of it."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.load import START, bought, touched
from tests.faults.processes import evict, launch, metric, stepped
from tests.faults.sections import with_bonds
from tests.faults.stepped import Step
from tests.faults.verifier import verify
from tests.space import DAY, Space, purchase, refund, text_of

LEDGER = 30 * DAY
NOW = START + 100 * DAY

Story = tuple[list[dict[str, Any]], dict[str, str]]


def a_purchase(
    c: str, number: object, days_ago: float, amount: str = "10.00", **other: Any
) -> dict[str, Any]:
    return purchase(c, number, amount, NOW - int(days_ago * DAY), **other)


def a_refund(
    c: str, number: object, order: str, days_ago: float, amount: str, **other: Any
) -> dict[str, Any]:
    return refund(c, f"r{number}", order, amount, NOW - int(days_ago * DAY), **other)


def story(events: list[dict[str, Any]], monetary: str, frequency: int, lifetime: str, orders: int) -> Story:
    shown = {"monetary": monetary, "frequency": str(frequency)}
    return events, shown | {"lifetime_monetary": lifetime, "lifetime_orders": str(orders)}


#: By customer: what arrives, in this order, and what the readable hash says then. Everyone ends with a purchase of 1.00
#: today, so that all are shown as of the same time.
STORIES: dict[str, Story] = {
    "sent twice": story([a_purchase("c", 1, 2), a_purchase("c", 1, 2)], "10.00", 1, "10.00", 1),
    "sent twice with another body": story(
        [a_purchase("c", 1, 2), a_purchase("c", 1, 1, "99.00", order_id="other")], "10.00", 1, "10.00", 1
    ),
    "the same id from another source": story(
        [a_purchase("c", 1, 2), a_purchase("c", 1, 2, source="pos")], "20.00", 1, "20.00", 1
    ),
    "a refund before its purchase": story(
        [a_refund("c", 1, "o1", 1, "4.00"), a_purchase("c", 1, 2)], "6.00", 1, "6.00", 1
    ),
    "a refund sent twice": story(
        [a_purchase("c", 1, 2), a_refund("c", 1, "o1", 1, "4.00"), a_refund("c", 1, "o1", 1, "4.00")],
        "6.00",
        1,
        "6.00",
        1,
    ),
    "two refunds in part": story(
        [a_purchase("c", 1, 2), a_refund("c", 1, "o1", 1, "4.00"), a_refund("c", 2, "o1", 1, "5.00")],
        "1.00",
        1,
        "1.00",
        1,
    ),
    "a refund of more than was paid, then a further part": story(
        [a_purchase("c", 1, 2), a_refund("c", 1, "o1", 1, "14.00"), a_purchase("c", 2, 1, order_id="o1")],
        "6.00",
        1,
        "6.00",
        1,
    ),
    "a refund in full": story(
        [a_purchase("c", 1, 2), a_refund("c", 1, "o1", 1, "10.00")], "0.00", 0, "0.00", 0
    ),
    "a refund after the window": story(
        [a_purchase("c", 1, 12), a_refund("c", 1, "o1", 1, "4.00")], "0.00", 0, "6.00", 1
    ),
    "a late purchase, in the window": story(
        [a_purchase("c", 1, 1), a_purchase("c", 2, 9)], "20.00", 2, "20.00", 2
    ),
    "a late purchase, behind the window": story(
        [a_purchase("c", 1, 1), a_purchase("c", 2, 20)], "10.00", 1, "20.00", 2
    ),
    "a purchase as old as the ledger": story([a_purchase("c", 1, 30)], "0.00", 0, "10.00", 1),
    "a purchase older than the ledger": story(
        [purchase("c", 1, "10.00", NOW - LEDGER - 1)], "0.00", 0, "0.00", 0
    ),
    "a waiting refund older than the ledger when its purchase comes": story(
        # It came when the newest event was older; the next one, of anybody, leaves it behind.
        [a_refund("c", 1, "o1", 31, "4.00"), a_purchase("c", 1, 2)],
        "10.00",
        1,
        "10.00",
        1,
    ),
    "a refund of an order older than the ledger": story(
        [a_purchase("c", 1, 31), a_refund("c", 1, "o1", 1, "4.00")], "0.00", 0, "10.00", 1
    ),
    "a further part of an order older than the ledger": story(
        [a_purchase("c", 1, 31), a_purchase("c", 2, 1, order_id="o1")], "10.00", 1, "20.00", 2
    ),
}


async def test_each_kind_of_arrival_counts_as_the_contract_says(new_space: Callable[..., Space]) -> None:
    space = new_space(partitions=1, clock="event", program=with_bonds("10d", "30d"))
    launch(space).wait_ready()
    named = {
        name: [event | {"customer_id": name} for event in events] for name, (events, _) in STORIES.items()
    }
    # What is older than the ledger, and counts, was read when the newest event was older.
    border = text_of(NOW - LEDGER)
    old = [event for events in named.values() for event in events[:1] if event["occurred_at"] < border]
    first = [event for event in old if event["customer_id"] != "a purchase older than the ledger"]
    assert len(first) == 3
    space.publish([purchase("clock", 0, "1.00", NOW - 5 * DAY), *first])
    space.publish([purchase("clock", 1, "1.00", NOW)])
    space.publish([event for events in named.values() for event in events if event not in first])
    space.publish([purchase(name, "last", "1.00", NOW) for name in named])
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert verdict.dead_letters == 1
    for name, (_, wanted) in STORIES.items():
        hash_ = space.readable(name)
        cents = {f: f"{float(hash_[f]) - 1:.2f}" for f in ("monetary", "lifetime_monetary")}
        counts = {f: str(int(hash_[f]) - 1) for f in ("frequency", "lifetime_orders")}
        assert cents | counts == wanted, name


def arrivals(seed: int, count: int) -> list[dict[str, Any]]:
    """Of each kind many: in the order in which they arrive."""
    random_ = random.Random(seed)
    events: list[tuple[float, dict[str, Any]]] = []

    def arrive(event: dict[str, Any], at: float) -> None:
        # Most are late by hours; some by days; a few by as much as the ledger, this side of it or the other.
        late = random_.choice((0, 0, 0, random_.expovariate(1 / DAY), random_.uniform(0, 40 * DAY)))
        events.append((at + late * (random_.random() < 0.3), event))
        if random_.random() < 0.1:
            events.append((at + random_.expovariate(1 / (3 * DAY)), event))

    for number in range(count):
        c, at = f"c{random_.randrange(120)}", START + number * (90 * DAY // count)
        if random_.random() < 0.3:
            arrive(touched(random_, c, number, at), at)
            continue
        amount = f"{random_.randrange(6_000) / 100:.2f}"
        arrive(purchase(c, number, amount, at, **bought(random_)), at)
        if random_.random() < 0.1:
            arrive(purchase(c, f"{number}b", "7.77", at + 60_000, order_id=f"o{number}"), at)
        for part in range(random_.choice((0, 0, 0, 1, 2))):
            # Before its purchase, soon after, after the window, after the ledger.
            then = at + random_.choice((-DAY, 3_600_000, 12 * DAY, 31 * DAY))
            # Not so late that in the end every order is older than the ledger.
            then = min(then, START + 95 * DAY)
            returned = random_.choice((amount, "5.00"))
            if float(returned) > 0:
                arrive(refund(c, f"{number}r{part}", f"o{number}", returned, then), then)
    return [event for _, event in sorted(events, key=lambda item: item[0])]


@pytest.mark.long
async def test_shuffled_doubled_late_and_on_both_sides_of_the_ledger_with_a_worker_killed_at_it(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=4, clock="event", program=with_bonds("10d", "30d"))
    events = arrivals(10, 4_000)
    for start in range(0, len(events), 1_500):
        space.publish(events[start : start + 1_500])
        if start == 0:
            doomed = stepped(space, Step.BEFORE_COMMIT, 4, after=1)
    doomed.wait_bitten()
    assert not space.all_is_read()
    evict(space)
    worker = launch(space).wait_ready()
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert verdict.dead_letters > 50, "nothing was too late"
    assert verdict.changes > 300
    assert verdict.bonded > 50, verdict
    assert len({json.dumps(event) for event in events}) < len(events) - 300
    # Of them the worker that was killed has counted some, more or less.
    assert metric(worker, "kizuna_duplicates_total") > 20
