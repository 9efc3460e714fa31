"""What a new owner does with an outbox, by what was published and in whose reign; on the real server."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from schemas.program import Program
from schemas.tier_change import decode
from streams.intake import Intake
from streams.metrics import Metrics
from streams.protocols import INPUTS, FatalError, Mark, Published, Stop
from streams.redis_store import RedisStore
from streams.settings import Settings
from streams.shard import Domain, Shard
from streams.take_over import TakeOver
from streams.topics import TIER_CHANGES
from tests.streams.conftest import BINDING
from tests.streams.shard_world import (
    PARTITION,
    MemoryStore,
    MemoryWriter,
    here,
    make_shard,
    program,
    publish,
    purchases,
)

ONE, TWO = here(2)


class Kafka:
    """The log's ends, what was published, and up to where."""

    def __init__(self) -> None:
        self.mark = Mark()
        self.published: list[Published] = []
        self.end = 100
        self.topics = BINDING.inputs, BINDING.partitions

    async def inputs(self) -> tuple[str, int]:
        return self.topics

    async def starts(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        return {(topic, p): 0 for p in partitions for topic in INPUTS}

    async def ends(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        return {(topic, p): self.end for p in partitions for topic in INPUTS}

    async def committed(self) -> dict[tuple[str, int], int]:
        return {}

    async def writer(self, partition: int) -> MemoryWriter:
        writer = MemoryWriter()
        writer.upto = self.mark
        return writer

    async def told(self, positions: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], list[Published]]:
        return {key: self.published for key in positions if key[0] == TIER_CHANGES and self.published}


class Member:
    """A member of the group."""

    async def prove(self, positions: Mapping[tuple[str, int], int]) -> None:
        pass


@pytest.fixture(scope="module")
def rules() -> Program:
    return program()


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def take(rules: Program, kafka: Kafka, store: RedisStore) -> Callable[[], Any]:
    """Take the shard over, as another worker."""
    domain = Domain(rules, Intake(Settings(), rules, 12))

    def spawn(work: Any) -> None:
        work.close()

    async def take() -> Shard:
        taking = TakeOver(Settings(), domain, store, kafka, Metrics(), BINDING, spawn)
        [shard] = await taking.take([PARTITION], Member())  # type: ignore[arg-type]
        return shard

    return take


def told(shard: Shard) -> list[tuple[str, int]]:
    """Of whom changes wait in an outbox, with their sequence."""
    bodies = [decode(entry.value or b"") for _, entry in shard.outbox.behind(0)]
    return [(body.customer_id, body.tier_seq) for body in bodies]


async def test_numbers_tell_what_is_out_where_the_reign_is_known(
    take: Callable[[], Any], kafka: Kafka
) -> None:
    first = await take()
    await first.process(purchases(0, 1, 2, customer=ONE))
    await first.process(purchases(2, 1, 2, customer=TWO))
    assert told(first) == [(ONE, 1), (TWO, 1)]
    kafka.mark = Mark(1, first.state.reign)
    second = await take()
    assert told(second) == [(TWO, 1)]
    assert (second.state.reign, second.outbox.last) == (2, 2)


async def test_where_the_store_has_lost_a_take_over_the_output_tells(
    rules: Program, take: Callable[[], Any], kafka: Kafka
) -> None:
    """A suspended worker has its token back and commits; who owned the shard meanwhile had published the first of
    these changes, under another number."""
    zombie = await take()
    await zombie.process(purchases(0, 1, 2, customer=ONE))
    await zombie.process(purchases(2, 1, 2, customer=TWO))
    writer = MemoryWriter()
    meanwhile = make_shard(rules, MemoryStore(), writer)
    await meanwhile.process(purchases(0, 1, 2, customer=ONE))
    await publish(meanwhile)
    kafka.published = [
        Published(n, r.value, r.headers) for n, r in enumerate(writer.records) if r.topic == "tier-changes"
    ]
    kafka.mark = Mark(7, zombie.state.reign + 3)

    owner = await take()
    assert told(owner) == [(TWO, 1)]
    assert (owner.state.reign, owner.outbox.last) == (zombie.state.reign + 4, 8)
    assert not owner.healing
    # It is stored so: the next one finds the same.
    kafka.mark = Mark(7, owner.state.reign)
    assert told(await take()) == [(TWO, 1)]


async def test_other_partitions_than_the_store_was_built_for_stop_the_worker(
    take: Callable[[], Any], kafka: Kafka
) -> None:
    kafka.topics = BINDING.inputs, 13
    with pytest.raises(FatalError, match="13 partitions now, the store was built for 12") as stopped:
        await take()
    assert stopped.value.stop is Stop.STORE_BOUND


async def test_a_log_that_ends_before_what_was_read_stops_the_worker(
    take: Callable[[], Any], kafka: Kafka
) -> None:
    first = await take()
    await first.process(purchases(0, 1, 2, customer=ONE))
    kafka.end = 1
    with pytest.raises(FatalError, match="read up to 2, the log ends at 1") as stopped:
        await take()
    assert stopped.value.stop is Stop.LOG_ENDS_BEFORE
