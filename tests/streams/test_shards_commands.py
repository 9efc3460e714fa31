"""Commands wait for the purchases that were appended before them."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest

from schemas.murmur2 import home
from schemas.program import Program
from streams.intake import Intake
from streams.metrics import Metrics
from streams.protocols import COMMANDS, INPUTS, PURCHASES, TOUCHPOINTS, Batch, UnavailableError
from streams.settings import Settings
from streams.shard import Domain, Shard
from streams.shards import Shards
from tests.loyalty.worlds import DAY
from tests.streams.conftest import BINDING
from tests.streams.shard_world import (
    NOON,
    PARTITION,
    PARTITIONS,
    MemoryStore,
    MemoryWriter,
    bought,
    commanded,
    contacts,
    here,
    make_shard,
    program,
)

#: When the command was given; its record is appended a second later, as are those of purchases.
AT = NOON + DAY
OTHER = (PARTITION + 1) % PARTITIONS


class Ends:
    """Kafka, where only the ends of the inputs are asked for."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, int], int] = {}
        self.asked = 0
        self.gone = False

    async def ends(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.gone:
            raise UnavailableError("gone")
        return {(topic, p): self.at.get((topic, p), 0) for p in partitions for topic in INPUTS}


class World:
    """A worker with two shards, each on a store of its own."""

    def __init__(self, rules: Program) -> None:
        self.log = Ends()
        self.failures: list[BaseException] = []
        self.done: list[Batch] = []
        self.stores = {partition: MemoryStore() for partition in (PARTITION, OTHER)}
        domain = Domain(rules, Intake(Settings(), rules, PARTITIONS))
        unused = cast(Any, None)
        self.shards = Shards(Settings(), domain, unused, cast(Any, self.log), Metrics(), self.fail, BINDING)
        self.shards._held = {
            partition: make_shard(rules, store, MemoryWriter(), partition=partition)
            for partition, store in self.stores.items()
        }

    async def fail(self, error: BaseException) -> None:
        self.failures.append(error)

    async def hand(self, *batches: Batch) -> None:
        for batch in batches:
            self.shards.reading(batch)
            self.shards.hand(batch, lambda batch=batch: self.done.append(batch))  # type: ignore[misc]
        await settled()
        assert self.failures == []

    def committed(self, partition: int = PARTITION) -> list[tuple[str | None, int]]:
        """What was committed, in this order: the input and up to where."""
        return [(commit.topic, commit.end) for commit in self.stores[partition].commits]


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def rules() -> Program:
    return program()


@pytest.fixture
def world(rules: Program) -> World:
    return World(rules)


ONE = here(1)[0]


def pinned(start: int, at: int = AT) -> Batch:
    return commanded(start, (ONE, at, "gold", at + DAY))


def purchase(start: int, at: int = AT - 1) -> Batch:
    return bought(start, (ONE, at, "1.00"))


async def test_where_no_purchase_is_unread_a_command_goes_at_once(world: World) -> None:
    command = pinned(0)
    await world.hand(command)
    assert world.committed() == [(COMMANDS, 1)]
    assert world.done == [command]


async def test_a_command_waits_until_the_purchases_before_it_are_committed(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 2
    command, first, second = pinned(0), purchase(0), purchase(1)
    await world.hand(command)
    assert world.committed() == []
    await world.hand(first)
    assert world.committed() == [(PURCHASES, 1)]
    assert world.done == [first]
    await world.hand(second)
    assert world.committed() == [(PURCHASES, 1), (PURCHASES, 2), (COMMANDS, 1)]
    assert world.done == [first, second, command]


async def test_purchases_that_were_appended_later_are_not_waited_for(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 9
    await world.hand(pinned(0), purchase(0))
    assert world.committed() == [(PURCHASES, 1)]
    await world.hand(purchase(1, AT))
    assert world.committed()[1:] == [(PURCHASES, 2)], "appended with it, and more may have been"
    await world.hand(purchase(2, AT + 1))
    assert world.committed()[2:] == [(PURCHASES, 3), (COMMANDS, 1)]


async def test_what_is_appended_while_a_command_waits_is_not_waited_for(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 1
    await world.hand(pinned(0))
    world.log.at[PURCHASES, PARTITION] = 2
    await world.hand(purchase(0))
    assert world.committed() == [(PURCHASES, 1), (COMMANDS, 1)]


async def test_the_newest_of_several_commands_says_what_is_waited_for(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 9
    commands = commanded(0, (ONE, AT, "gold", AT + DAY), (ONE, AT + 5, "silver", AT + DAY))
    await world.hand(commands, purchase(0, AT + 1))
    assert world.committed() == [(PURCHASES, 1)]
    await world.hand(purchase(1, AT + 6))
    assert world.committed()[1:] == [(PURCHASES, 2), (COMMANDS, 2)]


async def test_commands_keep_their_order(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 9
    await world.hand(pinned(0, AT + 5), pinned(1, AT))
    await world.hand(purchase(0, AT + 1))
    assert world.committed() == [(PURCHASES, 1)], "the second need not wait for it, but for the first"
    await world.hand(purchase(1, AT + 6))
    assert world.committed()[1:] == [(PURCHASES, 2), (COMMANDS, 1), (COMMANDS, 2)]


async def test_a_batch_without_commands_keeps_its_place_behind_one_that_waits(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 1
    await world.hand(pinned(0), Batch(COMMANDS, PARTITION, 1, 3, []))
    assert world.committed() == []
    await world.hand(purchase(0))
    assert world.committed() == [(PURCHASES, 1), (COMMANDS, 1), (COMMANDS, 3)]
    assert not world.shards._lost.is_set()


async def test_a_batch_without_commands_waits_for_nothing(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 1
    await world.hand(Batch(COMMANDS, PARTITION, 0, 3, []))
    assert world.committed() == [(COMMANDS, 3)]
    assert world.log.asked == 0


async def test_touchpoints_and_purchases_pass_a_command_that_waits(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 9
    await world.hand(pinned(0), contacts(0, ONE), purchase(0))
    assert world.committed() == [(TOUCHPOINTS, 1), (PURCHASES, 1)]


async def test_shards_do_not_wait_for_each_others_purchases(world: World) -> None:
    other = here(1, OTHER)[0]
    assert home(other.encode(), PARTITIONS) == OTHER
    world.log.at[PURCHASES, PARTITION] = world.log.at[PURCHASES, OTHER] = 1
    theirs = commanded(0, (other, AT, "gold", AT + DAY))
    theirs.partition = OTHER
    await world.hand(pinned(0), theirs)
    await world.hand(bought(0, (other, AT - 1, "1.00"), partition=OTHER))
    assert (world.committed(), world.committed(OTHER)) == ([], [(PURCHASES, 1), (COMMANDS, 1)])
    await world.hand(purchase(0))
    assert world.committed() == [(PURCHASES, 1), (COMMANDS, 1)]


async def test_where_kafka_does_not_answer_the_shard_is_lost_and_nothing_is_committed(world: World) -> None:
    world.log.gone = True
    await world.hand(pinned(0))
    assert world.committed() == []
    assert world.shards._lost.is_set()


async def test_a_command_that_waits_is_let_go_with_its_shard(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 1
    await world.hand(pinned(0), pinned(1), Batch(COMMANDS, PARTITION, 2, 3, []))
    await world.shards.drop()
    await settled()
    assert world.shards._tasks == set()
    assert (world.committed(), world.done) == ([], [])


async def test_a_command_that_waits_does_not_hold_up_the_end_of_the_worker(world: World) -> None:
    world.log.at[PURCHASES, PARTITION] = 1
    await world.hand(pinned(0), pinned(1))
    await asyncio.wait_for(world.shards.close(), 1)
    assert world.shards._tasks == set()
    assert (world.committed(), world.done) == ([], [])
    assert world.shards.watermark(COMMANDS, PARTITION) == 0


async def test_a_command_that_waited_before_a_take_over_is_not_committed_by_the_old_shard(
    world: World, rules: Program
) -> None:
    world.log.at[PURCHASES, PARTITION] = 1
    await world.hand(pinned(0))
    store = world.stores[PARTITION]
    later: Shard = make_shard(rules, store, MemoryWriter(), token="two")
    world.shards._drop_all()
    world.shards._held = {PARTITION: later}
    world.shards.epoch += 1
    await settled()
    assert world.committed() == []
    again = purchase(0)
    again.epoch = world.shards.epoch
    await world.hand(again)
    assert world.committed() == [(PURCHASES, 1)]
