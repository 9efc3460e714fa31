"""A shard's lane with stand-ins for Redis and Kafka: what it does where they refuse."""

import asyncio
from collections.abc import Iterable

import pytest

from schemas.murmur2 import home
from schemas.program import Program
from schemas.rejection import Reason
from streams import parts
from streams.outbox import decode
from streams.protocols import (
    COMMANDS,
    PURCHASES,
    TOUCHPOINTS,
    Mark,
    OutRecord,
    RefusedError,
    ShardLostError,
    ShardState,
    UnavailableError,
)
from streams.shard import Shard
from streams.topics import TIER_CHANGES
from tests.streams.shard_world import (
    NOON,
    PARTITION,
    PARTITIONS,
    WINDOW,
    MemoryStore,
    MemoryWriter,
    bought,
    changes,
    contacts,
    here,
    make_shard,
    program,
    publish,
    purchases,
)


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def writer() -> MemoryWriter:
    return MemoryWriter()


@pytest.fixture
def shard(grocery: Program, memory: MemoryStore, writer: MemoryWriter) -> Shard:
    return make_shard(grocery, memory, writer, cache=2)


async def test_a_batch_is_committed_with_its_changes(shard: Shard, memory: MemoryStore) -> None:
    await shard.process(purchases(0, 0, 1, 2, 3, 4))
    [commit] = memory.commits
    assert (commit.topic, commit.start, commit.end) == (PURCHASES, 0, 5)
    assert commit.appended == 1_600_000_000_004
    assert [write.customer_id for write in commit.customers] == ["900"]
    [change] = changes(memory)
    assert (change["tier"], change["tier_seq"], change["cause_event_id"]) == ("silver", 1, "900/4")
    assert shard.state.version == 1
    assert shard.state.offsets[PURCHASES] == 5
    assert shard.outbox.last == 1


async def test_a_customer_of_the_cache_is_not_loaded_again(shard: Shard, memory: MemoryStore) -> None:
    await shard.process(purchases(0, 0))
    await shard.process(purchases(1, 1))
    await shard.process(contacts(0))
    assert [asked for asked in memory.asked if asked] == [["900"]]


async def test_the_cache_keeps_those_used_last(shard: Shard, memory: MemoryStore, grocery: Program) -> None:
    here = [c for c in map(str, range(2_000)) if home(c.encode(), PARTITIONS) == PARTITION][:3]
    for n, customer in enumerate([here[0], here[1], here[0], here[2], here[0], here[1]]):
        await shard.process(purchases(n, n, customer=customer))
    assert [asked for asked in memory.asked if asked] == [[here[0]], [here[1]], [here[2]], [here[1]]]


async def test_a_duplicate_changes_nothing_but_the_watermark(shard: Shard, memory: MemoryStore) -> None:
    await shard.process(purchases(0, 0))
    await shard.process(purchases(1, 0))
    assert memory.commits[1].customers == []
    assert memory.commits[1].end == 2
    assert shard.state.version == 2


async def test_an_event_older_than_the_ledger_is_a_dead_letter(shard: Shard, memory: MemoryStore) -> None:
    await shard.process(purchases(0, 300, 1))
    [entry] = [decode(raw) for raw in memory.commits[0].outbox]
    assert entry.reason is Reason.TOO_LATE


async def test_a_batch_that_does_not_go_on_from_the_watermark_is_refused(
    shard: Shard, memory: MemoryStore
) -> None:
    with pytest.raises(RefusedError, match="starts at 1, not at 0"):
        await shard.process(purchases(1, 0))
    assert memory.commits == []


async def test_a_refused_commit_loses_the_shard_and_moves_nothing(shard: Shard, memory: MemoryStore) -> None:
    memory.refusals = [RefusedError("owner")]
    with pytest.raises(ShardLostError):
        await shard.process(purchases(0, 0, 1, 2, 3, 4))
    assert (shard.state.version, shard.state.offsets[PURCHASES], shard.outbox.last) == (0, 0, 0)
    assert shard.state.newest == {}


@pytest.mark.parametrize("error", [UnavailableError("no memory"), RefusedError("owner")])
async def test_after_a_failed_commit_nothing_more_is_committed(
    shard: Shard, memory: MemoryStore, error: ShardLostError
) -> None:
    memory.refusals = [error]
    results = await asyncio.gather(
        shard.process(purchases(0, 0, 1, 2, 3, 4)), shard.process(contacts(0)), return_exceptions=True
    )
    assert [isinstance(result, ShardLostError) for result in results] == [True, True]
    with pytest.raises(ShardLostError):
        await shard.sweep(1, 1)
    assert memory.commits == []


async def test_a_change_whose_commit_failed_is_made_when_the_batch_is_read_again(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter, grocery: Program
) -> None:
    memory.refusals = [UnavailableError("no memory")]
    await asyncio.gather(
        shard.process(purchases(0, 0, 1, 2, 3, 4)), shard.process(contacts(0)), return_exceptions=True
    )
    offsets = {PURCHASES: 0, TOUCHPOINTS: shard.state.offsets[TOUCHPOINTS], COMMANDS: 0}
    again = make_shard(grocery, memory, writer, state=ShardState(memory.version, offsets), token="two")
    await again.process(purchases(0, 0, 1, 2, 3, 4))
    assert [change["tier"] for change in changes(memory)] == ["silver"]


async def test_a_sweep_lets_fall_due_what_time_brings(shard: Shard, memory: MemoryStore) -> None:
    await shard.process(purchases(0, 0, 1, 2, 3, 4))
    [due] = memory.dues.values()
    await shard.sweep(due, due)
    assert len(memory.commits) == 1
    await shard.sweep(due + 1, due + 1)
    assert [change["reason"] for change in changes(memory)] == ["purchase", "window_expiry"]
    assert memory.commits[1].topic is None
    assert memory.dues == {}


async def test_a_batch_waits_for_a_part_of_a_sweep_only(memory: MemoryStore, writer: MemoryWriter) -> None:
    shard = make_shard(program(), memory, writer, bound=1_000, cache=1_000)
    *due, other = here(201)
    await shard.process(bought(0, *((customer, NOON, "150.00") for customer in due)))
    until = NOON + WINDOW + 1
    sweeping = asyncio.ensure_future(shard.sweep(until, until))
    await asyncio.sleep(0)  # it is in the lane before the batch
    await shard.process(bought(200, (other, NOON + WINDOW, "1.00")))
    assert [commit.topic for commit in memory.commits] == [PURCHASES, None, PURCHASES]
    assert len(memory.commits[1].customers) <= 100
    await sweeping
    assert [change["reason"] for change in changes(memory)].count("window_expiry") == 200


async def test_while_the_outbox_is_full_nothing_falls_due(shard: Shard, memory: MemoryStore) -> None:
    await shard.process(purchases(0, 0, 1, 2, 3, 4))
    [due] = memory.dues.values()
    shard.outbox._bound = 1
    await shard.sweep(due + 1, due + 1)
    assert len(memory.commits) == 1
    shard.outbox.drop(1)
    await shard.sweep(due + 1, due + 1)
    assert len(memory.commits) == 2


async def test_the_outbox_is_published_then_trimmed_then_dropped(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await shard.process(purchases(0, 0, 1, 2, 3, 4))
    await publish(shard)
    assert len(shard.outbox) == 0
    assert [record.topic for record in writer.records] == ["tier-changes", "customer-tiers"]
    assert dict(writer.records[0].headers)["loyalty-watermarks"] == (
        b"purchases=5;touchpoints=0;customer-commands=0"
    )
    assert memory.trimmed == [(1, {TIER_CHANGES: 1})]


async def test_what_is_committed_while_a_part_is_published_is_published_next(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await shard.process(purchases(0, 0, 1, 2, 3, 4))
    publish_at_once = writer.publish

    async def slowly(records: Iterable[OutRecord], upto: Mark) -> int | None:
        if upto.number == 1:
            await shard.process(purchases(5, 300, 1))  # the second is too late: a dead letter
        return await publish_at_once(records, upto)

    writer.publish = slowly  # type: ignore[method-assign]
    publishing = asyncio.ensure_future(shard.publish())
    for _ in range(100):
        await asyncio.sleep(0)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    assert len(shard.outbox) == 0
    assert writer.upto.number == shard.outbox.last > 1
    assert [record.topic for record in writer.records].count("dead-letters") == 1


async def test_a_batch_of_very_many_customers_is_committed_in_parts(
    memory: MemoryStore, writer: MemoryWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_COMMIT_CUSTOMERS", 100)
    shard = make_shard(program(), memory, writer, bound=1_000, cache=1_000)
    who = here(300)
    await shard.process(bought(0, *((customer, NOON, "150.00") for customer in who)))
    assert [(commit.start, commit.end) for commit in memory.commits] == [(0, 128), (128, 256), (256, 300)]
    assert [len(commit.customers) for commit in memory.commits] == [128, 128, 44]
    assert sorted(change["customer_id"] for change in changes(memory)) == sorted(who)


async def test_a_batch_that_brings_very_many_decisions_is_committed_in_parts(
    memory: MemoryStore, writer: MemoryWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.shard._COMMIT_DECISIONS", 50)
    shard = make_shard(program(), memory, writer, bound=1_000, cache=1_000)
    who = here(150)
    await shard.process(bought(0, *((customer, NOON, "150.00") for customer in who)))
    assert [(commit.start, commit.end) for commit in memory.commits] == [(0, 64), (64, 128), (128, 150)]
    assert shard.state.offsets[PURCHASES] == 150
    assert len(changes(memory)) == 150
