"""Moves customers to a changed program where no worker runs: shards without reading, for as long as nobody else comes.

A worker that comes takes the shards over as from any other owner, and goes on with the moving.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from schemas.program import Program
from streams.intake import Intake
from streams.kafka_log import KafkaLog
from streams.metrics import Metrics
from streams.placement import Placement
from streams.preflight import binding
from streams.protocols import INPUTS, RefusedError, ShardLostError
from streams.redis_store import RedisStore, connect
from streams.settings import Settings
from streams.shard import Domain
from streams.shards import Shards
from streams.sweeper import Sweeper
from streams.topics import administration, check, describe, members

log = logging.getLogger(__name__)

#: Seconds between two looks whether workers have gone.
_LOOK_AGAIN = 1.0


class _NobodyReads:
    """A `streams.shards.Reader` that holds every partition for as long as the group has no member."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._settings = settings
        self._partitions = partitions

    def assigned(self) -> set[tuple[str, int]]:
        return {(topic, partition) for topic in INPUTS for partition in range(self._partitions)}

    async def prove(self, positions: Mapping[tuple[str, int], int]) -> None:
        if await asyncio.to_thread(self._members):
            raise RefusedError("a worker is there")

    async def move(self, positions: Mapping[tuple[str, int], int], epoch: int) -> None:
        """Nothing: nothing is read."""

    def _members(self) -> int:
        with administration(self._settings) as admin:
            return members(admin, self._settings.group)


@asynccontextmanager
async def moving_without_workers(settings: Settings, program: Program) -> AsyncIterator[None]:
    """While the block runs, move customers whenever the group has no member.

    Raises FatalError where the topics are not as they should be.
    """
    with administration(settings) as admin:
        cluster = describe(admin, settings)
    partitions = check(cluster, settings, program)
    store = RedisStore(
        connect(settings.redis_url),
        settings.redis_prefix,
        binding(settings, program, cluster, partitions),
        program.text,
    )
    kafka = KafkaLog(settings, partitions)
    await kafka.start()
    task = asyncio.create_task(_move(settings, program, store, kafka, partitions))
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await kafka.stop()
        await store.close()


async def _move(
    settings: Settings, program: Program, store: RedisStore, kafka: KafkaLog, partitions: int
) -> None:
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def fail(error: BaseException) -> None:
        if not failure.done():
            failure.set_exception(error)

    domain = Domain(program, Intake(settings, program, Placement(partitions)), settings.falls_limit)
    reader = _NobodyReads(settings, partitions)
    while True:
        metrics = Metrics()
        shards = Shards(settings, domain, store, kafka, metrics, fail)
        sweeper = Sweeper(settings, program, shards, kafka, store, metrics)
        try:
            await shards.take_over_once(reader)
        except ShardLostError as error:
            log.debug("workers move the customers: %s", error)
            await asyncio.sleep(_LOOK_AGAIN)
            continue
        tasks = [
            asyncio.create_task(shards.publish()),
            asyncio.create_task(sweeper.move()),
            asyncio.create_task(_tick(sweeper)),
            asyncio.create_task(shards.until_lost()),
        ]
        try:
            await asyncio.wait([*tasks[3:], failure], return_when=asyncio.FIRST_COMPLETED)
            if failure.done():
                failure.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await shards.close()


async def _tick(sweeper: Sweeper) -> None:
    while True:
        await sweeper.sweep()
        await asyncio.sleep(_LOOK_AGAIN)
