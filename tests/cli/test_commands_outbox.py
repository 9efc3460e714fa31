"""What waits to be published, and what is decided about it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

from cli.local_stack import LocalStack
from streams.keys import ShardKeys
from tests.cli.conftest import PARTITIONS, Cli


@contextmanager
def paused(stack: LocalStack, prefix: str, *partitions: int) -> Iterator[None]:
    """Shards of which the store says that publishing is paused."""
    with redis.Redis.from_url(stack.redis_url) as client:
        for partition in partitions:
            shard = ShardKeys(prefix, partition).shard
            last = int(client.hget(shard, "outbox_last") or 0)
            client.hset(shard, mapping={"held": last, "falls": "28000000=2 28000001=3"})
        try:
            yield
        finally:
            for partition in partitions:
                shard = ShardKeys(prefix, partition).shard
                client.hset(shard, mapping={"held": "", "decision": "", "falls": ""})


@pytest.fixture(scope="module")
def forsaken(kizuna: Cli, stack: LocalStack, worker: None) -> Cli:
    """`kizuna` on a copy of the store that no worker has."""
    with redis.Redis.from_url(stack.redis_url) as client:
        for partition in range(PARTITIONS):
            client.copy(ShardKeys("loyalty", partition).shard, ShardKeys("forsaken", partition).shard)
            client.rpush(ShardKeys("forsaken", partition).outbox, "entry")
    return Cli(kizuna.env | {"KIZUNA_REDIS_PREFIX": "forsaken"})


def shards(kizuna: Cli) -> list[Any]:
    return [json.loads(line) for line in kizuna("outbox", "show", "--json").ok.splitlines()]


def test_show_tells_each_shard(forsaken: Cli, stack: LocalStack) -> None:
    with paused(stack, "forsaken", 1):
        found = shards(forsaken)
        text = forsaken("outbox", "show")
    assert [shard["partition"] for shard in found] == list(range(PARTITIONS))
    assert [shard["paused"] for shard in found] == [False, True, False, False]
    assert {shard["unpublished"] for shard in found} == {1}
    assert (found[1]["falls"], found[1]["held_back"], found[1]["decision"]) == (5, 0, None)
    assert isinstance(found[1]["held_since"], int)
    assert "paused since entry" in text.ok.splitlines()[2]
    assert text.err.startswith("1 shard paused")


@pytest.mark.parametrize("command", [("release",), ("drop", "--keep-until", "30d")], ids=["release", "drop"])
def test_where_nothing_is_paused_nothing_is_decided(forsaken: Cli, command: tuple[str, ...]) -> None:
    assert forsaken("outbox", *command).error == "nothing is paused"
    assert forsaken("outbox", *command, "--partition", "2").error == "nothing is paused in shard 2"
    assert forsaken("outbox", *command, "--partition", "7").error.startswith("there is no shard 7")


def test_a_decision_that_nobody_carries_out_stays_and_is_told(forsaken: Cli, stack: LocalStack) -> None:
    with paused(stack, "forsaken", 0, 3):
        done = forsaken("outbox", "drop", "--keep-until", "2030-01-01T00:00:00Z", "--wait", "0.2")
        assert done.code == 1
        assert "2 shards have not carried it out within 0.2 s" in done.err
        assert [line.split(":")[0] for line in done.out.splitlines()] == ["shard 0", "shard 3"]
        assert "not yet carried out" in done.out
        decided = [shard["decision"] for shard in shards(forsaken)]
        assert decided == ["drop 1893456000000", None, None, "drop 1893456000000"]
        later = forsaken("outbox", "release", "--partition", "3", "--partition", "1", "--wait", "0", "--json")
        assert json.loads(later.ok) == {"partition": 3, "decision": "release", "done": False}
        assert later.err == "shard 1: nothing is paused\n"


@pytest.mark.parametrize("command", [("release",), ("drop", "--keep-until", "30d")], ids=["release", "drop"])
def test_a_worker_carries_it_out(
    kizuna: Cli, stack: LocalStack, worker: None, command: tuple[str, ...]
) -> None:
    with paused(stack, "loyalty", 2):
        done = kizuna("outbox", *command)
        assert done.ok.startswith("shard 2: ")
        assert done.out.endswith("done\n")
        assert [shard["paused"] for shard in shards(kizuna)] == [False] * PARTITIONS


def test_a_store_that_was_never_begun_has_no_outbox(kizuna: Cli) -> None:
    assert "no worker has begun a store" in kizuna("outbox", "show", "--redis-prefix", "other").error
