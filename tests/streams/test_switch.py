"""A rebuilt store takes the place of another: in steps, each of which may be broken off, and nobody comes between."""

from typing import Any

import pytest
from redis.asyncio import Redis

from streams.keys import ShardKeys
from streams.protocols import INPUTS, Mark, RefusedError, UnavailableError
from streams.redis_nodes import RedisNodes
from streams.settings import Settings
from streams.staging import discard, staging_prefix
from streams.switch import Step, Switch
from tests.streams.conftest import BEGIN, BINDING, PREFIX, MakeStore

SETTINGS = Settings(redis_prefix=PREFIX)
STAGED = staging_prefix(SETTINGS)


async def fill(redis: Redis, prefix: str, shards: dict[int, list[str]], mark: str) -> None:
    """Shards with customers; every value bears the mark. Of every other customer there are pages."""
    for partition, ids in shards.items():
        keys, pipe = ShardKeys(prefix, partition), redis.pipeline(transaction=False)
        pipe.hset(keys.shard, mapping={"version": mark, "owner": "one" if mark == "old" else ""})
        for number, customer_id in enumerate(ids):
            pipe.set(keys.state(customer_id), mark)
            pipe.hset(keys.customer(customer_id), "tier", mark)
            pipe.zadd(keys.due, {customer_id: 1})
            if number % 2 == (mark == "old"):
                pipe.hset(keys.pages(customer_id), "0", mark)
        pipe.rpush(keys.outbox, mark)
        await pipe.execute()


def ids(*numbers: int) -> list[str]:
    return [f"{{c:{number}}}*" for number in numbers]


#: More customers than one script takes; some go from shard to shard, some are new, some are gone.
OLD = {0: ids(*range(50)), 1: ids(*range(50, 90)), 7: ids(100)}
NEW = {0: ids(*range(30)), 1: ids(*range(50, 90)), 2: ids(*range(30, 45), 200)}


@pytest.fixture(autouse=True)
def small_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.switch._PART", 20)


async def both(redis: Redis, nodes: RedisNodes) -> Switch:
    await fill(redis, PREFIX, OLD, "old")
    await fill(redis, STAGED, NEW, "new")
    return Switch(nodes, SETTINGS)


async def is_new(redis: Redis, dump: Any) -> None:
    """Only the new store is there, and all of it."""
    found = await dump()
    await redis.flushall()
    await fill(redis, PREFIX, NEW, "new")
    assert found == await dump()


async def test_the_new_store_takes_the_place_of_the_old_one(
    redis: Redis, nodes: RedisNodes, dump: Any
) -> None:
    switch = await both(redis, nodes)
    assert await switch.step() is None
    await switch.fence(3)
    assert await switch.step() is Step.FENCED
    told: list[int] = []
    await switch.clear(told.append)
    assert await switch.step() is Step.CLEARING
    await switch.rename(told.append)
    assert await switch.step() is Step.RENAMING
    await switch.activate()
    assert await switch.step() is None
    assert told[-1] == 30 + 40 + 16
    await is_new(redis, dump)


@pytest.mark.parametrize("broken_off", range(1, 16))
async def test_a_switch_that_was_broken_off_anywhere_goes_on_where_it_was(
    redis: Redis, nodes: RedisNodes, dump: Any, broken_off: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection fails at the n-th script of the switch, after which another one goes on."""
    switch = await both(redis, nodes)
    await switch.fence(3)
    left, run = broken_off, nodes.run

    async def breaks(*given: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise ConnectionError("gone")
        return await run(*given)

    monkeypatch.setattr(nodes, "run", breaks)

    async def all_steps(one: Switch) -> None:
        if await one.step() is not Step.RENAMING:
            await one.clear(lambda _: None)
        await one.rename(lambda _: None)
        await one.activate()

    with pytest.raises(UnavailableError):
        await all_steps(switch)
    assert await switch.step() is not None
    await all_steps(Switch(nodes, SETTINGS))
    await is_new(redis, dump)


async def test_a_shard_that_is_back_at_work_is_left_alone_by_who_ends_the_switch(
    redis: Redis, nodes: RedisNodes
) -> None:
    switch = await both(redis, nodes)
    await switch.fence(3)
    await switch.clear(lambda _: None)
    await switch.rename(lambda _: None)
    # Two shards are activated, and one of them was taken over; then the rebuild dies.
    for partition in (0, 1):
        old, new = ShardKeys(PREFIX, partition), ShardKeys(STAGED, partition)
        keys = [
            old.switching,
            *(key for keys in (new, old) for key in (keys.shard, keys.due, keys.outbox, keys.unmoved)),
        ]
        await nodes.run(switch._activate, partition, keys, [])
    taken = ShardKeys(PREFIX, 0)
    await redis.hset(taken.shard, "owner", "worker")  # type: ignore[misc]
    again = Switch(nodes, SETTINGS)
    await again.rename(lambda _: None)
    await again.activate()
    assert await redis.hget(taken.shard, "owner") == b"worker"  # type: ignore[misc]
    assert await redis.zcard(taken.due) == len(NEW[0])
    assert await again.step() is None


async def test_while_a_switch_is_under_way_the_owner_is_refused_and_nobody_takes_over(
    redis: Redis, nodes: RedisNodes, make_store: MakeStore
) -> None:
    store = make_store()
    state, _ = await store.take_over(3, "one", BEGIN, Mark())
    switch = Switch(nodes, SETTINGS)
    await switch.fence(BINDING.partitions)
    with pytest.raises(RefusedError):
        await store.trim(3, "one", 0, 0, {})
    for partition in (3, 4):  # 4 was never begun
        with pytest.raises(RefusedError, match=r"a rebuild is switching the store.*kizuna rebuild"):
            await store.peek(partition)
        with pytest.raises(RefusedError, match="a rebuild is switching the store"):
            await store.take_over(partition, "two", BEGIN, Mark())
    assert not await redis.exists(ShardKeys(PREFIX, 4).shard)
    await switch.lift()
    found, _ = await store.take_over(3, "two", BEGIN, Mark())
    assert {topic: found.offsets[topic] for topic in INPUTS} == {t: state.offsets[t] for t in INPUTS}


async def test_what_another_rebuild_has_left_is_discarded_and_nothing_else(
    redis: Redis, nodes: RedisNodes, dump: Any
) -> None:
    await fill(redis, PREFIX, OLD, "old")
    before = await dump()
    await fill(redis, STAGED, NEW, "new")
    await discard(nodes, SETTINGS)
    assert await dump() == before
