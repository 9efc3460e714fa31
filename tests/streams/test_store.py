"""How a shard's store behaves, on the real server: ownership, commits, what is due, the outbox, names."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis

from loyalty import Packing
from loyalty.customer import PAGE_ENTRIES
from schemas.program import Program
from streams.protocols import (
    COMMANDS,
    PURCHASES,
    TOUCHPOINTS,
    Commit,
    Due,
    FatalError,
    Mark,
    MovedOnError,
    RefusedError,
)
from streams.redis_store import RedisStore, read_binding
from streams.topics import ATTRIBUTIONS, SEGMENT_CHANGES, TIER_CHANGES
from tests.loyalty.worlds import DAY, purchase
from tests.streams.conftest import BEGIN, BINDING, Dump, MakeStore
from tests.streams.store_world import START, STRANGE_IDS, TAG, World, some


@pytest.fixture
def world(grocery: Program, packing: Packing) -> World:
    return World(grocery, packing)


# -- beginning -----------------------------------------------------------------------------------------------------


async def test_a_shard_that_was_never_begun_is_nothing(store: RedisStore) -> None:
    assert await store.peek(3) is None


async def test_looking_at_a_shard_writes_nothing(
    store: RedisStore, dump: Callable[[], Awaitable[Dump]]
) -> None:
    await store.peek(3)
    assert await dump() == {}


async def test_a_take_over_begins_a_new_shard_at_the_given_offsets(store: RedisStore) -> None:
    state, outbox = await store.take_over(3, "one", BEGIN, Mark())
    assert (state.version, state.offsets, state.outbox_last, outbox) == (0, BEGIN, 0, [])
    assert (state.newest, state.appended, state.outputs) == ({}, {}, {})
    assert await store.peek(3) == state


async def test_a_take_over_binds_the_store(taken: RedisStore, redis: Redis) -> None:
    held: dict[bytes, bytes] = await redis.hgetall(f"{TAG}shard")
    assert read_binding(held) == BINDING


async def test_a_later_take_over_goes_on_from_what_is_stored(taken: RedisStore, world: World) -> None:
    await taken.commit(3, "one", 0, some(world))
    state, outbox = await taken.take_over(3, "two", dict.fromkeys(BEGIN, 999), Mark())
    assert state.offsets == BEGIN | {PURCHASES: 15}
    assert (state.version, state.outbox_last, outbox) == (1, 2, [b"first", b"second"])


async def test_shards_do_not_know_of_each_other(taken: RedisStore, world: World) -> None:
    await taken.commit(3, "one", 0, some(world))
    assert await taken.peek(4) is None
    assert not await taken.knows(4, "900")
    assert [c async for c in taken.customers()] == [(3, "900")]


@pytest.mark.parametrize(
    ("part", "other", "named"),
    [
        ("cluster", "cluster-b", "Kafka cluster 'cluster-a'"),
        ("topics", "other.", "topic prefix 'loyalty.'"),
        ("group", "other", "group 'kizuna'"),
        ("partitions", 6, "number of partitions '12'"),
        ("program", "other", "program 'grocery'"),
    ],
)
async def test_a_store_that_is_bound_elsewhere_says_to_what(
    taken: RedisStore,
    make_store: MakeStore,
    dump: Callable[[], Awaitable[Dump]],
    *,
    part: str,
    other: Any,
    named: str,
) -> None:
    before = await dump()
    elsewhere = make_store(replace(BINDING, **{part: other}))
    with pytest.raises(FatalError, match=f"built for {named}, this worker has '{other}'"):
        await elsewhere.peek(3)
    with pytest.raises(FatalError, match=f"built for {named}, this worker has '{other}'"):
        await elsewhere.take_over(3, "two", BEGIN, Mark())
    assert await dump() == before


async def test_a_store_on_another_version_of_the_program_says_how_to_go_on(
    taken: RedisStore, make_store: MakeStore, dump: Callable[[], Awaitable[Dump]]
) -> None:
    before = await dump()
    elsewhere = make_store(replace(BINDING, version="ffff"))
    for work in (elsewhere.peek(3), elsewhere.take_over(3, "two", BEGIN, Mark())):
        with pytest.raises(
            MovedOnError, match=r"for program version 'a1b2', this worker has 'ffff'.*program apply"
        ):
            await work
    assert await dump() == before


async def test_an_empty_store_under_a_group_that_has_published_is_refused(store: RedisStore) -> None:
    with pytest.raises(FatalError, match="the store is empty, but its group has published 7 outbox entries"):
        await store.take_over(3, "one", BEGIN, Mark(7))
    assert await store.peek(3) is None


async def test_a_binding_with_spaces_is_told_whole(make_store: MakeStore) -> None:
    await make_store(replace(BINDING, group="team a")).take_over(3, "one", BEGIN, Mark())
    with pytest.raises(FatalError, match="built for group 'team a', this worker has 'team b'"):
        await make_store(replace(BINDING, group="team b")).take_over(3, "two", BEGIN, Mark())


# -- who may write -------------------------------------------------------------------------------------------------


async def test_the_former_owner_is_refused_everything(
    taken: RedisStore, world: World, dump: Callable[[], Awaitable[Dump]]
) -> None:
    await taken.commit(3, "one", 0, some(world))
    await taken.take_over(3, "two", BEGIN, Mark())
    before = await dump()
    late = some(world)
    late.start, late.end = 15, 16
    with pytest.raises(RefusedError, match="owner"):
        await taken.commit(3, "one", 1, late)
    with pytest.raises(RefusedError, match="owner"):
        await taken.due(3, "one", 1, START, 10)
    with pytest.raises(RefusedError, match="owner"):
        await taken.trim(3, "one", 1, 2, {TIER_CHANGES: 7})
    assert await dump() == before


async def test_nobody_owns_a_shard_that_was_never_begun(
    store: RedisStore, world: World, dump: Callable[[], Awaitable[Dump]]
) -> None:
    with pytest.raises(RefusedError, match="owner"):
        await store.commit(3, "one", 0, some(world))
    with pytest.raises(RefusedError, match="owner"):
        await store.trim(3, "one", 0, 0, {})
    assert await dump() == {}


async def test_a_commit_of_another_version_is_refused_and_writes_nothing(
    taken: RedisStore, world: World, dump: Callable[[], Awaitable[Dump]]
) -> None:
    before = await dump()
    for version in (1, 7):
        with pytest.raises(RefusedError, match=f"version 0, expected {version}"):
            await taken.commit(3, "one", version, some(world))
    with pytest.raises(RefusedError, match="version 0, expected 1"):
        await taken.due(3, "one", 1, START, 10)
    assert await dump() == before


@pytest.mark.parametrize("start", [9, 11])
async def test_a_batch_that_does_not_start_at_the_watermark_is_refused_and_writes_nothing(
    taken: RedisStore, world: World, dump: Callable[[], Awaitable[Dump]], start: int
) -> None:
    before = await dump()
    commit = some(world)
    commit.start = start
    with pytest.raises(RefusedError, match=f"watermark 10, batch starts at {start}"):
        await taken.commit(3, "one", 0, commit)
    assert await dump() == before


async def test_the_same_commit_is_not_taken_twice(
    taken: RedisStore, world: World, dump: Callable[[], Awaitable[Dump]]
) -> None:
    await taken.commit(3, "one", 0, some(world))
    before = await dump()
    with pytest.raises(RefusedError):
        await taken.commit(3, "one", 0, some(world))
    assert await dump() == before


# -- commits -------------------------------------------------------------------------------------------------------


async def test_a_commit_writes_everything_it_says(taken: RedisStore, world: World, redis: Redis) -> None:
    await taken.commit(3, "one", 0, some(world))
    state = await taken.peek(3)
    assert state is not None
    assert state.version == 1
    assert state.offsets == BEGIN | {PURCHASES: 15}
    assert state.newest == {PURCHASES: START}
    assert state.appended == {PURCHASES: START + 5}
    assert state.outbox_last == 2
    assert await redis.lrange(f"{TAG}outbox", 0, -1) == [b"first", b"second"]
    assert await redis.zrange(f"{TAG}due", 0, -1, withscores=True) == [(b"900", START + DAY)]
    readable = await redis.hgetall(f"{TAG}customer:900")
    assert {k.decode(): v.decode() for k, v in readable.items()} == dict(
        zip(*world.fold.readable(world.customer("900")), strict=True)
    )
    assert set(readable) == {
        *(b"tier", b"tier_seq", b"as_of", b"frequency", b"monetary"),
        *(b"last_purchase_at", b"lifetime_orders", b"lifetime_monetary"),
    }
    [loaded] = await taken.load(3, ["900"], world.packing)
    world.same(loaded, world.customer("900"))
    assert await taken.knows(3, "900")
    assert not await taken.knows(3, "901")


async def test_a_sweep_moves_no_watermark(taken: RedisStore, world: World) -> None:
    await taken.commit(3, "one", 0, Commit(customers=[world.write(world.customer("900"))], outbox=[b"x"]))
    state = await taken.peek(3)
    assert state is not None
    assert (state.version, state.offsets, state.newest, state.appended) == (1, BEGIN, {}, {})


async def test_a_batch_without_records_moves_the_watermark_alone(taken: RedisStore) -> None:
    await taken.commit(3, "one", 0, Commit(topic=TOUCHPOINTS, start=20, end=23))
    state = await taken.peek(3)
    assert state is not None
    assert state.offsets == BEGIN | {TOUCHPOINTS: 23}
    assert (state.version, state.newest, state.appended) == (1, {}, {})


async def test_every_input_has_a_watermark_of_its_own(taken: RedisStore) -> None:
    for version, topic in enumerate((COMMANDS, TOUCHPOINTS, PURCHASES)):
        at = BEGIN[topic]
        await taken.commit(3, "one", version, Commit(topic, at, at + 1, newest=at, appended=-at))
    state = await taken.peek(3)
    assert state is not None
    assert state.offsets == {topic: at + 1 for topic, at in BEGIN.items()}
    assert state.newest == BEGIN
    assert state.appended == {topic: -at for topic, at in BEGIN.items()}


async def test_customers_come_in_the_order_asked_for_and_new_where_there_are_none(
    taken: RedisStore, world: World
) -> None:
    known = [world.customer("b", 3), world.customer("a", 2)]
    await taken.commit(3, "one", 0, Commit(customers=[world.write(customer) for customer in known]))
    loaded = await taken.load(3, ["new", "a", "b"], world.packing)
    assert [customer.customer_id for customer in loaded] == ["new", "a", "b"]
    world.same(loaded[0], world.fold.new_customer("new"))
    world.same(loaded[1], known[1])
    world.same(loaded[2], known[0])
    assert await taken.load(3, [], world.packing) == []


async def test_a_customer_with_hundreds_of_orders_comes_back_whole(
    taken: RedisStore, world: World, redis: Redis
) -> None:
    many, few = world.customer("many", 700), world.customer("few", 2)
    await taken.commit(3, "one", 0, Commit(customers=[world.write(many), world.write(few)]))
    assert await redis.hlen(f"{TAG}pages:many") == (700 - 1) // PAGE_ENTRIES
    assert not await redis.exists(f"{TAG}pages:few")
    loaded = await taken.load(3, ["few", "many"], world.packing)
    world.same(loaded[0], few)
    world.same(loaded[1], many)


async def test_pages_that_are_over_are_taken_away(taken: RedisStore, world: World, redis: Redis) -> None:
    customer = world.customer("many", 200, apart=DAY // 4)
    await taken.commit(3, "one", 0, Commit(customers=[world.write(customer)]))
    pages = await redis.hlen(f"{TAG}pages:many")
    later = START + 2_000 * DAY
    assert world.fold.apply(customer, purchase(later, "last", customer_id="many"), later) is not None
    packed = world.packing.pack(customer, later, None)
    assert len(packed.dropped) == pages > 0
    await taken.commit(3, "one", 1, Commit(customers=[world.write(customer, packed=packed)]))
    assert not await redis.exists(f"{TAG}pages:many")
    [loaded] = await taken.load(3, ["many"], world.packing)
    world.same(loaded, customer)


async def test_what_did_not_change_is_left_as_it_is(taken: RedisStore, world: World, redis: Redis) -> None:
    await taken.commit(3, "one", 0, some(world))
    before = await redis.hgetall(f"{TAG}customer:900")
    unchanged = world.write(world.customer("900", 2), readable=None, due=None, due_changed=False)
    await taken.commit(3, "one", 1, Commit(customers=[unchanged]))
    assert await redis.zscore(f"{TAG}due", "900") == START + DAY
    assert await redis.hgetall(f"{TAG}customer:900") == before


async def test_thousands_of_customers_and_outbox_entries_are_one_commit(
    taken: RedisStore, world: World, redis: Redis
) -> None:
    commit = Commit(PURCHASES, BEGIN[PURCHASES], 5_000, START, START)
    customers = [world.customer(f"c{n}") for n in range(3_000)]
    commit.customers = [world.write(customer, due=START + n) for n, customer in enumerate(customers)]
    commit.outbox = [b"%d" % n for n in range(9_000)]
    await taken.commit(3, "one", 0, commit)
    assert await redis.lrange(f"{TAG}outbox", 0, -1) == commit.outbox
    assert await redis.zcard(f"{TAG}due") == 3_000
    loaded = await taken.load(3, [customer.customer_id for customer in customers], world.packing)
    for one, other in zip(loaded, customers, strict=True):
        world.same(one, other)
    state, pending = await taken.take_over(3, "two", BEGIN, Mark(8_999))
    assert (state.outbox_last, pending) == (9_000, [b"8999"])


async def test_a_customer_with_many_thousands_of_pages_is_one_commit(
    taken: RedisStore, world: World, redis: Redis
) -> None:
    customer = world.customer("many")
    packed = world.packing.pack(customer, START, None)
    packed = type(packed)(packed.head, dict.fromkeys(range(9_001), b"\x01page"), list(range(9_000, 18_500)))
    await taken.commit(3, "one", 0, Commit(customers=[world.write(customer, packed=packed)]))
    assert await redis.hlen(f"{TAG}pages:many") == 9_000


# -- what is due ---------------------------------------------------------------------------------------------------


async def test_due_is_what_lies_strictly_before_earliest_first(taken: RedisStore, world: World) -> None:
    at = {"b": 20, "a": 30, "c": 10, "d": 40}
    writes = [world.write(world.customer(name), due=instant) for name, instant in at.items()]
    await taken.commit(3, "one", 0, Commit(customers=writes))
    assert await taken.due(3, "one", 1, 30, 10) == Due(["c", "b"], 10, "")
    assert await taken.due(3, "one", 1, 31, 10) == Due(["c", "b", "a"], 10, "")
    assert await taken.due(3, "one", 1, 1_000, 2) == Due(["c", "b"], 10, "")
    assert await taken.due(3, "one", 1, 10, 10) == Due([], 10, "")


async def test_nobody_is_due_where_time_alone_changes_nothing(taken: RedisStore, world: World) -> None:
    assert await taken.due(3, "one", 0, START, 10) == Due([], None, "")
    await taken.commit(3, "one", 0, Commit(customers=[world.write(world.customer("900"), due=5)]))
    await taken.commit(3, "one", 1, Commit(customers=[world.write(world.customer("900"), due=None)]))
    assert await taken.due(3, "one", 2, START, 10) == Due([], None, "")


async def test_instants_are_exact_to_the_millisecond(taken: RedisStore, world: World) -> None:
    late = 253_402_300_799_999  # the end of the year 9999
    await taken.commit(3, "one", 0, Commit(customers=[world.write(world.customer("900"), due=late)]))
    assert await taken.due(3, "one", 1, late, 10) == Due([], late, "")
    assert await taken.due(3, "one", 1, late + 1, 10) == Due(["900"], late, "")


# -- the outbox ----------------------------------------------------------------------------------------------------


async def full(store: RedisStore) -> None:
    await store.commit(3, "one", 0, Commit(outbox=[b"1", b"2", b"3", b"4"]))


async def pending(store: RedisStore, redis: Redis) -> list[bytes]:
    found: list[bytes] = await redis.lrange(f"{TAG}outbox", 0, -1)
    return found


async def test_a_trim_takes_away_what_was_published_and_nothing_else(taken: RedisStore, redis: Redis) -> None:
    await full(taken)
    await taken.trim(3, "one", 1, 2, {TIER_CHANGES: 77})
    assert await pending(taken, redis) == [b"3", b"4"]
    await taken.trim(3, "one", 1, 2, {TIER_CHANGES: 77})
    assert await pending(taken, redis) == [b"3", b"4"]
    await taken.trim(3, "one", 1, 1, {TIER_CHANGES: 77})
    assert await pending(taken, redis) == [b"3", b"4"]
    await taken.trim(3, "one", 1, 4, {TIER_CHANGES: 79})
    assert await pending(taken, redis) == []
    await taken.trim(3, "one", 1, 4, {TIER_CHANGES: 79})
    state = await taken.peek(3)
    assert state is not None
    assert (state.version, state.outbox_last, state.outputs) == (1, 4, {TIER_CHANGES: 79})


async def test_a_trim_without_a_position_leaves_the_old_one(taken: RedisStore) -> None:
    await full(taken)
    await taken.trim(3, "one", 1, 1, {TIER_CHANGES: 77})
    await taken.trim(3, "one", 1, 2, {})
    state = await taken.peek(3)
    assert state is not None
    assert state.outputs == {TIER_CHANGES: 77}


async def test_each_output_has_a_position_of_its_own_and_that_of_tier_changes_is_stored_as_ever(
    taken: RedisStore, redis: Redis
) -> None:
    await full(taken)
    await taken.trim(3, "one", 1, 1, {TIER_CHANGES: 77, SEGMENT_CHANGES: 5})
    await taken.trim(3, "one", 1, 2, {ATTRIBUTIONS: 9, SEGMENT_CHANGES: 6})
    state = await taken.peek(3)
    assert state is not None
    assert state.outputs == {TIER_CHANGES: 77, SEGMENT_CHANGES: 6, ATTRIBUTIONS: 9}
    held = await redis.hmget(f"{TAG}shard", ["output", "output:segment-changes", "output:attributions"])
    assert held == [b"77", b"6", b"9"]


async def test_a_commit_may_pass_a_trim(taken: RedisStore, redis: Redis) -> None:
    await full(taken)
    await taken.trim(3, "one", 1, 3, {})
    await taken.commit(3, "one", 1, Commit(outbox=[b"5"]))
    await taken.trim(3, "one", 1, 4, {})
    assert await pending(taken, redis) == [b"5"]


async def test_a_take_over_forgets_what_was_published(taken: RedisStore, redis: Redis) -> None:
    await full(taken)
    state, left = await taken.take_over(3, "two", BEGIN, Mark(3))
    assert (state.outbox_last, left) == (4, [b"4"])
    assert await pending(taken, redis) == [b"4"]


async def test_a_take_over_keeps_what_was_trimmed_already_trimmed(taken: RedisStore) -> None:
    await full(taken)
    await taken.trim(3, "one", 1, 3, {})
    _, left = await taken.take_over(3, "two", BEGIN, Mark(1))
    assert left == [b"4"]


async def test_numbering_goes_on_above_what_was_published_where_the_store_lost_writes(
    taken: RedisStore, redis: Redis
) -> None:
    await full(taken)
    state, left = await taken.take_over(3, "two", BEGIN, Mark(9))
    assert (state.outbox_last, left) == (9, [])
    await taken.commit(3, "two", 1, Commit(outbox=[b"10"]))
    await taken.trim(3, "two", 1, 9, {})
    assert await pending(taken, redis) == [b"10"]
    await taken.trim(3, "two", 1, 10, {})
    assert await pending(taken, redis) == []


# -- names ---------------------------------------------------------------------------------------------------------


async def test_customers_may_be_called_anything(taken: RedisStore, world: World) -> None:
    customers = {name: world.customer(name, n + 1) for n, name in enumerate(STRANGE_IDS)}
    writes = [world.write(customer, due=7) for customer in customers.values()]
    await taken.commit(3, "one", 0, Commit(customers=writes))
    for loaded in await taken.load(3, STRANGE_IDS, world.packing):
        world.same(loaded, customers[loaded.customer_id])
    assert sorted([found async for found in taken.customers()]) == [(3, name) for name in sorted(STRANGE_IDS)]
    due = await taken.due(3, "one", 1, 8, 100)
    assert sorted(due.customers) == sorted(STRANGE_IDS)


async def test_every_key_stands_under_the_hash_tag_of_its_shard(
    taken: RedisStore, world: World, redis: Redis
) -> None:
    commit = some(world)
    commit.customers = [world.write(world.customer(name, 70)) for name in STRANGE_IDS]
    await taken.commit(3, "one", 0, commit)
    keys: list[bytes] = [key async for key in redis.scan_iter()]
    assert len(keys) >= 3 * len(STRANGE_IDS)
    for key in keys:
        first = key.index(b"{")
        assert key[first : key.index(b"}", first) + 1] == b"{3}"


async def test_prefixes_with_glob_characters_keep_stores_apart(make_store: MakeStore, world: World) -> None:
    for prefix in ("loyal*", "loyalty", "loyal[t]y"):
        store = make_store(prefix=prefix)
        await store.take_over(3, "one", BEGIN, Mark())
        customer = world.customer(f"of {prefix}")
        await store.commit(3, "one", 0, Commit(customers=[world.write(customer)]))
    for prefix in ("loyal*", "loyalty", "loyal[t]y"):
        assert [found async for found in make_store(prefix=prefix).customers()] == [(3, f"of {prefix}")]
