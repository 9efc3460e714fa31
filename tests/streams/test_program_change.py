"""Moving a whole store to another version of its program, on the real server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from cli.local_cluster import ValkeyCluster
from cli.local_stack import ValkeyServer
from schemas.program import Program
from streams import program_change
from streams.program_change import ChangeError, Move, ProgramChange
from streams.protocols import Commit, FatalError, Mark, MovedOnError, RefusedError, UnavailableError
from streams.redis_nodes import RedisNodes
from streams.redis_store import RedisStore
from streams.settings import ClockKind
from tests.loyalty.worlds import DAY
from tests.streams.conftest import PREFIX, Dump
from tests.streams.program_world import (
    Change,
    Workers,
    apply,
    binding,
    break_after,
    numbers,
    settings,
    told,
)
from tests.streams.shard_world import NOON, PARTITIONS, contacts, program

#: A customer whose partition is the one of the world's contacts.
TOUCHED = "900"
NEWEST = NOON + 10 * DAY


@pytest.fixture(scope="module")
def before() -> Program:
    return program()


@pytest.fixture(scope="module")
def after() -> Program:
    """Silver takes 200 instead of 100, gold less."""
    return program(('"100.00"', '"200.00"'), ('"500.00"', '"400.00"'))


@pytest.fixture(scope="module")
def third() -> Program:
    return program(('"100.00"', '"300.00"'))


@pytest.fixture
async def change(valkey: ValkeyServer | ValkeyCluster) -> AsyncIterator[Change]:
    """Opens changes in the event clock, unless told otherwise."""
    opened = []

    async def make(program: Program, clock: ClockKind = ClockKind.EVENT) -> ProgramChange:
        made = await ProgramChange.open(settings(valkey.address, clock=clock), program)
        opened.append(made)
        return made

    yield make
    for made in opened:
        await made.close()


@pytest.fixture
async def old(nodes: RedisNodes, before: Program) -> Workers:
    """Forty customers over all shards, some of each tier, the newest purchase in each shard ten days later."""
    workers = await Workers(nodes, before).take_over()
    await workers.buy(*[(f"c{n}", NOON + n, f"{n % 4 * 149 + 1}.00") for n in range(40)])
    newest: dict[int, str] = {}
    for n in range(200, 400):
        newest.setdefault(workers.home(f"n{n}").partition, f"n{n}")
    await workers.buy(*[(customer, NEWEST, "1.00") for customer in newest.values()])
    await workers.home(TOUCHED).process(contacts(0, TOUCHED))
    assert len(newest) == PARTITIONS
    return workers


#: What becomes of them: members stay, 150 is not enough any more, 299 still is, 448 is gold.
MOVES = {
    ("member", "member"): 10 + PARTITIONS + 1,
    ("silver", "gold"): 10,
    ("silver", "member"): 10,
    ("silver", "silver"): 10,
}
ALL = sum(MOVES.values())


async def new(nodes: RedisNodes, program: Program, token: str = "two") -> Workers:
    return await Workers(nodes, program, token).take_over()


# -- switching -----------------------------------------------------------------------------------------------------


async def test_the_old_owner_is_refused_at_its_next_commit_and_sweep(
    old: Workers, change: Change, after: Program, dump: Callable[[], Awaitable[Dump]]
) -> None:
    batches = old.batches(("c1", NEWEST + 1, "1.00"))
    await (await change(after)).begin(None)
    switched = await dump()
    for shard, batch in batches.items():
        with pytest.raises(RefusedError):
            await shard.process(batch)
    for shard in old.shards:
        if shard not in batches:
            with pytest.raises(RefusedError):
                await shard.sweep(NEWEST, NEWEST)
        with pytest.raises(RefusedError):
            await old.store.trim(shard.partition, old.token, 0, 0, {})
        with pytest.raises(RefusedError):
            await old.store.commit(shard.partition, old.token, shard.state.version, Commit())
    assert await dump() == switched


async def test_who_has_the_old_program_learns_that_the_store_has_moved_on(
    old: Workers, change: Change, before: Program, after: Program
) -> None:
    await (await change(after)).begin(None)
    for partition in range(PARTITIONS):
        for work in (old.store.peek(partition), old.store.take_over(partition, "three", {}, Mark())):
            with pytest.raises(MovedOnError, match=rf"version '{after.version}', .* has '{before.version}'"):
                await work


async def test_nobody_owns_a_shard_that_was_switched(
    old: Workers, change: Change, nodes: RedisNodes, after: Program
) -> None:
    await (await change(after)).begin(None)
    store = RedisStore(nodes, PREFIX, binding(after), after.text)
    state = await store.peek(3)
    assert state is not None
    with pytest.raises(RefusedError):
        await store.commit(3, old.token, state.version, Commit())


async def test_a_new_worker_takes_over_with_the_rules_of_both(
    old: Workers, change: Change, nodes: RedisNodes, before: Program, after: Program
) -> None:
    await (await change(after)).begin(NEWEST + DAY)
    workers = await new(nodes, after)
    for was, shard in zip(old.shards, workers.shards, strict=True):
        state = shard.state
        assert (state.generation, state.moved, state.is_moving) == (1, 0, True)
        assert (state.program_before, state.program_at) == (before.text, NEWEST)
        assert state.protect_until == NEWEST + DAY
        assert state.offsets == was.state.offsets
        assert state.customers == was.state.customers
    assert set(await workers.fields(nodes, "program:text")) == {after.text.encode()}


async def test_switching_again_changes_nothing(
    old: Workers, change: Change, after: Program, dump: Callable[[], Awaitable[Dump]]
) -> None:
    first, also = await change(after), await change(after)
    await first.begin(NEWEST + DAY)
    switched = await dump()
    for again in (first, also, await change(after)):
        await again.begin(None)
        assert again.is_begun
        assert [shard.generation for shard in again._shards] == [1] * PARTITIONS
        assert [shard.program_at for shard in again._shards] == [NEWEST] * PARTITIONS
    assert await dump() == switched


async def test_switching_again_in_the_wall_clock_keeps_the_instant(
    old: Workers, change: Change, nodes: RedisNodes, after: Program, dump: Callable[[], Awaitable[Dump]]
) -> None:
    server = await old.store.now()
    first = await change(after, ClockKind.WALL)
    await first.begin(None)
    [instant] = {shard.program_at for shard in first._shards}
    assert server <= instant <= await old.store.now()
    switched = await dump()
    await (await change(after, ClockKind.WALL)).begin(None)
    await first.begin(None)
    assert await dump() == switched


@pytest.mark.parametrize("done", [1, 5, 11])
async def test_a_half_done_switch_is_completed_with_the_same_instant(
    old: Workers, change: Change, nodes: RedisNodes, after: Program, done: int
) -> None:
    broken = await change(after, ClockKind.WALL)
    break_after(broken, done)
    with pytest.raises(UnavailableError):
        await broken.begin(NEWEST)
    instants = await old.fields(nodes, "program:at")
    assert instants.count(None) == PARTITIONS - done
    while await old.store.now() <= int(instants[0]):  # so that another instant would be another
        pass
    again = await change(after, ClockKind.WALL)
    assert again.is_begun
    await again.begin(NEWEST)
    assert await old.fields(nodes, "program:at") == [instants[0]] * PARTITIONS
    assert await old.fields(nodes, "generation") == [b"1"] * PARTITIONS


async def test_in_the_event_clock_every_shard_has_an_instant_of_its_own(
    nodes: RedisNodes, change: Change, before: Program, after: Program
) -> None:
    old = await Workers(nodes, before).take_over()
    await old.buy(("c1", NOON + 1, "1.00"), ("c2", NOON + 2, "1.00"))
    expected = [b"0"] * PARTITIONS
    expected[old.home("c1").partition], expected[old.home("c2").partition] = (
        str(NOON + 1).encode(),
        str(NOON + 2).encode(),
    )
    broken = await change(after)
    break_after(broken, 6)
    with pytest.raises(UnavailableError):
        await broken.begin(None)
    await (await change(after)).begin(None)
    assert await old.fields(nodes, "program:at") == expected


# -- moving --------------------------------------------------------------------------------------------------------


async def test_what_is_foreseen_is_what_happens(
    old: Workers, change: Change, nodes: RedisNodes, after: Program, dump: Callable[[], Awaitable[Dump]]
) -> None:
    applied = await change(after)
    untouched = await dump()
    looked_at: list[int] = []
    foreseen = await applied.foresee(None, looked_at.append)
    assert await dump() == untouched
    assert looked_at[-1] == ALL
    assert numbers(foreseen) == MOVES
    await apply(applied)
    workers = await new(nodes, after)
    assert await workers.move(NEWEST) == ALL
    assert await applied.tally() == foreseen


async def test_what_is_foreseen_holds_with_a_protection_and_tells_who_is_at_risk(
    old: Workers, change: Change, nodes: RedisNodes
) -> None:
    kept = program(('"100.00"', '"200.00"\ngrace_period = "7d"'))
    applied = await change(kept)
    foreseen = await applied.foresee(None, told)
    assert Move("silver", "silver", 30, 10) in foreseen
    foreseen = await applied.foresee(NEWEST + DAY, told)
    assert Move("silver", "silver", 30, 0) in foreseen
    await apply(applied, NEWEST + DAY)
    workers = await new(nodes, kept)
    await workers.move(NEWEST)
    assert numbers(await applied.tally()) == numbers(foreseen)
    assert (await workers.customer("c1")).at_risk is None


async def test_what_is_left_is_foreseen_while_customers_are_moved(
    old: Workers, change: Change, nodes: RedisNodes, after: Program
) -> None:
    await apply(await change(after))
    workers = await new(nodes, after)
    for shard in workers.shards[:6]:
        while await shard.move(NEWEST, 100):
            pass
    again = await change(after)
    so_far, to_come = numbers(await again.tally()), numbers(await again.foresee(None, told))
    assert 0 < sum(so_far.values()) < ALL
    assert {pair: so_far.get(pair, 0) + to_come.get(pair, 0) for pair in MOVES} == MOVES


async def test_what_is_left_counts_down_to_nothing(
    old: Workers, change: Change, nodes: RedisNodes, after: Program
) -> None:
    applied = await change(after)
    await applied.begin(None)
    workers = await new(nodes, after)
    assert await applied.left() > 0, "nobody is listed yet"
    listed: list[int] = []
    await applied.enlist(listed.append)
    assert listed[-1] == ALL
    counted = [await applied.left()]
    for shard in workers.shards:
        while await shard.move(NEWEST, 2):
            counted.append(await applied.left())
    assert counted == sorted(counted, reverse=True)
    assert (counted[0], counted[-1], applied.is_done) == (ALL, 0, True)
    assert await workers.fields(nodes, "program:before") == [None] * PARTITIONS
    assert await workers.fields(nodes, "moved") == [b"1"] * PARTITIONS
    assert numbers(await applied.tally()) == MOVES


async def test_a_store_that_was_moved_is_as_any_other(
    old: Workers, change: Change, nodes: RedisNodes, after: Program, third: Program
) -> None:
    applied = await change(after)
    await apply(applied)
    await (await new(nodes, after)).move(NEWEST)
    assert await applied.left() == 0
    done = await change(after)
    assert (done.is_done, done.is_begun, done.before) == (True, True, None)
    workers = await new(nodes, after, "three")
    assert not any(shard.state.is_moving for shard in workers.shards)
    await workers.buy(("c2", NEWEST + 1, "1.00"), ("born", NEWEST + 1, "200.00"))
    assert [(await workers.customer(name)).generation for name in ("c1", "c2", "born")] == [1, 1, 1]
    applied = await change(third)
    await apply(applied)
    workers = await new(nodes, third, "four")
    await workers.move(NEWEST + 1)
    assert await applied.left() == 0
    assert (await workers.customer("born")).generation == 2
    assert sum(numbers(await applied.tally()).values()) == ALL + 1


async def test_a_change_that_was_broken_off_while_listing_moves_everyone_once(
    old: Workers, change: Change, nodes: RedisNodes, after: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_change, "_PART", 2)
    broken = await change(after)
    await broken.begin(None)
    break_after(broken, 9)
    with pytest.raises(UnavailableError):
        await broken.enlist(told)
    workers = await new(nodes, after)
    moved = await workers.move(NEWEST)
    assert 0 < moved < ALL
    again = await change(after)
    assert await again.left() > 0, "not everyone was listed"
    await apply(again)
    assert await workers.move(NEWEST) == ALL, "those who are moved are found to be"
    assert await again.left() == 0
    assert numbers(await again.tally()) == MOVES
    lost = [await workers.customer(f"c{n}") for n in range(1, 40, 4)]
    assert {(customer.tier, customer.tier_seq) for customer in lost} == {(0, 2)}
    risen = [await workers.customer(f"c{n}") for n in range(3, 40, 4)]
    assert {(customer.tier, customer.tier_seq) for customer in risen} == {(2, 2)}


async def test_who_was_moved_by_an_event_and_is_listed_afterwards_is_moved_once(
    old: Workers, change: Change, nodes: RedisNodes, after: Program
) -> None:
    applied = await change(after)
    await applied.begin(None)
    workers = await new(nodes, after)
    await workers.buy(("c1", NEWEST, "1.00"), ("born", NEWEST, "1.00"))
    await applied.enlist(told)
    assert await applied.left() == ALL + 1
    await workers.move(NEWEST)
    assert await applied.left() == 0
    assert numbers(await applied.tally()) == MOVES
    assert (await workers.customer("c1")).tier_seq == 2


async def test_a_store_without_customers_is_moved_at_once(
    nodes: RedisNodes, change: Change, before: Program, after: Program
) -> None:
    await Workers(nodes, before).take_over()
    applied = await change(after)
    assert await applied.foresee(None, told) == []
    await apply(applied)
    assert await applied.left() == 0
    assert await applied.tally() == []
    assert (await change(after)).is_done


# -- refusals ------------------------------------------------------------------------------------------------------


async def test_another_version_is_refused_while_customers_are_moved(
    old: Workers, change: Change, before: Program, after: Program, third: Program
) -> None:
    await apply(await change(after))
    for other in (third, before):
        with pytest.raises(ChangeError, match=r"^another change of the program is under way[^\n]*$"):
            await change(other)


async def test_another_version_is_refused_while_the_switch_is_half_done(
    old: Workers, change: Change, before: Program, after: Program, third: Program
) -> None:
    broken = await change(after)
    break_after(broken, 5)
    with pytest.raises(UnavailableError):
        await broken.begin(None)
    for other in (third, before):
        with pytest.raises(ChangeError, match=r"^another change of the program is under way[^\n]*$"):
            await change(other)


@pytest.mark.parametrize("done", [False, True])
async def test_of_two_changes_at_once_one_is_refused_and_changes_nothing(
    old: Workers,
    change: Change,
    nodes: RedisNodes,
    after: Program,
    third: Program,
    dump: Callable[[], Awaitable[Dump]],
    *,
    done: bool,
) -> None:
    one, other = await change(after), await change(third)
    await apply(one)
    if done:
        await (await new(nodes, after)).move(NEWEST)
        assert await one.left() == 0
    switched = await dump()
    with pytest.raises(ChangeError, match="changed by somebody else meanwhile"):
        await other.begin(None)
    assert await dump() == switched


async def test_a_change_that_somebody_else_has_ended_lists_nobody(
    old: Workers, change: Change, nodes: RedisNodes, after: Program, third: Program
) -> None:
    slow, quick = await change(after), await change(after)
    await slow.begin(None)
    await apply(quick)
    await (await new(nodes, after)).move(NEWEST)
    assert await quick.left() == 0
    await slow.enlist(told)
    assert not [key async for key in nodes.scan(f"{PREFIX}:*:unmoved")], "the change is over"
    await (await change(third)).begin(None)
    for work in (slow.enlist(told), slow.left()):
        with pytest.raises(ChangeError, match="changed by somebody else meanwhile"):
            await work


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id": "other"}, "program.id: the store is of program 'grocery'"),
        ({"currency": "EUR"}, "program.currency: expected 'USD'"),
        ({"ledger": 273 * DAY}, "program.ledger: expected at most 272d"),
        ({"window": 272 * DAY}, "program.window: expected at most 271.997d"),
        ({"publish_from": 253_402_300_799_999}, "program.publish_from: expected no later than now"),
    ],
)
@pytest.mark.parametrize("clock", list(ClockKind))
async def test_what_the_store_cannot_follow_is_refused_in_a_line_with_the_key(
    old: Workers,
    change: Change,
    after: Program,
    dump: Callable[[], Awaitable[Dump]],
    *,
    given: dict[str, Any],
    message: str,
    clock: ClockKind,
) -> None:
    before = await dump()
    with pytest.raises(ChangeError) as raised:
        await change(msgspec.structs.replace(after, version="ffff", **given), clock)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)
    assert await dump() == before


async def test_in_the_event_clock_publishing_may_begin_no_later_than_the_instant_of_the_change(
    old: Workers, change: Change, after: Program
) -> None:
    await change(msgspec.structs.replace(after, version="ffff", publish_from=NEWEST))
    with pytest.raises(ChangeError, match=r"^program\.publish_from"):
        await change(msgspec.structs.replace(after, version="ffff", publish_from=NEWEST + 1))


async def test_without_a_store_there_is_nothing_to_change(
    nodes: RedisNodes, change: Change, after: Program
) -> None:
    with pytest.raises(ChangeError, match=r"^no worker has begun a store at [^\n]*$"):
        await change(after)


async def test_a_store_that_was_not_begun_everywhere_is_refused(
    nodes: RedisNodes, change: Change, before: Program, after: Program
) -> None:
    store = RedisStore(nodes, PREFIX, binding(before), before.text)
    for partition in range(10):
        await store.take_over(partition, "one", {}, Mark())
    with pytest.raises(ChangeError, match=r"^shards 10, 11 of the store were never begun[^\n]*$"):
        await change(after)


async def test_a_store_that_does_not_know_its_program_is_refused(
    nodes: RedisNodes, change: Change, before: Program, after: Program
) -> None:
    old = RedisStore(nodes, PREFIX, binding(before), "")
    for partition in range(PARTITIONS):
        await old.take_over(partition, "one", {}, Mark())
    with pytest.raises(ChangeError, match=r"^the store does not know the file of the program[^\n]*$"):
        await change(after)


async def test_a_program_before_that_cannot_be_read_is_fatal(
    nodes: RedisNodes, change: Change, before: Program, after: Program
) -> None:
    old = RedisStore(nodes, PREFIX, binding(before), "[program]")
    for partition in range(PARTITIONS):
        await old.take_over(partition, "one", {}, Mark())
    with pytest.raises(FatalError, match=r"^the program before, as the store holds it, cannot be read"):
        await change(after)
