"""`kizuna rebuild`: a lost store, more partitions, beside live events, killed in the midst of it."""

import json
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from kafka import TopicPartition

from cli.demo.check import compare_changes, compare_states, compute, read_published, read_states
from cli.demo.data import Event
from streams.topics import administration
from tests.space import (
    DAY,
    KIZUNA,
    TOPICS,
    Space,
    override,
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


@pytest.mark.timeout(240)
async def test_an_emptied_redis_stops_the_workers_and_a_rebuild_makes_it_whole(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=4, **SHARED)
    for _ in range(2):
        space.launch(KIZUNA_SESSION_TIMEOUT=6, KIZUNA_LINGER=0)
    for worker in space.workers:
        worker.wait_ready()
    events = stream()
    space.publish(events[:4_000])
    send_broken(space, 20)
    one, other = strays(1_000, 4_000), strays(1_000, 8_000)
    send_by_crc32(space, one)
    wait_until(lambda: space.committed() > 3_000, 60, "work is done")
    space.publish(events[4_000:8_000])
    send_by_crc32(space, other)
    space.empty()
    workers_stop(space)
    space.publish(events[8_000:9_000])

    told = rebuild(space)
    assert (told["partitions_before"], told["resumed"]) == (None, False)
    assert told["counted"] == 11_000
    assert told["adopted"] > 100
    assert not list(space.redis.scan_iter(f"{space.name}~*"))
    space.publish(events[9_000:])
    space.worker()
    space.wait_read()
    events = [*events[:4_000], *one, *events[4_000:8_000], *other, *events[8_000:]]
    await matches_the_batch(space, events, dead=20)


def unpublished(space: Space) -> int:
    """How many outbox entries have a number, and are not published by what the brokers say."""
    with administration(space.settings) as admin:
        group = f"{space.name}.outbox"
        offsets = admin.list_group_offsets([group])[group]
    found = 0
    for partition in range(space.partitions):
        last = int(space.redis.hget(f"{space.name}:{{{partition}}}:shard", "outbox_last") or 0)
        at = offsets.get(TopicPartition(space.topic("tier-changes"), partition))
        found += last - (at.offset if at is not None else 0)
    return found


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_what_was_decided_and_lost_before_it_was_published_is_published_after_the_rebuild(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=4, **SHARED)
    events = stream()
    outboxes = [f"{space.name}:{{{partition}}}:outbox" for partition in range(space.partitions)]
    sent = lost = 0
    while not lost:
        assert sent < 12_000, "no kill hit an outbox with something in it"
        worker = space.worker(KIZUNA_SESSION_TIMEOUT=6)
        for event in events[sent : sent + 2_000]:
            topic = TOPICS.get(event["type"], "purchases")
            space.send(topic, json.dumps(event).encode(), event["customer_id"].encode())
        sent += 2_000
        wait_until(lambda: any(map(space.redis.llen, outboxes)), 60, "something to publish")
        worker.kill()
        space.flush()
        lost = unpublished(space)
    space.empty()

    told = rebuild(space)
    assert told["unpublished"] > 0
    space.publish(events[sent:])
    space.worker()
    space.wait_read()
    await matches_the_batch(space, events)


def more_partitions(space: Space, count: int) -> None:
    done = space.kizuna("topics", "add-partitions", str(count), "--json")
    assert done.returncode == 0, done.stderr.decode()
    space.grown(count)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "lost",
    [True, pytest.param(False, marks=pytest.mark.long)],
    ids=["with an emptied Redis", "with the store there"],
)
async def test_a_rebuild_is_the_way_to_more_partitions(new_space: Callable[..., Space], lost: bool) -> None:
    space = new_space(partitions=3, **SHARED)
    worker = space.worker(KIZUNA_LINGER=0)
    events = stream()
    space.publish(events[:2_000])
    one = strays(500, 2_000)
    send_by_crc32(space, one)
    space.publish(events[2_000:5_000])
    send_broken(space, 10)
    wait_until(lambda: space.committed() > 3_000, 60, "work is done")
    worker.stop()
    # By the old number of partitions, and unread.
    space.publish(events[5_000:7_000])
    two = strays(500, 7_000)
    send_by_crc32(space, two)
    more_partitions(space, 5)
    # By the new one.
    space.publish(events[7_000:9_000])
    assert "kizuna rebuild" in space.refusal(KIZUNA_LINGER=0)
    if lost:
        space.empty()

    told = rebuild(space)
    assert told["partitions"] == 5
    assert told["partitions_before"] == (None if lost else 3)
    assert told["counted"] == 10_000
    for _ in range(2):
        space.worker(KIZUNA_SESSION_TIMEOUT=6)
    three = strays(500, 9_000)
    send_by_crc32(space, three)
    space.publish(events[9_000:13_000])
    space.wait_read()
    # Once more: what came before the last rebuild stands in places of two kinds now.
    space.empty()
    for running in space.workers:
        wait_until(lambda w=running: w.process.poll() is not None, 60, "the workers stop")
    assert rebuild(space)["partitions_before"] is None
    space.publish(events[13_000:])
    space.worker()
    space.wait_read()
    events = [
        *events[:2_000],
        *one,
        *events[2_000:7_000],
        *two,
        *events[7_000:9_000],
        *three,
        *events[9_000:],
    ]
    await matches_the_batch(space, events, dead=10, moved=True)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_workers_go_on_beside_a_rebuild_and_after_it(new_space: Callable[..., Space]) -> None:
    space = new_space(partitions=3, **SHARED)
    worker = space.worker()
    events = stream()
    space.publish(events[:4_000])
    send_broken(space, 10)
    flowing = threading.Event()

    def flow() -> None:
        # A thousand a second at most, so that several rebuilds find the worker at work.
        for start in range(4_000, EVENTS, 50):
            space.publish(events[start : start + 50])
            flowing.set()
            time.sleep(0.05)

    thread = threading.Thread(target=flow)
    thread.start()
    assert flowing.wait(30)
    rounds = 0
    while thread.is_alive():
        before = space.committed()
        told = rebuild(space)
        assert told["partitions_before"] == 3
        assert told["members"] == 1
        rounds += 1
        if thread.is_alive():
            wait_until(lambda b=before: space.committed() > b, 60, "the worker goes on")
    thread.join()
    assert rounds >= 2
    assert worker.process.poll() is None
    space.wait_read()
    await matches_the_batch(space, events, dead=10)


def killed_when(space: Space, condition: Callable[[], bool]) -> None:
    """`kizuna rebuild`, killed as soon as the condition holds; it must not have been quicker."""
    # With a small cache it writes customers as it goes.
    process = subprocess.Popen(
        [KIZUNA, "rebuild", "--yes"],
        env=space.env(KIZUNA_CACHE_CUSTOMERS=500),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not condition():
            assert process.poll() is None, "the rebuild was quicker than the kill"
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_rebuild_that_is_killed_may_be_run_again(new_space: Callable[..., Space]) -> None:
    # Many customers, so that a switch takes its time.
    space = new_space(partitions=3, **SHARED)
    worker = space.worker(KIZUNA_SESSION_TIMEOUT=6)
    events = stream(customers=250)
    crowd = [purchase(f"n{number}", f"n{number}", "1.00", START) for number in range(8_000)]
    space.publish(crowd)
    space.publish(events[:6_000])
    wait_until(lambda: space.committed() > 10_000, 60, "work is done")

    staged = f"{space.name}~rebuild:{{0}}:due"
    mark = f"{space.name}:{{0}}:switching"
    killed_when(space, lambda: bool(space.redis.exists(staged)))
    assert not space.redis.exists(mark)
    space.publish(events[6_000:7_000])
    space.wait_read()  # the old store is at work as before

    killed_when(space, lambda: space.redis.get(mark) == "renaming")
    assert space.redis.get(mark) == "renaming"
    assert list(space.redis.scan_iter(f"{space.name}~rebuild:*:state:*", count=10_000)), "it was over"
    space.publish(events[7_000:9_000])
    wait_until(lambda: "a rebuild is switching the store" in worker.log.read_text(), 60, "the worker waits")
    told = rebuild(space)
    assert told["resumed"]
    space.publish(events[9_000:])
    assert worker.process.poll() is None
    space.wait_read()
    await matches_the_batch(space, crowd + events)


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
@pytest.mark.timeout(240)
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
@pytest.mark.timeout(240)
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


def test_what_a_rebuild_would_do_is_said_and_nothing_is_done_without_a_yes(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=2, **SHARED)
    space.publish(stream()[:500])
    space.worker()
    space.wait_read()
    before = sorted(space.redis.scan_iter(f"{space.name}*", count=10_000))
    dry = space.kizuna("rebuild", "--dry-run")
    assert dry.returncode == 0, dry.stderr.decode()
    assert "log: 500 positions in 2 partitions of each input" in dry.stdout.decode()
    assert "store: " in dry.stdout.decode()
    assert "group: 1 member" in dry.stdout.decode()
    unasked = space.kizuna("rebuild")
    assert unasked.returncode == 1
    assert "--yes" in unasked.stderr.decode()
    assert sorted(space.redis.scan_iter(f"{space.name}*", count=10_000)) == before


def test_a_log_that_does_not_reach_back_is_told_and_may_be_accepted(new_space: Callable[..., Space]) -> None:
    space = new_space(partitions=1, **SHARED)
    space.publish([purchase("900", n, "60.00", START + n) for n in range(4)])
    worker = space.worker(KIZUNA_LINGER=0)
    space.wait_read()
    worker.stop()
    told = space.readable("900")
    with administration(space.settings) as admin:
        admin.delete_records({TopicPartition(space.topic("purchases"), 0): 3})
    space.empty()
    refused = space.kizuna("rebuild", "--yes")
    assert refused.returncode == 1
    assert "begins at 3" in refused.stderr.decode()
    assert "--accept-missing" in refused.stderr.decode()
    assert rebuild(space, "--accept-missing")["counted"] == 1
    # What was told stays; what was counted of records that are gone does not.
    assert space.readable("900")["tier"] == told["tier"] == "silver"
    assert space.readable("900")["tier_seq"] == told["tier_seq"]
    assert (space.readable("900")["lifetime_orders"], told["lifetime_orders"]) == ("1", "4")


@pytest.mark.long
def test_an_input_that_was_made_anew_is_read_from_where_it_begins_and_what_was_told_stays(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=1, **SHARED)
    space.publish([purchase("900", n, "60.00", START + n) for n in range(4)])
    worker = space.worker(KIZUNA_LINGER=0)
    space.wait_read()
    worker.stop()
    with administration(space.settings) as admin:
        admin.delete_topics([space.topic("purchases")])
        wait_until(lambda: space.topic("purchases") not in admin.list_topics(), 30, "the topic is gone")
    space.create_topics()
    space.grown(1)
    space.publish([purchase("900", 10, "310.00", START + DAY), purchase("901", 11, "1.00", START + DAY)])
    send_broken(space, 1)
    assert "kizuna rebuild" in space.refusal(KIZUNA_LINGER=0)
    refused = space.kizuna("rebuild", "--yes")
    assert refused.returncode == 1
    assert "purchases was deleted and made anew" in refused.stderr.decode()
    told = rebuild(space, "--accept-missing")
    assert (told["counted"], told["adopted"], told["remade"]) == (2, 1, ["purchases"])
    # It was silver by what was told; the orders that made it so are gone; and what came since is read after that.
    space.worker()
    space.wait_read()
    assert len(space.read("dead-letters")) == 1
    found = [(body["tier_seq"], body["previous_tier"], body["tier"]) for body in space.changes("900")]
    assert found == [(1, "member", "silver"), (2, "silver", "member"), (3, "member", "silver")]


def test_a_store_that_must_be_left_alone_is_left_alone(new_space: Callable[..., Space]) -> None:
    space = new_space(partitions=1, **SHARED)
    space.publish([purchase("900", 1, "60.00", START)])
    space.worker().wait_ready()
    space.wait_read()
    shard = f"{space.name}:{{0}}:shard"
    space.redis.hset(shard, "held", "0")
    paused = space.kizuna("rebuild", "--yes")
    assert paused.returncode == 1
    assert "kizuna outbox release" in paused.stderr.decode()
    space.redis.hdel(shard, "held")
    other = space.write_program(space.program_file.read_text().replace("100.00", "120.00"))
    wrong = space.kizuna("rebuild", "--yes", KIZUNA_PROGRAM=other)
    assert wrong.returncode == 1
    assert "kizuna program apply" in wrong.stderr.decode()
    assert not space.redis.exists(f"{space.name}:{{0}}:switching")


def test_partitions_are_added_only_where_nobody_is_at_work(new_space: Callable[..., Space]) -> None:
    space = new_space(partitions=2, **SHARED)
    worker = space.worker()
    refused = space.kizuna("topics", "add-partitions", "3")
    assert refused.returncode == 1
    assert "1 member" in refused.stderr.decode()
    worker.stop()
    assert space.kizuna("topics", "add-partitions", "3").returncode == 0
    fewer = space.kizuna("topics", "add-partitions", "2")
    assert fewer.returncode == 1
    assert "there is no way to fewer" in fewer.stderr.decode()
