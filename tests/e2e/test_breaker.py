"""Too many fall within an hour: publishing pauses, somebody decides, and nothing is lost either way."""

from collections.abc import Callable

from tests.e2e.test_grace import told
from tests.space import DAY, Space, Worker, purchase, text_of, wait_until

START = 1_500_000_000_000
CUSTOMERS = [f"c{n}" for n in range(40)]


def paused_space(new_space: Callable[..., Space]) -> tuple[Space, Worker]:
    """A shard, 40 of whose 42 customers have fallen at once; two others rise after that."""
    space = new_space(partitions=1, clock="event", window="30d", ledger="120d")
    worker = space.worker(KIZUNA_FALLS_LIMIT="0.5")
    space.publish([purchase(c, 1, "150.00", START) for c in CUSTOMERS])
    space.wait_read()
    assert b'kizuna_publishing_paused{partition="0"} 0.0' in worker.get("/metrics")[1]
    # One purchase moves the clock beyond the window of the forty; and one bad record needs a dead letter.
    space.publish([purchase("early", 2, "150.00", START + 31 * DAY)])
    wait_until(
        lambda: b'kizuna_publishing_paused{partition="0"} 1.0' in worker.get("/metrics")[1], 30, "the pause"
    )
    space.publish([purchase("late", 3, "150.00", START + 31 * DAY), {"type": "nonsense", "customer_id": "x"}])
    wait_until(lambda: space.readable("late").get("tier") == "silver", 30, "all is read")
    assert space.readable("c0")["tier"] == "member"
    assert [body["direction"] for body in space.changes() if body["customer_id"] in CUSTOMERS] == [
        "upgrade"
    ] * 40
    assert told(space, "late") == []
    return space, worker


def test_release_publishes_what_was_held(new_space: Callable[..., Space]) -> None:
    space, worker = paused_space(new_space)
    shown = space.kizuna("outbox", "show")
    assert shown.returncode == 0
    assert b"paused" in shown.stdout
    # Whoever restarts a worker has decided nothing.
    worker.stop()
    worker = space.worker(KIZUNA_FALLS_LIMIT="0.5")
    assert b'kizuna_publishing_paused{partition="0"} 1.0' in worker.get("/metrics")[1]
    assert told(space, "late") == []
    done = space.kizuna("outbox", "release")
    assert done.returncode == 0, done.stderr.decode()
    wait_until(space.all_is_read, 30, "all published")
    for customer in CUSTOMERS:
        assert told(space, customer)[1:] == [
            ("changed", "member", "window_expiry", text_of(START + 30 * DAY))
        ]
    assert told(space, "late") == [("changed", "silver", "purchase", text_of(START + 31 * DAY))]
    assert len(space.read("dead-letters")) == 1
    assert b'kizuna_publishing_paused{partition="0"} 0.0' in worker.get("/metrics")[1]


def test_drop_withdraws_the_falls_and_keeps_those_customers_until_the_day_that_is_said(
    new_space: Callable[..., Space],
) -> None:
    space, _ = paused_space(new_space)
    keep = text_of(START + 60 * DAY)
    done = space.kizuna("outbox", "drop", "--keep-until", keep)
    assert done.returncode == 0, done.stderr.decode()
    wait_until(space.all_is_read, 30, "all published")
    for customer in CUSTOMERS[:5]:
        assert told(space, customer)[1:] == [("retained", "silver", "override", text_of(START + 30 * DAY))]
        assert space.readable(customer)["tier"] == "silver"
    assert told(space, "late") == [("changed", "silver", "purchase", text_of(START + 31 * DAY))]
    assert len(space.read("dead-letters")) == 1
    # Two come back in time; the others fall when they are kept no longer.
    space.publish([purchase(c, 5, "150.00", START + 50 * DAY) for c in CUSTOMERS[:2]])
    space.publish([purchase("late", 6, "150.00", START + 61 * DAY)])
    wait_until(lambda: space.readable("c39")["tier"] == "member", 30, "they fall")
    space.kizuna("outbox", "release")
    wait_until(space.all_is_read, 30, "all published")
    assert told(space, "c39")[2:] == [("changed", "member", "override", keep)]
    assert told(space, "c0")[2:] == []
    sequences = [body["tier_seq"] for body in space.changes("c39")]
    assert sequences == [1, 2, 3]
