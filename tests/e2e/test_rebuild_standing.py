"""Who is in grace, pinned, on a floor or protected stands after `kizuna rebuild` as before."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.rebuilding import (
    START,
    more_partitions,
    rebuild,
    workers_stop,
)
from tests.space import (
    DAY,
    Space,
    override,
    purchase,
    refund,
    wait_until,
)

KEPT = """
[program]
id = "shop"
currency = "USD"
window = "100d"
ledger = "400d"

[[tiers]]
name = "member"
benefits = []
[[tiers]]
name = "silver"
min_monetary = "{silver}"
grace_period = "20d"
benefits = ["free delivery"]
[[tiers]]
name = "gold"
min_monetary = "300.00"
retain_monetary = "200.00"
grace_period = "30d"
downgrade = "one_down"
benefits = ["free delivery", "lounge"]

[scores]
recency_days = [7, 30, 90, 180]
frequency = [2, 5, 10, 20]
monetary = ["50", "200", "500", "1500"]
"""


def clock(space: Space, at: int) -> list[dict[str, Any]]:
    """Purchases that move the event clock of every shard, of customers of their own."""
    found: dict[int, dict[str, Any]] = {}
    for number in range(200):
        customer = f"clock{number}"
        found.setdefault(space.home(customer), purchase(customer, f"{number}-{at}", "1.00", at))
    assert len(found) == space.partitions
    return list(found.values())


def standing(space: Space, customers: list[str]) -> dict[str, Any]:
    """What anybody may read of them, and why it is so."""
    return {customer: (space.readable(customer), space.why(customer)) for customer in customers}


@pytest.mark.long
def test_who_is_in_grace_pinned_or_on_a_floor_stands_after_a_rebuild_as_before(
    new_space: Callable[..., Space],
) -> None:
    spaces = [new_space(partitions=2, clock="event", program=KEPT.format(silver="100.00")) for _ in range(2)]
    lossy, whole = spaces
    customers = ["grace", "late", "pinned", "floored", "cleared", "risen"]
    before = [
        purchase("grace", 1, "150.00", START),
        purchase("late", 2, "310.00", START),
        purchase("pinned", 3, "5.00", START),
        override("pinned", 4, "pin", "gold", START + DAY, START + 150 * DAY),
        purchase("floored", 5, "320.00", START + DAY),
        override("floored", 6, "floor", "silver", START + 2 * DAY, START + 140 * DAY),
        purchase("cleared", 7, "5.00", START),
        override("cleared", 8, "pin", "gold", START + DAY, START + 300 * DAY),
        override("cleared", 9, "clear", "", START + 90 * DAY, 0),
        purchase("risen", 10, "120.00", START),
    ]
    later = [
        purchase("late", 11, "50.00", START + 104 * DAY),
        purchase("risen", 12, "190.00", START + 106 * DAY),
        refund("risen", 13, "o12", "60.00", START + 107 * DAY),
    ]
    for space in spaces:
        space.worker(KIZUNA_LINGER=0)
        for events in (before, clock(space, START + 105 * DAY)):
            space.publish(events)
            space.wait_read()
    for space in spaces:
        wait_until(lambda s=space: len(s.changes("grace")) == 2, 30, "the grace begins")
        wait_until(lambda s=space: len(s.changes("floored")) == 2, 30, "the grace above the floor begins")
    told = standing(lossy, customers)
    assert told == standing(whole, customers)
    lossy.empty()
    workers_stop(lossy)
    assert rebuild(lossy)["unpublished"] == 0
    assert standing(lossy, customers) == told

    lossy.worker()
    for space in spaces:
        for events in (later, clock(space, START + 160 * DAY), clock(space, START + 230 * DAY)):
            space.publish(events)
            space.wait_read()
    for customer in customers:
        wait_until(
            lambda c=customer: len(lossy.changes(c)) == len(whole.changes(c)),
            30,
            f"the changes of {customer}",
        )
        assert lossy.changes(customer) == whole.changes(customer)
    assert sum(len(whole.changes(customer)) for customer in customers) > 20
    assert standing(lossy, customers) == standing(whole, customers)


@pytest.mark.long
def test_a_protection_of_which_no_record_tells_holds_in_more_partitions(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=2, clock="event", program=KEPT.format(silver="100.00"))
    worker = space.worker()
    customers = [f"c{number}" for number in range(12)]
    space.publish([purchase(customer, f"1{customer}", "120.00", START) for customer in customers])
    space.publish(clock(space, START + DAY))
    space.wait_read()
    worker.stop()  # the command moves the customers itself
    stricter = space.write_program(KEPT.format(silver="200.00"))
    done = space.kizuna(
        "program", "apply", str(stricter), "--protect-until", "2017-10-01T00:00:00Z", "--json"
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["same"] >= len(customers)
    told = standing_by(space, customers, stricter)
    assert {readable["tier"] for readable, _ in told.values()} == {"silver"}
    more_partitions(space, 4)
    assert rebuild(space, KIZUNA_PROGRAM=stricter)["partitions"] == 4
    assert standing_by(space, customers, stricter) == told

    space.worker(KIZUNA_PROGRAM=stricter)
    space.publish([purchase(customer, f"2{customer}", "1.00", START + 3 * DAY) for customer in customers])
    space.wait_read()
    for customer in customers:
        assert space.readable(customer)["tier"] == "silver"
        assert [body["tier_seq"] for body in space.changes(customer)] == [1]


def standing_by(space: Space, customers: list[str], program: Any) -> dict[str, Any]:
    return {c: (space.readable(c), space.why(c, KIZUNA_PROGRAM=program)) for c in customers}
