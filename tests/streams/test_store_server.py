"""How a shard's store behaves where the server itself is in trouble."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis

from cli.local_stack import ValkeyServer
from loyalty import Packing
from schemas.program import Program
from streams.protocols import (
    PURCHASES,
    Commit,
    Due,
    Mark,
    UnavailableError,
)
from streams.redis_nodes import _WRITTEN_AT_ONCE, connect, script_of
from streams.redis_store import RedisStore
from streams.topics import TIER_CHANGES
from tests.loyalty.worlds import DAY
from tests.streams.conftest import BEGIN, BINDING, PREFIX
from tests.streams.store_world import START, TAG, World, some


@pytest.fixture
def world(grocery: Program, packing: Packing) -> World:
    return World(grocery, packing)


async def test_a_server_that_forgot_the_scripts_is_told_them_again(
    store: RedisStore, redis: Redis, world: World
) -> None:
    async def forget() -> None:
        await redis.script_flush()

    await forget()
    await store.take_over(3, "one", BEGIN, Mark())
    await forget()
    await store.commit(3, "one", 0, some(world))
    await forget()
    assert await store.due(3, "one", 1, START + 2 * DAY, 10) == Due(["900"], START + DAY, "")
    await forget()
    await store.trim(3, "one", 1, 2, {TIER_CHANGES: 5})
    state = await store.peek(3)
    assert state is not None
    assert (state.version, state.outputs) == (1, {TIER_CHANGES: 5})


async def test_the_servers_clock_is_in_milliseconds(store: RedisStore, redis: Redis) -> None:
    before = await redis.time()
    now = await store.now()
    after = await redis.time()
    assert before[0] * 1000 + before[1] // 1000 <= now <= after[0] * 1000 + after[1] // 1000


async def test_a_server_that_is_gone_is_unavailable(
    own_valkey: ValkeyServer, packing: Packing, world: World
) -> None:
    store = RedisStore(connect(f"redis://{own_valkey.address}/0"), PREFIX, BINDING)
    try:
        await store.take_over(3, "one", BEGIN, Mark())
        own_valkey.kill()
        for work in (
            store.now(),
            store.peek(3),
            store.load(3, ["900"], packing),
            store.commit(3, "one", 0, some(world)),
            store.due(3, "one", 0, START, 10),
            store.trim(3, "one", 0, 0, {}),
            store.take_over(3, "two", BEGIN, Mark()),
        ):
            with pytest.raises(UnavailableError, match="Redis did not answer"):
                await work
        own_valkey.start()
        assert await store.now() > START
    finally:
        await store.close()


@pytest.mark.parametrize("size", [1, _WRITTEN_AT_ONCE - 1_000, _WRITTEN_AT_ONCE + 1, 5_000_000])
async def test_scripts_of_any_size_side_by_side_have_their_own_answers(
    own_valkey: ValkeyServer, size: int
) -> None:
    nodes, echo = connect(f"redis://{own_valkey.address}/0"), script_of("return {ARGV[1], #ARGV[2]}")
    try:
        for _ in range(2):  # new connections, then those of before
            answers = await asyncio.gather(
                *(nodes.run(echo, shard, ["k"], [str(shard), "x" * size]) for shard in range(12))
            )
            assert answers == [[b"%d" % shard, size] for shard in range(12)]
    finally:
        await nodes.aclose()


async def test_who_leaves_before_the_answer_takes_the_connection_along(own_valkey: ValkeyServer) -> None:
    nodes, slow = connect(f"redis://{own_valkey.address}/0"), script_of("return ARGV[1]")
    try:
        assert await nodes.run(slow, 0, ["k"], ["known"]) == b"known"
        for number in range(20):
            leaving = asyncio.create_task(nodes.run(slow, 0, ["k"], [f"left {number}"]))
            await asyncio.sleep(0)
            leaving.cancel()
            with suppress(asyncio.CancelledError):
                await leaving
            assert await nodes.run(slow, 0, ["k"], [f"next {number}"]) == b"next %d" % number
    finally:
        await nodes.aclose()


async def test_a_server_without_memory_takes_no_half_batch(
    own_valkey: ValkeyServer, packing: Packing, world: World
) -> None:
    store = RedisStore(connect(f"redis://{own_valkey.address}/0"), PREFIX, BINDING)
    client = Redis(port=own_valkey.port)

    async def everything() -> dict[bytes, Any]:
        return {key: await client.dump(key) for key in sorted(await client.keys("*"))}

    try:
        await store.take_over(3, "one", BEGIN, Mark())
        await store.commit(3, "one", 0, some(world))
        before = await everything()
        await client.config_set("maxmemory", "1mb")
        late = Commit(PURCHASES, 15, 2_000, START, START)
        late.customers = [world.write(world.customer(f"c{n}")) for n in range(500)]
        late.outbox = [bytes(1_000)] * 500
        with pytest.raises(UnavailableError, match=r"Redis could not: .*maxmemory"):
            await store.commit(3, "one", 1, late)
        assert await everything() == before
        # Publishing goes on, and makes room.
        await store.trim(3, "one", 1, 1, {TIER_CHANGES: 55})
        await client.config_set("maxmemory", "0")
        await store.commit(3, "one", 1, late)
        state = await store.peek(3)
        assert state is not None
        assert (state.version, state.offsets[PURCHASES], state.outputs) == (2, 2_000, {TIER_CHANGES: 55})
    finally:
        await client.aclose()
        await store.close()


async def test_memory_that_runs_out_in_the_middle_of_a_commit_does_not_cut_it(
    own_valkey: ValkeyServer, packing: Packing, world: World
) -> None:
    store = RedisStore(connect(f"redis://{own_valkey.address}/0"), PREFIX, BINDING)
    client = Redis(port=own_valkey.port)
    try:
        await store.take_over(3, "one", BEGIN, Mark())
        commit = some(world)
        commit.customers = [world.write(world.customer(f"c{n}")) for n in range(2_000)]
        commit.outbox = [bytes(2_000)] * 2_000
        # Room for the command itself, hardly for all that it writes.
        used = (await client.info("memory"))["used_memory"]
        committed = 0
        for room in range(1, 60):
            await client.config_set("maxmemory", str(used + room * 200_000))
            try:
                await store.commit(3, "one", 0, commit)
                committed = 1
                break
            except UnavailableError:
                state = await store.peek(3)
                assert state is not None
                assert (state.version, state.outbox_last) == (0, 0)
                assert not await client.exists(f"{TAG}outbox", f"{TAG}state:c0")
        assert committed
        assert await client.llen(f"{TAG}outbox") == 2_000
        assert await client.zcard(f"{TAG}due") <= 2_000
        assert len(await client.keys(f"{PREFIX}:*:state:*")) == 2_000
    finally:
        await client.aclose()
        await store.close()
