"""The Faust app and what it is joined from: one place where everything is made."""

import asyncio
from dataclasses import dataclass

import faust
from faust.streams import _CStreamIterator  # type: ignore[attr-defined]
from faust.transport.drivers import TRANSPORTS
from mode.supervisors import CrashingSupervisor

from schemas.program import Program
from streams.closed_connections import tell_closed_connections
from streams.foreign_records import accept_foreign_records
from streams.intake import Intake
from streams.kafka_log import KafkaLog
from streams.metrics import Metrics
from streams.permissions import Permissions
from streams.preflight import binding
from streams.protocols import FatalError, MovedOnError, Stop
from streams.redis_nodes import connect
from streams.redis_store import RedisStore
from streams.settings import Settings
from streams.shard import Domain
from streams.shards import Shards
from streams.store_clock import StoreClock
from streams.sweeper import Sweeper
from streams.topics import Cluster
from streams.transport import Consumer

TRANSPORTS.aliases["kizuna"] = "streams.transport:Transport"


@dataclass(slots=True)
class Pipeline:
    """The parts that the agents join."""

    app: faust.App
    settings: Settings
    shards: Shards
    sweeper: Sweeper
    permissions: Permissions
    store: RedisStore
    log: KafkaLog
    metrics: Metrics
    domain: Domain
    partitions: int
    #: What the worker could not go on after, if anything.
    failure: BaseException | None = None

    def topic(self, name: str) -> faust.TopicT:
        """An input of the contract, as Faust's topic; its values are `Batch`."""
        return self.app.topic(self.settings.topic(name), value_serializer="raw", key_serializer="raw")


def build(settings: Settings, program: Program, cluster: Cluster, partitions: int) -> Pipeline:
    """Join the parts; nothing is connected yet.

    Raises FatalError where Faust's compiled stream is missing: without it, messages of an old generation are
    acknowledged unread.
    """
    if _CStreamIterator is None:
        raise FatalError("faust-streaming is installed without its compiled parts: install its binary wheel")
    accept_foreign_records()
    tell_closed_connections()
    metrics = Metrics()
    metrics.partitions.set(partitions)
    metrics.last_sweep.set_to_current_time()  # until the first one: so long has nothing been heard
    intake = Intake(settings, program, partitions)
    domain = Domain(program, intake, settings.falls_limit, settings.dead_letters_limit)
    bound = binding(settings, program, cluster, partitions)
    store = RedisStore(
        connect(settings.redis_url), settings.redis_prefix, bound, program.text, settings.address()
    )
    log = KafkaLog(settings, partitions)
    app = _app(settings)

    async def fail(error: BaseException) -> None:
        if pipeline.failure is not None:
            return
        pipeline.failure = error
        metrics.stopped.labels(error.stop if isinstance(error, FatalError) else Stop.OTHER).set(1)
        await shards.give_up()
        # Who comes for the metrics meanwhile learns why. A worker that gives way has its successor waiting.
        if not isinstance(error, MovedOnError):
            await asyncio.sleep(settings.linger)
        await app.crash(error)

    shards = Shards(settings, domain, store, log, metrics, fail, bound)
    Consumer.shards, Consumer.settings = shards, settings
    clock = StoreClock(store)
    sweeper = Sweeper(settings, domain.program, shards, log, clock, metrics)
    permissions = Permissions(settings, domain, shards, store, clock, partitions)
    pipeline = app.pipeline = Pipeline(
        app, settings, shards, sweeper, permissions, store, log, metrics, domain, partitions
    )

    @app.on_partitions_revoked.connect
    async def revoked(*_: object, **__: object) -> None:
        await shards.drop()

    return pipeline


class _App(faust.App):
    """Connects before anything reads, and lets the shards finish before anything is closed."""

    pipeline: Pipeline

    def _create_directories(self) -> None:
        """Nothing: Faust would make a directory for tables, and there are none."""

    async def on_start(self) -> None:
        await self.pipeline.log.start()
        await super().on_start()

    async def on_stop(self) -> None:
        await self.pipeline.shards.close()
        await super().on_stop()

    async def on_shutdown(self) -> None:
        await super().on_shutdown()
        await self.pipeline.log.stop()
        await self.pipeline.store.close()


def _app(settings: Settings) -> _App:
    return _App(
        settings.group,
        broker="kizuna://" + ";".join(settings.broker_list()),
        autodiscover=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        agent_supervisor=CrashingSupervisor,
        # One item is a whole batch.
        stream_buffer_maxsize=16,
        # The store fences what an old generation finishes late, so nobody needs to wait for it.
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        broker_session_timeout=settings.session_timeout,
        broker_heartbeat_interval=settings.session_timeout / 5,
        broker_rebalance_timeout=60.0,
        broker_request_timeout=1200.0,
        broker_commit_interval=1.0,
        web_bind=settings.web_host,
        web_port=settings.web_port,
        web_host=settings.web_host,
        worker_redirect_stdouts=False,
        table_standby_replicas=0,
    )
