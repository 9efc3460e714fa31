"""Redis loses its last writes: what was read again counts once, and what was published stays true."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.local_stack import LocalStack
from streams.protocols import INPUTS
from streams.topics import administration
from tests.faults.load import Load, stream
from tests.faults.processes import count, evict, launch, metric, progress
from tests.faults.proxy import Proxy
from tests.faults.reading import Follower
from tests.faults.sections import BONDED, with_bonds
from tests.faults.valkey import OwnValkey, wait_replicated
from tests.faults.verifier import verify
from tests.space import Servers, Space, now_ms, purchase, text_of, wait_until

#: What follows from the facts alone.
FROM_FACTS = ("tier-changes", "segment-changes", "attributions")
HEALS = "the store has lost what"


@pytest.fixture
def valkeys(tmp_path: Path) -> Iterator[Callable[..., OwnValkey]]:
    """Starts servers of the test's own."""
    started: list[OwnValkey] = []

    def start(**options: str) -> OwnValkey:
        server = OwnValkey(tmp_path / f"valkey{len(started)}", **options)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def make(stack: LocalStack, new_space: Callable[..., Space]) -> Callable[..., Space]:
    """A space on a Redis of the test's own."""

    def made(url: str, **options: Any) -> Space:
        usual = {"partitions": 3} | BONDED
        return new_space(servers=Servers(stack.brokers, url), **usual | options)

    return made


def versions(space: Space) -> list[int]:
    return [int(space.redis.hget(f"{space.name}:{{{p}}}:shard", "version")) for p in range(space.partitions)]


def published(space: Space, *topics: str) -> int:
    """How many records are out: tier changes, or of these topics."""
    followers = [Follower(space.stack.brokers, space.topic(topic)) for topic in topics or ("tier-changes",)]
    return sum(len(follower.follow()) for follower in followers)


def waiting(space: Space) -> int:
    """How many entries the outboxes hold."""
    return sum(space.redis.llen(f"{space.name}:{{{p}}}:outbox") for p in range(space.partitions))


def work(space: Space, seconds: float) -> None:
    """So many seconds in each of which something is committed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        next_second = time.monotonic() + 1
        wait_until(progress(space), 40, "progress")
        time.sleep(max(0.0, next_second - time.monotonic()))


Positions = dict[tuple[str, int], int]


def of_group(space: Space) -> Positions:
    """What the group has committed at Kafka."""
    with administration(space.settings) as admin:
        committed = admin.list_group_offsets([space.settings.group])[space.settings.group]
    return {(tp.topic, tp.partition): at.offset for tp, at in committed.items()}


def of_store(space: Space) -> Positions:
    """What the store has committed."""
    shards = {p: space.redis.hgetall(f"{space.name}:{{{p}}}:shard") for p in range(space.partitions)}
    return {(space.topic(t), p): int(shards[p][f"offset:{t}"]) for t in INPUTS for p in shards}


def is_ahead(group: Positions, store: Positions) -> bool:
    """Whether Kafka's committed offsets are ahead of the store's watermarks."""
    return any(at > store[place] for place, at in group.items())


@pytest.mark.long
async def test_redis_restarted_at_work(valkeys: Callable[..., OwnValkey], make: Callable[..., Space]) -> None:
    valkey = valkeys()
    space = make(valkey.url)
    load = Load(space, stream(40))
    load.send(1_000)
    worker = launch(space).wait_ready()
    with load:
        for _ in range(2):
            wait_until(progress(space), 40, "progress")
            valkey.stop()
            valkey.start()
        wait_until(progress(space), 40, "progress")
        load.stop()
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict
    assert metric(worker, "kizuna_shards_lost_total") > 0, "no restart hit a shard at work"


@pytest.mark.parametrize("seconds", [2, pytest.param(5, marks=pytest.mark.long)])
async def test_redis_killed_and_seconds_of_its_file_lost_with_changes_already_out(
    valkeys: Callable[..., OwnValkey], make: Callable[..., Space], seconds: int
) -> None:
    """The worker stays; its shards were busy."""
    valkey = valkeys()
    space = make(valkey.url)
    load = Load(space, stream(41), rate=500)
    load.send(3_000)
    worker = launch(space).wait_ready()
    with load:
        wait_until(progress(space), 40, "progress")
        work(space, seconds + 2)
        # What is published seconds later is not lost with the last seconds.
        wait_until(lambda: waiting(space) < 100, 60, "hardly anything left to publish")
        before, out = versions(space), published(space)
        valkey.kill()
        assert valkey.cut_seconds(seconds) > 0
        valkey.start()
        assert versions(space) < before, "nothing was lost"
        wait_until(lambda: count(worker, HEALS) > 0, 40, "a shard that lost what was published")
        wait_until(progress(space), 40, "progress")
        load.stop()
    verdict = await verify(space, lost_writes=True)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict
    assert verdict.changes > out
    assert metric(worker, "kizuna_pending_adoptions") == 0


@pytest.mark.long
@pytest.mark.parametrize("how", ["at a command", "in the midst of one"])
async def test_an_idle_shard_whose_redis_lost_writes_reads_again_without_a_rebalance(
    valkeys: Callable[..., OwnValkey], make: Callable[..., Space], how: str
) -> None:
    """Nothing more comes, the group has committed the end, and the worker goes on: it must notice by itself."""
    valkey = valkeys()
    space = make(valkey.url)
    load = Load(space, stream(42))
    worker = launch(space).wait_ready()
    load.send(3_000)
    space.wait_read()
    out, told = published(space), published(space, *FROM_FACTS)
    take_overs = metric(worker, "kizuna_take_overs_total")
    before = versions(space)
    wait_until(lambda: of_group(space) == of_store(space), 20, "the group has committed all")
    valkey.kill()
    if how == "at a command":
        valkey.cut_commands(valkey.commands() * 2 // 3)
    else:
        valkey.cut_bytes(valkey.size() // 2 + 7)
    valkey.start()
    assert versions(space) != before
    assert is_ahead(of_group(space), of_store(space))
    verdict = await verify(space, lost_writes=True)
    assert verdict.is_clean, verdict
    # A trigger that was not out may be: what began and ended on the way depends on what had been read by then.
    assert (verdict.changes, published(space, *FROM_FACTS)) == (out, told), "it published more than it had"
    assert told > 100
    assert metric(worker, "kizuna_take_overs_total") > take_overs
    assert count(worker, HEALS) > 0


@pytest.mark.long
async def test_the_worker_dies_with_redis_and_another_takes_over_what_is_left(
    valkeys: Callable[..., OwnValkey], make: Callable[..., Space]
) -> None:
    valkey = valkeys()
    space = make(valkey.url)
    load = Load(space, stream(43), rate=800)
    load.send(2_000)
    worker = launch(space).wait_ready()
    with load:
        for seconds in (1, 3, 2):
            wait_until(progress(space), 40, "progress")
            work(space, seconds + 2)
            before = versions(space)
            worker.kill()
            valkey.kill()
            assert valkey.cut_seconds(seconds) > 0
            valkey.start()
            assert versions(space) != before, "nothing was lost"
            assert not space.all_is_read()
            evict(space)
            worker = launch(space).wait_ready()
        load.stop()
    verdict = await verify(space, lost_writes=True)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict


@pytest.mark.long
async def test_a_replica_behind_its_primary_is_promoted(
    valkeys: Callable[..., OwnValkey], make: Callable[..., Space]
) -> None:
    primary = valkeys()
    replica = valkeys(replicaof=f"127.0.0.1 {primary.port}")
    with Proxy(primary.port) as proxy, Proxy(primary.port) as link:
        # The replica follows through a proxy, so that it can be held back.
        with replica.client() as redis:
            redis.replicaof("127.0.0.1", str(link.port))
        space = make(f"redis://{proxy.address}/0")
        load = Load(space, stream(44), rate=800)
        load.send(2_000)
        worker = launch(space).wait_ready()
        with load:
            wait_until(lambda: space.committed() > 1_500, 60, "work")
            wait_replicated(primary, replica)
            link.stall()
            work(space, 2)
            before = versions(space)
            primary.kill()
            with replica.client() as redis:
                redis.replicaof("NO", "ONE")
            proxy.point(replica.port)
            assert versions(space) != before, "the replica was not behind"
            wait_until(lambda: count(worker, HEALS) > 0, 40, "a shard that lost what was published")
            wait_until(progress(space), 40, "progress")
            load.stop()
        verdict = await verify(space, lost_writes=True)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict


@pytest.mark.parametrize("was_read", [False, pytest.param(True, marks=pytest.mark.long)])
async def test_events_read_again_in_another_order_give_no_id_two_bodies(
    valkeys: Callable[..., OwnValkey], make: Callable[..., Space], was_read: bool
) -> None:
    """A sweep let a customer fall, and that is out. Then a purchase was appended, older than the fall, with which
    there would have been none. Redis loses the fall, before or after that purchase was read; read again, the purchase
    is there before any sweep goes."""
    valkey = valkeys()
    space = make(valkey.url, partitions=1, clock="wall", program=with_bonds("20s", "1h", "10.00", "s"))
    worker = launch(space).wait_ready()
    bought = now_ms() - 20_000 + 6_000
    fell = text_of(bought + 20_000)
    late = purchase("falls", 2, "12.00", bought + 10_000)
    space.publish([purchase("falls", 1, "10.00", bought), purchase("stays", 1, "1.00", bought)])
    space.wait_read()
    size = valkey.size()
    assert now_ms() < bought + 20_000, "this machine is too slow for this test"
    wait_until(lambda: len(space.changes("falls")) == 2, 30, "the fall")
    if was_read:
        space.publish([late])
        wait_until(lambda: len(space.changes("falls")) == 3, 30, "up again")
    told = space.changes("falls")
    assert [(c["tier"], c["effective_at"]) for c in told][1] == ("member", fell)

    valkey.kill()
    if not was_read:
        space.publish([late])
    assert valkey.cut_to(size) > 0
    valkey.start()
    assert space.redis.hget(f"{space.name}:{{0}}:customer:falls", "tier_seq") == "1", "the fall was not lost"
    wait_until(lambda: len(space.changes("falls")) >= 3, 30, "up again")
    verdict = await verify(space, lost_writes=True)
    assert verdict.is_clean, verdict
    now = space.changes("falls")
    assert now[: len(told)] == told
    assert metric(worker, "kizuna_adoptions_total") > 0
    assert [c["tier"] for c in now[:3]] == ["silver", "member", "silver"]
