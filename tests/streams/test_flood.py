"""An operator's limit on dead letters stops the worker before the batch that exceeds it is committed."""

import pytest

from schemas.program import Program
from streams.flood import Flood
from streams.intake import Intake
from streams.protocols import PURCHASES, Batch, FatalError, Stop
from streams.settings import Settings
from streams.shard import Domain, Shard
from tests.streams.conftest import HandMadeRecord
from tests.streams.shard_world import PARTITION, PARTITIONS, MemoryStore, MemoryWriter, make_shard, purchases

MINUTE = 60_000
NOON = 1_500_000_000_000


def bad(start: int, *appended: int) -> Batch:
    """Records that are no events."""
    records = [HandMadeRecord(start + n, b"900", b"{}", (), at) for n, at in enumerate(appended)]
    return Batch(PURCHASES, PARTITION, start, start + len(records), records)


def checked(flood: Flood, program: Program, batch: Batch) -> None:
    _, entries = Intake(Settings(), program, PARTITIONS).read(batch)
    flood.check(batch, entries)


def test_without_a_limit_any_number_may_come(grocery: Program) -> None:
    flood = Flood(0)
    checked(flood, grocery, bad(0, *[NOON] * 5_000))


def test_within_a_minute_no_more_than_the_limit_may_come(grocery: Program) -> None:
    flood = Flood(2)
    checked(flood, grocery, bad(0, NOON, NOON + 1))
    with pytest.raises(FatalError, match="more than 2 dead letters within a minute") as stopped:
        checked(flood, grocery, bad(2, NOON + MINUTE - 1))
    assert stopped.value.stop is Stop.DEAD_LETTERS
    assert "position 2 on" in str(stopped.value)
    assert "invalid_event" in str(stopped.value)


def test_a_minute_later_as_many_may_come_again(grocery: Program) -> None:
    flood = Flood(2)
    checked(flood, grocery, bad(0, NOON, NOON + 1))
    checked(flood, grocery, bad(2, NOON + MINUTE, NOON + MINUTE + 1))


def test_a_batch_that_was_appended_over_a_long_time_is_no_flood(grocery: Program) -> None:
    checked(Flood(1), grocery, bad(0, *range(NOON, NOON + 100 * MINUTE, MINUTE)))


async def test_nothing_of_the_batch_that_is_too_much_is_committed(grocery: Program) -> None:
    store = MemoryStore()
    shard = make_shard(grocery, store, MemoryWriter())
    limited = Domain(grocery, Intake(Settings(), grocery, PARTITIONS), dead_letters_limit=1)
    shard = Shard(
        PARTITION, "one", store.state, shard.outbox, MemoryWriter(), store, limited, shard._metrics, 100
    )
    await shard.process(purchases(0, 1))
    with pytest.raises(FatalError, match="dead letters"):
        await shard.process(bad(1, NOON, NOON))
    assert [commit.end for commit in store.commits] == [1]
