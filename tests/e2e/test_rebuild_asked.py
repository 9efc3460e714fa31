"""What `kizuna rebuild` and `topics add-partitions` say before they do anything, and where they refuse."""

from collections.abc import Callable

import pytest
from kafka import TopicPartition

from streams.topics import administration
from tests.e2e.rebuilding import SHARED, START, rebuild, send_broken, stream
from tests.space import (
    DAY,
    Space,
    purchase,
    wait_until,
)


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
