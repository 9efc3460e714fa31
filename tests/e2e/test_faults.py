"""Faults in the middle of the work: afterwards every state and every change is that of the batch computation."""

import json
import re
from collections import Counter
from collections.abc import Callable

from cli.demo.check import compare_changes, compare_states, compute, read_published, read_states
from cli.demo.data import Event
from tests.e2e.rebuilding import EVENTS, stream
from tests.redis_client import each_server
from tests.space import Space, wait_until


async def test_one_of_two_workers_is_killed_at_work_and_the_result_is_that_of_the_batch_computation(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=4, clock="event", window="30d", ledger="120d", silver="100.00")
    workers = [space.launch(KIZUNA_SESSION_TIMEOUT=6) for _ in range(2)]
    for worker in workers:
        worker.wait_ready()
    # Both hold shards.
    wait_until(
        lambda: all(b"kizuna_shards 2.0" in w.get("/metrics")[1] for w in workers), 60, "two shards each"
    )

    events = stream()
    space.publish(events[: EVENTS // 4])
    wait_until(lambda: space.committed() >= EVENTS // 8, 60, "work has begun")
    for event in events[EVENTS // 4 :]:
        name = "touchpoints" if event["type"] == "touchpoint" else "purchases"
        space.send(name, _bytes(event), str(event["customer_id"]).encode())
    wait_until(lambda: space.committed() >= EVENTS // 3, 60, "more work is done")
    workers[0].kill()
    left = space.committed()
    assert left < EVENTS, "the workers were quicker than the kill"
    space.flush()
    space.wait_read()

    await matches_the_batch(space, events)


async def test_connections_to_redis_are_cut_again_and_again_at_work_and_the_result_is_that_of_the_batch(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=4, clock="event", window="30d", ledger="120d", silver="100.00")
    worker = space.worker()
    events = stream()
    servers = each_server(space.settings.redis_url)
    for start in range(0, EVENTS, EVENTS // 32):
        space.publish(events[start : start + EVENTS // 32])
        for redis in servers:
            for client in redis.client_list(_type="normal"):
                if int(client["id"]) != redis.client_id():
                    redis.client_kill_filter(_id=client["id"])
    for redis in servers:
        redis.close()
    space.wait_read()
    metrics = worker.get("/metrics")[1]
    lost = re.findall(rb"^kizuna_shards_lost_total\{.*\} ([0-9.]+)", metrics, re.MULTILINE)
    assert sum(map(float, lost)) > 0, "no cut hit a shard at work"
    await matches_the_batch(space, events)


async def matches_the_batch(space: Space, events: list[dict[str, object]]) -> None:
    """Every state, every change and every dead letter; each change once."""
    expected = compute(space.program, [_event(event) for event in events], space.partitions, lambda _: None)
    count = sum(map(len, expected.changes.values()))
    assert count > 250
    wait_until(lambda: len(space.read("tier-changes")) >= count, 60, f"{count} changes")
    found = read_published(space.settings, space.partitions)
    states = await read_states(space.settings, space.program)
    assert compare_changes(found, expected.changes).differences == []
    assert compare_states(states, expected.states).differences == []
    twice = Counter(record.header["ce_id"] for record in space.read_with_confluent("tier-changes"))
    assert [key for key, times in twice.items() if times > 1] == []
    assert found.dead_letters == expected.dead_letters


def _bytes(event: dict[str, object]) -> bytes:
    return json.dumps(event).encode()


def _event(event: dict[str, object]) -> Event:
    topic = "touchpoints" if event["type"] == "touchpoint" else "purchases"
    return Event(topic, str(event["customer_id"]).encode(), _bytes(event), 0)
