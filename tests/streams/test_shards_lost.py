"""A shard that is lost at any moment is taken over again."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from streams.intake import Intake
from streams.metrics import Metrics
from streams.protocols import INPUTS, RefusedError
from streams.settings import Settings
from streams.shard import Domain, Shard
from streams.shards import Shards
from tests.streams.conftest import BINDING
from tests.streams.shard_world import PARTITION, PARTITIONS, MemoryStore, MemoryWriter, make_shard, program


class Reader:
    """A member with one shard, of which a batch comes, and is refused, while its positions are still being set."""

    def __init__(self) -> None:
        self.shards: Shards | None = None
        self.moves = 0

    def assigned(self) -> set[tuple[str, int]]:
        return {(topic, PARTITION) for topic in INPUTS}

    async def prove(self, positions: Mapping[tuple[str, int], int]) -> None:
        raise AssertionError("the taking is a stand-in")

    async def move(self, positions: Mapping[tuple[str, int], int], epoch: int) -> None:
        self.moves += 1
        assert self.shards is not None
        if self.moves == 1:
            self.shards.lose(self.shards.held[PARTITION], RefusedError("watermark"))
        await asyncio.sleep(0)


@pytest.fixture
def reader() -> Reader:
    return Reader()


async def test_a_loss_while_the_positions_are_being_set_is_not_forgotten(reader: Reader) -> None:
    async def fail(error: BaseException) -> None:
        raise error

    rules, unused = program(), cast(Any, None)
    domain = Domain(rules, Intake(Settings(), rules, PARTITIONS))
    reader.shards = shards = Shards(Settings(), domain, unused, unused, Metrics(), fail, BINDING)

    async def take(partitions: list[int], reader: Any) -> list[Shard]:
        return [make_shard(rules, MemoryStore(), MemoryWriter(), partition=p) for p in partitions]

    shards._taking.take = take  # type: ignore[method-assign]
    recovering = asyncio.create_task(shards.recover(reader))
    await shards.take_over(reader)
    for _ in range(500):
        if reader.moves == 2 and not shards._lost.is_set():
            break
        await asyncio.sleep(0.01)
    assert reader.moves == 2
    assert not shards.held[PARTITION].is_lost
    recovering.cancel()
