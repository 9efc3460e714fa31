"""Take-overs that the store may have lost, and the topics it was built for, on the real server."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from loyalty import Packing
from schemas.program import Program
from streams.protocols import Commit, FatalError, Mark, RefusedError, ShardState, Stop
from streams.redis_store import RedisStore
from streams.topics import TIER_CHANGES
from tests.streams.conftest import BEGIN, BINDING, MakeStore
from tests.streams.store_world import TAG, World, some


@pytest.fixture
def world(grocery: Program, packing: Packing) -> World:
    return World(grocery, packing)


# -- reigns --------------------------------------------------------------------------------------------------------


async def test_every_take_over_begins_a_reign(taken: RedisStore) -> None:
    assert (await peeked(taken)).reign == 1
    state, _ = await taken.take_over(3, "two", BEGIN, Mark(0, 1))
    assert state.reign == 2


async def test_what_was_published_in_an_unknown_reign_says_nothing_by_its_number(
    taken: RedisStore, world: World
) -> None:
    """The store has lost a take-over: somebody else may have given the same numbers since."""
    await taken.commit(3, "one", 0, some(world))
    state, outbox = await taken.take_over(3, "two", BEGIN, Mark(1, 2))
    assert (state.reign, state.outbox_last, outbox) == (1, 2, [b"first", b"second"])
    with pytest.raises(RefusedError, match="owner"):
        await taken.commit(3, "one", 1, Commit())

    restored = await taken.restore(3, "two", [b"second"], Mark(9, 2))
    assert (restored.version, restored.reign, restored.outbox_last) == (2, 3, 10)
    _, outbox = await taken.take_over(3, "three", BEGIN, Mark(9, 2))
    assert outbox == [b"second"]


async def test_an_outbox_is_restored_by_its_owner_only(taken: RedisStore, world: World) -> None:
    await taken.commit(3, "one", 0, some(world))
    with pytest.raises(RefusedError, match="owner"):
        await taken.restore(3, "two", [], Mark(9, 2))
    assert (await peeked(taken)).outbox_last == 2


async def test_what_was_held_back_is_held_back_under_its_new_numbers(taken: RedisStore, world: World) -> None:
    await taken.commit(3, "one", 0, replace(some(world), fields={"held": 1}))
    state = await taken.restore(3, "one", [b"second"], Mark(9, 2))
    assert state.held == 9


async def test_a_store_that_has_lost_a_commit_is_not_trimmed(taken: RedisStore, world: World) -> None:
    """Even of an entry that it still has: what was published is to be found again from where the output is known."""
    await taken.commit(3, "one", 0, some(world))
    await taken.trim(3, "one", 1, 1, {TIER_CHANGES: 77})
    with pytest.raises(RefusedError, match="version 1, expected 2"):
        await taken.trim(3, "one", 2, 2, {TIER_CHANGES: 99})
    assert (await peeked(taken)).outputs == {TIER_CHANGES: 77}
    _, left = await taken.take_over(3, "two", BEGIN, Mark(1, 1))
    assert left == [b"second"]


async def peeked(store: RedisStore) -> ShardState:
    state = await store.peek(3)
    assert state is not None
    return state


# -- the input topics ----------------------------------------------------------------------------------------------


async def test_topics_that_were_made_anew_are_refused_by_name(make_store: MakeStore) -> None:
    ids = "id-1 id-2 id-3"
    await make_store(replace(BINDING, inputs=ids)).take_over(3, "one", BEGIN, Mark())
    remade = make_store(replace(BINDING, inputs="id-1 id-9 id-3"))
    for work in (remade.peek(3), remade.take_over(3, "two", BEGIN, Mark())):
        with pytest.raises(FatalError, match=r"touchpoints has the id id-9, .* the id id-2") as stopped:
            await work
        assert stopped.value.stop is Stop.TOPIC_REMADE


async def test_a_store_of_an_earlier_build_learns_the_topics(make_store: MakeStore, redis: Redis) -> None:
    await make_store(BINDING).take_over(3, "one", BEGIN, Mark())
    await redis.hdel(f"{TAG}shard", "bound:inputs")
    known = make_store(replace(BINDING, inputs="id-1 id-2 id-3"))
    await known.peek(3)
    await known.take_over(3, "two", BEGIN, Mark())
    assert await redis.hget(f"{TAG}shard", "bound:inputs") == b"id-1 id-2 id-3"
