"""Moves customers to a changed program where no worker runs: shards without reading, for as long as nobody else comes.

A worker that comes takes the shards over as from any other owner, and goes on with the moving.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

from schemas.program import Program
from streams.intake import Intake
from streams.kafka_log import KafkaLog
from streams.metrics import Metrics
from streams.preflight import binding
from streams.protocols import INPUTS, Binding, RefusedError, ShardLostError
from streams.redis_nodes import connect
from streams.redis_store import RedisStore
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


class Mover:
    """Moves customers whenever the group has no member; see `moving_without_workers`."""

    def __init__(
        self, settings: Settings, program: Program, store: RedisStore, kafka: KafkaLog, bound: Binding
    ) -> None:
        partitions = bound.partitions
        self._settings = settings
        self._bound = bound
        self._domain = Domain(program, Intake(settings, program, partitions), settings.falls_limit)
        self._store = store
        self._kafka = kafka
        self._reader = _NobodyReads(settings, partitions)
        self._shards: Shards | None = None
        self._failure: BaseException | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether it is this process that moves customers now."""
        return self._shards is not None

    def check(self) -> None:
        """Raises what it cannot go on after."""
        if self._failure is not None:
            raise self._failure

    async def run(self) -> None:
        """For ever: while no worker is there, take every shard over and move its customers."""
        try:
            while True:
                await self._once()
                await asyncio.sleep(_LOOK_AGAIN)
        except Exception as error:
            await self._fail(error)

    async def _once(self) -> None:
        metrics = Metrics()
        shards = Shards(
            self._settings, self._domain, self._store, self._kafka, metrics, self._fail, self._bound
        )
        sweeper = Sweeper(self._settings, self._domain.program, shards, self._kafka, self._store, metrics)
        try:
            await shards.take_over_once(self._reader)
        except ShardLostError as error:
            log.debug("workers move the customers: %s", error)
            await shards.close()
            return
        self._shards = shards
        work = (shards.publish(), sweeper.move(), _tick(sweeper))
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await shards.until_lost()
        finally:
            self._shards = None
            await _end(tasks)
            await shards.close()

    async def drained(self) -> None:
        """Wait until what was decided here is published, but for what waits for an operator's decision."""
        while (shards := self._shards) is not None and self._failure is None:
            if not any(len(s.outbox) and s.state.held is None for s in shards.held.values()):
                return
            await asyncio.sleep(_LOOK_AGAIN / 10)

    async def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error


@asynccontextmanager
async def moving_without_workers(settings: Settings, program: Program) -> AsyncIterator[Mover]:
    """While the block runs, move customers whenever the group has no member.

    Raises FatalError where the topics are not as they should be, UnavailableError where Kafka does not answer.
    """
    with administration(settings) as admin:
        cluster = describe(admin, settings)
    partitions = check(cluster, settings, program)
    bound = binding(settings, program, cluster, partitions)
    store = RedisStore(connect(settings.redis_url), settings.redis_prefix, bound, program.text)
    kafka = KafkaLog(settings, partitions)
    task: asyncio.Task[None] | None = None
    try:
        await kafka.start()
        mover = Mover(settings, program, store, kafka, bound)
        task = asyncio.create_task(mover.run())
        yield mover
        await mover.drained()
    finally:
        if task is not None:
            await _end([task])
        await kafka.stop()
        await store.close()


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: on Python 3.11 asyncio.wait_for, through which redis-py writes, can swallow a
    cancellation, and who waits for the task then waits for ever."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_LOOK_AGAIN)


async def _tick(sweeper: Sweeper) -> None:
    while True:
        await sweeper.sweep()
        await asyncio.sleep(_LOOK_AGAIN)
