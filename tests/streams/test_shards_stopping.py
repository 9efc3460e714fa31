"""A failure in the midst of the work stops the worker, to the end."""

import asyncio
from collections.abc import Iterable
from typing import Any, cast

from streams.intake import Intake
from streams.metrics import Metrics
from streams.outbox import NOTHING, encode
from streams.protocols import FatalError, Mark, OutRecord, ShardState
from streams.settings import Settings
from streams.shard import Domain
from streams.shards import Shards
from tests.streams.conftest import BINDING
from tests.streams.shard_world import PARTITION, PARTITIONS, MemoryStore, MemoryWriter, make_shard, program


class Failing(MemoryWriter):
    """Another tier-changes."""

    async def publish(self, records: Iterable[OutRecord], upto: Mark) -> dict[str, int]:
        raise FatalError("the topic is another")


async def test_a_publisher_that_fails_is_cancelled_with_its_shard_and_the_worker_stops_even_so() -> None:
    told: list[str] = []

    async def fail(error: BaseException) -> None:
        told.append(str(error))
        await shards.give_up()
        await asyncio.sleep(0.05)  # lingers
        told.append("crashed")

    rules, unused = program(), cast(Any, None)
    domain = Domain(rules, Intake(Settings(), rules, PARTITIONS))
    shards = Shards(Settings(), domain, unused, unused, Metrics(), fail, BINDING)
    state = ShardState(outbox_last=1)
    shard = make_shard(rules, MemoryStore(), Failing(), state=state, pending=[encode(NOTHING)])
    shards._held = {PARTITION: shard}
    publishing = asyncio.create_task(shards.publish())
    await asyncio.sleep(0.2)
    publishing.cancel()
    assert told == ["the topic is another", "crashed"]
