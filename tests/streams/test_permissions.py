"""Questions and reservations between the events of a shard, and of a shard that is elsewhere."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from loyalty.bond import Permission
from loyalty.customer import Customer
from schemas.program import Program, parse_program
from streams import pacing
from streams.intake import Intake
from streams.metrics import Metrics
from streams.outbox import decode
from streams.pacing import Pace
from streams.permissions import ElsewhereError, NoPolicyError, NotNowError, Permissions
from streams.protocols import RefusedError, ShardState, UnavailableError
from streams.settings import ClockKind, Settings
from streams.shard import Domain
from streams.shards import Shards
from streams.store_clock import StoreClock
from tests.loyalty.worlds import DAY
from tests.streams.conftest import BINDING
from tests.streams.shard_world import (
    NOON,
    PARTITION,
    PARTITIONS,
    MemoryStore,
    MemoryWriter,
    bought,
    contacts,
    here,
    make_shard,
    program,
)

POLICY = """
[contact_policy]
lapse = "1h"
[[contact_policy.caps]]
channel = "email"
most = 1
within = "7d"
"""
SETTINGS = Settings(clock=ClockKind.EVENT, web_url="http://me:1/")


def with_policy() -> Program:
    return parse_program(program().text + POLICY)


class Store(MemoryStore):
    """A store whose shards may be another's, with a clock."""

    url = ""

    async def owner_url(self, partition: int) -> str:
        return self.url

    async def peek(self, partition: int) -> ShardState | None:
        return self.state

    async def now(self) -> int:
        return NOON


class World:
    """A worker with one shard."""

    def __init__(self, rules: Program, settings: Settings = SETTINGS, **shard: Any) -> None:
        unused = cast(Any, None)
        self.failures: list[BaseException] = []
        self.store, self.writer = Store(), MemoryWriter()
        domain = Domain(rules, Intake(settings, rules, PARTITIONS))
        self.shards = Shards(settings, domain, unused, unused, Metrics(), self._fail, BINDING)
        self.shard = make_shard(rules, self.store, self.writer, **shard)
        self.shards._held = {PARTITION: self.shard}
        self.permissions = Permissions(
            settings, domain, self.shards, self.store, StoreClock(self.store), PARTITIONS
        )

    async def _fail(self, error: BaseException) -> None:
        self.failures.append(error)

    def published(self) -> list[str]:
        return [decode(raw).topic for commit in self.store.commits for raw in commit.outbox]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it does not happen")


async def test_of_two_who_ask_at_once_one_gets_the_place() -> None:
    world = World(with_policy())
    answers = await asyncio.gather(*(world.permissions.reserve("900", "email", None) for _ in range(5)))
    assert [answer.permission.decision for answer in answers] == ["allow", *["defer"] * 4]
    assert [answer.trigger_id for answer in answers] == ["grocery:reserved/900/1", *[None] * 4]
    # What was not allowed is not committed either.
    assert world.published() == ["nurturing-triggers"]
    assert len(world.store.commits) == 1
    assert world.shard.state.customers == 1


async def test_a_question_that_comes_while_a_batch_is_folded_sees_what_is_folded_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pacing, "SLICE", 0.0)  # a turn for the others after every single event
    world = World(with_policy())
    seen: list[str] = []
    folding = asyncio.ensure_future(world.shard.process(contacts(0)))
    while not folding.done():
        seen.append((await world.permissions.ask("900", "email", None)).permission.decision)
        await asyncio.sleep(0)
    await folding
    assert seen[0] == "allow"
    assert "defer" in seen
    # Never back to what was before.
    assert seen == sorted(seen)
    assert (await world.permissions.ask("900", "email", None)).permission == Permission(
        "defer", NOON + 11 * DAY, "cap: email, 1 within 7d"
    )


async def test_lanes_are_worked_on_one_after_another_and_between_slices_others_have_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pacing, "SLICE", 0.0)
    pace, done = Pace(), []

    async def lane(name: str) -> None:
        async with pace:
            for number in range(3):
                done.append(f"{name}{number}")
                await pace.rest()

    async def other() -> None:
        for _ in range(6):
            done.append("-")
            await asyncio.sleep(0)

    await asyncio.gather(lane("a"), lane("b"), other())
    assert "".join(done).replace("-", "") == "a0a1a2b0b1b2"
    assert "".join(done[:4]) == "a0-a1-"


async def test_a_slice_ends_when_its_time_is_over() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    async with pace:
        assert not pace.is_over()
        now[0] = pacing.SLICE
        assert pace.is_over()
        await pace.rest()
        assert not pace.is_over()


async def test_a_batch_that_makes_way_is_the_same_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = here(80)
    batch = bought(0, *((c, NOON + n, "120.00") for n, c in enumerate(ids * 2)))
    at_once, making_way = World(with_policy(), cache=10), World(with_policy(), cache=10)
    await at_once.shard.process(batch)
    monkeypatch.setattr(pacing, "SLICE", 0.0)
    await making_way.shard.process(batch)
    assert making_way.store.commits == at_once.store.commits
    assert making_way.store.heads == at_once.store.heads


async def test_whoever_leaves_costs_neither_the_shard_nor_the_place() -> None:
    world = World(with_policy())
    await world.shard.process(bought(0, ("900", NOON, "5.00")))
    world.shard._cache.clear()
    asking = asyncio.ensure_future(world.permissions.reserve("900", "email", None))
    await until(lambda: len(world.store.asked) == 2)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until(lambda: len(world.store.commits) == 2)
    await world.shard.process(bought(1, ("900", NOON + 1, "5.00")))
    assert (await world.permissions.ask("900", "email", None)).permission.decision == "defer"
    assert not world.shard.is_lost


@pytest.mark.parametrize("error", [RefusedError("owner"), UnavailableError("no answer")])
async def test_a_reservation_that_is_not_committed_is_not_told_and_loses_the_shard(error: Any) -> None:
    world = World(with_policy())
    world.store.refusals.append(error)
    with pytest.raises(type(error)):
        await world.permissions.reserve("900", "email", None)
    assert world.shard.is_lost
    # What is in the cache is ahead of the store: nobody is told of it.
    for ask in (world.permissions.ask, world.permissions.reserve):
        with pytest.raises(NotNowError, match="being taken over"):
            await ask("900", "email", None)


async def test_a_fault_of_our_own_in_the_lane_stops_the_worker() -> None:
    world = World(with_policy())
    world.shard.decide = None  # type: ignore[assignment,method-assign]
    with pytest.raises(TypeError):
        await world.permissions.reserve("900", "email", None)
    await asyncio.sleep(0)
    assert [type(failure) for failure in world.failures] == [TypeError]


async def test_nobody_is_told_what_the_store_has_lost_and_does_not_know_yet() -> None:
    world = World(with_policy())
    world.shard.healing.bonds._told["900"] = cast(Any, None)
    for ask in (world.permissions.ask, world.permissions.reserve):
        with pytest.raises(NotNowError, match="lost"):
            await ask("900", "email", None)
    other = here(1)[0]
    assert (await world.permissions.reserve(other, "email", None)).trigger_id


async def test_where_too_much_is_unpublished_no_place_is_taken() -> None:
    world = World(with_policy(), bound=0)
    with pytest.raises(NotNowError, match="published"):
        await world.permissions.reserve("900", "email", None)
    assert (await world.permissions.ask("900", "email", None)).permission.decision == "allow"


async def test_a_place_is_not_taken_either_where_the_outbox_is_full_when_the_lane_is_free() -> None:
    world = World(with_policy(), bound=1)
    first, second = await asyncio.gather(
        *(world.permissions.reserve(customer, "email", None) for customer in here(2)), return_exceptions=True
    )
    assert not isinstance(first, BaseException)
    assert isinstance(second, NotNowError)
    assert len(world.store.commits) == 1


async def test_what_is_elsewhere_is_read_from_the_store_and_reserved_there() -> None:
    world = World(with_policy())
    await world.shard.process(contacts(0))
    world.shards._held = {}
    answer = await world.permissions.ask("900", "email", None)
    assert (answer.permission.decision, answer.as_of) == ("defer", NOON + 4 * DAY)
    assert (await world.permissions.ask(here(1)[0], "email", None)).permission.decision == "allow"
    # Nobody, or this very worker, which does not hold it now: no use in going there.
    for url in ("", "http://me:1"):
        world.store.url = url
        with pytest.raises(NotNowError, match="no worker"):
            await world.permissions.reserve("900", "email", None)
    world.store.url = "http://other:2"
    with pytest.raises(ElsewhereError) as sent:
        await world.permissions.reserve("900", "email", None)
    assert sent.value.url == "http://other:2"
    assert len(world.store.commits) == 1


async def test_a_customer_who_leaves_the_cache_while_the_store_answers_is_read_again() -> None:
    world = World(with_policy(), cache=1)
    load = world.store.load
    other = here(1)[0]

    async def slow(partition: int, ids: Any, packing: Any) -> list[Customer]:
        found = await load(partition, ids, packing)
        if world.store.load == slow:
            world.store.load = load  # type: ignore[method-assign]
            # The answer is on its way: meanwhile the customer is contacted, committed and evicted.
            await world.shard.process(contacts(0))
            await world.shard.process(bought(0, (other, NOON, "5.00")))
        return found

    world.store.load = slow  # type: ignore[method-assign]
    assert (await world.permissions.ask("900", "email", None)).permission.decision == "defer"


async def test_by_the_wall_clock_it_is_now_and_never_before_what_is_known() -> None:
    world = World(with_policy(), SETTINGS.but(clock=ClockKind.WALL))
    assert NOON <= (await world.permissions.ask("900", "email", None)).as_of < NOON + 5_000
    await world.shard.process(contacts(0))
    assert (await world.permissions.ask("900", "email", None)).as_of == NOON + 4 * DAY


async def test_without_a_policy_nobody_is_asked() -> None:
    world = World(program())
    for ask in (world.permissions.ask, world.permissions.reserve):
        with pytest.raises(NoPolicyError):
            await ask("900", "email", None)
