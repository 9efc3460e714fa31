"""`kizuna rebuild`: a lost store, more partitions, beside live events, killed in the midst of it."""

import json
import subprocess
import threading
import time
from collections.abc import Callable

import pytest
from kafka import TopicPartition

from streams.topics import administration
from tests.e2e.rebuilding import (
    EVENTS,
    SHARED,
    START,
    matches_the_batch,
    more_partitions,
    rebuild,
    send_broken,
    send_by_crc32,
    strays,
    stream,
    workers_stop,
)
from tests.space import (
    KIZUNA,
    TOPICS,
    Space,
    purchase,
    wait_until,
)


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
