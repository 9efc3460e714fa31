"""A worker stops soon, and the next one goes on where it was."""

from collections.abc import Callable

from tests.space import DAY, Space, now_ms, purchase


def test_sigterm_takes_under_five_seconds_and_the_next_worker_publishes_nothing_twice(
    new_space: Callable[..., Space],
) -> None:
    space = new_space()
    at = now_ms() - 30 * DAY
    customers = [f"c{n}" for n in range(300)]
    first = [purchase(c, 1, "60.00", at) for c in customers]
    second = [purchase(c, 2, "60.00", at + DAY) for c in customers]
    third = [purchase(c, 3, "500.00", at + 2 * DAY) for c in customers]
    worker = space.worker()
    space.publish([*first, *second])  # and it may be in the middle of them
    assert worker.stop() < 5
    space.publish([*third, *first, *second, {"type": "purchase", "customer_id": "c0"}])
    worker = space.worker()
    space.wait_read()
    assert worker.stop() < 5
    space.worker()
    space.publish([purchase("last", 1, "500.00", at)])
    space.wait_read()

    bodies = space.changes()
    expected = {("last", 1, "silver")}
    for customer in customers:
        expected |= {(customer, 1, "silver"), (customer, 2, "gold")}
    assert {(b["customer_id"], b["tier_seq"], b["tier"]) for b in bodies} == expected
    assert len(bodies) == len(expected)
    assert len(space.read("dead-letters")) == 1
