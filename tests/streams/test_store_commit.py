"""What else a commit writes on the real server: fields, counts, changed entries, customers that are moved."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from loyalty import Packing
from schemas.program import Program
from streams.protocols import PURCHASES, Commit, Due, Mark, RefusedError, ShardState
from streams.redis_store import RedisStore, script
from tests.streams.conftest import BEGIN, Dump
from tests.streams.store_world import START, TAG, World, some


@pytest.fixture
def world(grocery: Program, packing: Packing) -> World:
    return World(grocery, packing)


async def pending(redis: Redis) -> list[bytes]:
    found: list[bytes] = await redis.lrange(f"{TAG}outbox", 0, -1)
    return found


async def stored(store: RedisStore) -> ShardState:
    state = await store.peek(3)
    assert state is not None
    return state


async def test_fields_are_set_beside_the_watermark(taken: RedisStore) -> None:
    commit = Commit(PURCHASES, BEGIN[PURCHASES], 15, START, START + 5)
    commit.fields = {"held": 7, "falls": "100=2 101=1"}
    await taken.commit(3, "one", 0, commit)
    state = await stored(taken)
    assert (state.held, state.falls) == (7, {100: 2, 101: 1})
    assert (state.offsets[PURCHASES], state.newest[PURCHASES], state.version) == (15, START, 1)
    await taken.commit(3, "one", 1, Commit(fields={"held": "", "falls": ""}))
    state = await stored(taken)
    assert (state.held, state.falls) == (None, {})


async def test_a_hold_behind_the_first_entry_of_all_is_a_hold(taken: RedisStore) -> None:
    await taken.commit(3, "one", 0, Commit(fields={"held": 0}))
    assert (await stored(taken)).held == 0


async def test_counts_are_added_up(taken: RedisStore, redis: Redis) -> None:
    field = "moves:1:silver plus\x1fmärchenhaft"
    await taken.commit(3, "one", 0, Commit(added={"customers": 3, field: 2}))
    await taken.commit(3, "one", 1, Commit(added={"customers": 4, field: 1}))
    await taken.commit(3, "one", 2, Commit())
    assert (await stored(taken)).customers == 7
    assert await redis.hget(f"{TAG}shard", field) == b"3"


async def test_entries_become_others_by_their_number(taken: RedisStore, redis: Redis) -> None:
    await taken.commit(3, "one", 0, Commit(outbox=[b"1", b"2", b"3", b"4", b"5"]))
    await taken.commit(3, "one", 1, Commit(replaced={2: b"two", 5: b"five"}))
    assert await pending(redis) == [b"1", b"two", b"3", b"4", b"five"]
    assert (await stored(taken)).outbox_last == 5


async def test_numbers_of_entries_hold_after_a_trim(taken: RedisStore, redis: Redis) -> None:
    await taken.commit(3, "one", 0, Commit(outbox=[b"1", b"2", b"3", b"4", b"5"]))
    await taken.trim(3, "one", 1, 2, {})
    await taken.commit(3, "one", 1, Commit(replaced={3: b"three"}, outbox=[b"6"]))
    assert await pending(redis) == [b"three", b"4", b"5", b"6"]
    await taken.take_over(3, "two", BEGIN, Mark(4))
    await taken.commit(3, "two", 2, Commit(replaced={5: b"five", 6: b"six"}, outbox=[b"7", b"8"]))
    assert await pending(redis) == [b"five", b"six", b"7", b"8"]
    assert (await stored(taken)).outbox_last == 8


async def test_thousands_of_entries_become_others_in_one_commit(taken: RedisStore, redis: Redis) -> None:
    await taken.commit(3, "one", 0, Commit(outbox=[b"%d" % n for n in range(1, 9_001)]))
    await taken.commit(3, "one", 1, Commit(replaced=dict.fromkeys(range(1, 9_001), b"gone"), outbox=[b"new"]))
    assert set((await pending(redis))[:-1]) == {b"gone"}
    assert (await pending(redis))[-1] == b"new"


async def test_customers_that_are_moved_leave_the_list(taken: RedisStore, redis: Redis) -> None:
    names = [f"c{n}" for n in range(9_000)]
    await redis.sadd(f"{TAG}unmoved", *names, "other", "{odd} :\n")
    await taken.commit(3, "one", 0, Commit(moved=[*names, "{odd} :\n", "nobody"]))
    assert await redis.smembers(f"{TAG}unmoved") == {b"other"}


async def test_who_is_unmoved_is_told_to_the_owner_only(taken: RedisStore, redis: Redis) -> None:
    assert await taken.unmoved(3, "one", 10) == ([], 0)
    await redis.sadd(f"{TAG}unmoved", "a", "b", "märta")
    await redis.hset(f"{TAG}shard", "moved", 4)
    found, moved = await taken.unmoved(3, "one", 10)
    assert (sorted(found), moved) == (["a", "b", "märta"], 4)
    assert len((await taken.unmoved(3, "one", 2))[0]) == 2
    with pytest.raises(RefusedError, match="owner"):
        await taken.unmoved(3, "two", 10)


async def test_everything_of_a_commit_comes_in_its_place(
    taken: RedisStore, world: World, redis: Redis
) -> None:
    await redis.sadd(f"{TAG}unmoved", "900", "901")
    await taken.commit(3, "one", 0, Commit(outbox=[b"zero"]))
    commit = everything(world)
    commit.replaced = {1: b"nothing"}
    await taken.commit(3, "one", 1, commit)
    state = await stored(taken)
    assert (state.held, state.customers, state.falls) == (1, 1, {100: 1})
    assert state.offsets == BEGIN | {PURCHASES: 15}
    assert await pending(redis) == [b"nothing", b"first", b"second"]
    assert await redis.smembers(f"{TAG}unmoved") == {b"901"}
    [loaded] = await taken.load(3, ["900"], world.packing)
    world.same(loaded, world.customer("900"))


def everything(world: World) -> Commit:
    return replace(
        some(world),
        fields={"held": 1, "falls": "100=1"},
        added={"customers": 1},
        replaced={1: b"other"},
        moved=["900"],
    )


@pytest.mark.parametrize(
    ("token", "version", "start"), [("two", 1, 10), ("one", 0, 10), ("one", 2, 10), ("one", 1, 11)]
)
async def test_what_is_refused_is_refused_whole(
    taken: RedisStore,
    world: World,
    redis: Redis,
    dump: Callable[[], Awaitable[Dump]],
    *,
    token: str,
    version: int,
    start: int,
) -> None:
    await redis.sadd(f"{TAG}unmoved", "900", "901")
    await taken.commit(3, "one", 0, Commit(outbox=[b"zero"]))
    before = await dump()
    with pytest.raises(RefusedError):
        await taken.commit(3, token, version, replace(everything(world), start=start))
    assert await dump() == before


async def test_an_operators_decision_is_told_with_what_is_due(
    taken: RedisStore, world: World, redis: Redis
) -> None:
    decide = redis.register_script(script("decide"))
    assert await decide(keys=[f"{TAG}shard"], args=["release"]) == 0, "nothing is held"
    await taken.commit(3, "one", 0, Commit(fields={"held": 0}))
    assert await decide(keys=[f"{TAG}shard"], args=["drop 77"]) == 1
    assert await taken.due(3, "one", 1, START, 10) == Due([], None, "drop 77")
    await taken.commit(3, "one", 1, Commit(customers=[world.write(world.customer("900"), due=5)]))
    assert await taken.due(3, "one", 2, START, 0) == Due([], 5, "drop 77"), "without room, too"
    await taken.commit(3, "one", 2, Commit(fields={"decision": "", "held": ""}))
    assert await taken.due(3, "one", 3, START, 10) == Due(["900"], 5, "")
    assert await decide(keys=[f"{TAG}shard"], args=["release"]) == 0


async def test_a_decision_leaves_the_owner_and_the_version_as_they_are(
    taken: RedisStore, redis: Redis
) -> None:
    await taken.commit(3, "one", 0, Commit(fields={"held": 0}))
    await redis.register_script(script("decide"))(keys=[f"{TAG}shard"], args=["release"])
    await taken.commit(3, "one", 1, Commit())
    state, _ = await taken.take_over(3, "two", BEGIN, Mark())
    assert (state.version, state.held) == (2, 0)
    assert (await taken.due(3, "two", 2, START, 10)).decision == "release"
