"""`kizuna rebuild`: makes the state anew from the log, beside a store that is at work or in the place of a lost one.

ADR 0013 has the reasons. In order: fold the log into a store of its own, up to where the old store stands; fence the
old store; fold the rest; switch. What was published is adopted and not published again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Self, cast

from redis.asyncio import Redis

from schemas.dead_letter import DLQ_HEADERS, OFFSET_HEADER, PARTITION_HEADER, TIMESTAMP_HEADER, TOPIC_HEADER
from schemas.program import Program
from streams.intake import Intake
from streams.kafka_log import KafkaLog
from streams.keys import ShardKeys
from streams.merged_log import MergedLog, Positions
from streams.placement import Placement
from streams.preflight import binding
from streams.protocols import INPUTS, Binding, FatalError, Mark, Published, ShardState, Stop
from streams.redis_store import (
    answers,
    binding_fields,
    bound_elsewhere,
    connect,
    read_binding,
    shard_state,
)
from streams.refold import Before, Refold
from streams.settings import Settings
from streams.staging import Staging, discard
from streams.switch import Step, Switch
from streams.telling import OvertakenError, Telling, read_told
from streams.topic_reader import TopicReader
from streams.topics import (
    CUSTOMER_TIERS,
    DEAD_LETTERS,
    TIER_CHANGES,
    Cluster,
    administration,
    check,
    describe,
    members,
)

log = logging.getLogger(__name__)

#: Seconds for which live workers are given time to publish what they had decided when the reading began.
_PUBLISHED_WITHIN = 15.0

#: Told of what is being done, how much of it is done and of how much (None where nobody knows).
Progress = Callable[[str, int, int | None], None]


@dataclass(slots=True)
class Survey:
    """What a rebuild would do."""

    partitions: int
    #: Positions of the inputs that would be read.
    positions: int
    #: Members that the group has now.
    members: int
    #: The store that is there: for how many partitions, with how many customers; None where there is none.
    partitions_before: int | None = None
    customers_before: int = 0
    #: A switch that was begun and not ended.
    step: Step | None = None
    #: Where the log does not reach back to its beginning: the first position, by input and partition.
    gone: dict[tuple[str, int], int] = field(default_factory=dict)


@dataclass(slots=True)
class Result:
    """What a rebuild did. Where it only ended a switch that another one had begun, nothing is known but that."""

    resumed: bool
    customers: int = 0
    counted: int = 0
    duplicates: int = 0
    adopted: int = 0
    #: Outbox entries that workers are to publish now.
    unpublished: int = 0
    #: Shards whose publishing is paused, as too many of their customers fall.
    paused: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """One attempt at making the store."""

    telling: Telling
    refold: Refold
    staging: Staging
    dead: set[Any]


class Rebuild:
    """One run of the command. Make it with `open`, close it with `close`."""

    def __init__(self, settings: Settings, program: Program, cluster: Cluster, partitions: int) -> None:
        self._settings = settings
        self._program = program
        self._partitions = partitions
        self._binding = binding(settings, program, cluster, partitions)
        self._redis: Redis = connect(settings.redis_url)
        self._switch = Switch(self._redis, settings)
        self._kafka = KafkaLog(settings, partitions)
        self._inputs = MergedLog(settings, partitions)
        self._tiers = TopicReader(settings, CUSTOMER_TIERS, partitions)
        self._changes = TopicReader(settings, TIER_CHANGES, partitions)
        self._letters = TopicReader(settings, DEAD_LETTERS, cluster.partitions[DEAD_LETTERS])
        #: The store that is there, by shard.
        self._before: dict[int, ShardState] = {}
        self._bound: Binding | None = None
        #: Up to where it has read, when it was asked last.
        self._watermarks: Positions = {}
        self._positions = 0
        self.step: Step | None = None
        self._open = AsyncExitStack()

    @classmethod
    async def open(cls, settings: Settings, program: Program) -> Self:
        """Connect, and look at what is there.

        Raises FatalError where the topics are not as they should be, Redis evicts, or the store that is there is not
        this one's; UnavailableError where Kafka or Redis does not answer.
        """
        with administration(settings) as admin:
            cluster = describe(admin, settings)
        rebuild = cls(settings, program, cluster, check(cluster, settings, program))
        try:
            await rebuild._connect()
        except BaseException:
            await rebuild.close()
            raise
        return rebuild

    async def _connect(self) -> None:
        self._open.push_async_callback(self._redis.aclose)
        await self._check_redis()
        self.step = await self._switch.step()
        if self.step not in (Step.CLEARING, Step.RENAMING):
            await self._look()
        for part in (self._kafka, self._inputs, self._tiers, self._changes, self._letters):
            self._open.push_async_callback(part.stop)
            await part.start()

    async def close(self) -> None:
        """Close the connections."""
        await self._open.aclose()

    async def _check_redis(self) -> None:
        with answers():
            memory = await self._redis.info("memory")
        if memory.get("maxmemory_policy") != "noeviction":
            raise FatalError(
                f"Redis at {self._settings.redis_shown()} evicts: set maxmemory-policy noeviction",
                Stop.REDIS_EVICTS,
            )

    async def _look(self) -> None:
        """Read the store that is there. Raises FatalError where it is not this one's, or must be left alone."""
        for partition in sorted(await self._switch.shards()):
            held = await self._held(partition)
            if not held:
                continue
            state, bound = shard_state(held), read_binding(held)
            self._before[partition], self._bound = state, bound
            for name, value in binding_fields(self._binding):
                # Another number of partitions, and topics that were made anew, are what a rebuild is for.
                if name not in ("bound:partitions", "bound:inputs") and name.encode() in held:
                    found = held[name.encode()].decode()
                    if found != value:
                        raise bound_elsewhere(name, found, value)
            if state.is_moving:
                raise FatalError(
                    "a change of the program is under way: end it first, by `kizuna program apply`"
                )
            if state.held is not None:
                raise FatalError(
                    f"publishing of shard {partition} is paused: decide first, by `kizuna outbox release` or `drop`"
                )

    async def _held(self, partition: int) -> dict[bytes, bytes]:
        with answers():
            key = ShardKeys(self._settings.redis_prefix, partition).shard
            return cast("dict[bytes, bytes]", await cast(Any, self._redis.hgetall(key)))

    async def survey(self) -> Survey:
        """What is there, and what would be done; nothing is written."""
        starts, ends = await self._inputs.starts(), await self._inputs.ends()
        self._positions = sum(ends[key] - starts[key] for key in ends)
        return Survey(
            self._partitions,
            self._positions,
            await self._count_members(),
            None if self._bound is None else self._bound.partitions,
            sum(state.customers for state in self._before.values()),
            self.step,
            {key: at for key, at in starts.items() if at > 0},
        )

    async def _count_members(self) -> int:
        def ask() -> int:
            with administration(self._settings) as admin:
                return members(admin, self._settings.group)

        return await asyncio.to_thread(ask)

    # -- the way of a rebuild --------------------------------------------------------------------------------------

    async def run(self, accept_missing: bool, progress: Progress) -> Result:
        """Do it, or end a switch that another run has begun.

        Raises FatalError where records are gone, or where what was published does not fit the log or the program.
        """
        result = Result(resumed=True)
        if self.step not in (Step.CLEARING, Step.RENAMING):
            if (await self.survey()).gone and not accept_missing:
                raise FatalError("the log does not reach back to its beginning", Stop.RECORDS_GONE)
            if self.step is Step.FENCED:
                # It died while its own store was not whole: the old one is as it was.
                await self._switch.lift()
            result = await self._make(accept_missing, progress)
        if self.step is not Step.RENAMING:
            await self._switch.clear(lambda done: progress("clearing", done, None))
        await self._switch.rename(lambda done: progress("switching", done, None))
        await self._switch.activate()
        return result

    async def _make(self, accept_missing: bool, progress: Progress) -> Result:
        """Make the new store whole, with the old one fenced at the end."""
        fenced = not self._before
        if fenced:
            await self._switch.fence(self._partitions)
        try:
            while True:
                try:
                    return await self._attempt(fenced, accept_missing, progress)
                except OvertakenError as overtaken:
                    # Somebody published late what had been decided earlier. Nobody does while all are fenced.
                    log.info("%s: staging begins anew, with the workers fenced", overtaken)
                    await self._switch.fence(self._partitions)
                    fenced = True
        except BaseException:
            await self._give_up()
            raise

    async def _give_up(self) -> None:
        """What was there is as it was: workers may go on."""
        try:
            await discard(self._redis, self._settings)
            await self._switch.lift()
        except Exception as error:
            log.warning("what this rebuild has left is cleared by the next one: %s", error)

    async def _attempt(self, fenced: bool, accept_missing: bool, progress: Progress) -> Result:
        await discard(self._redis, self._settings)
        work = await self._begin()
        if not fenced:
            # Twice, for what came meanwhile: the less is left to do under the fence.
            for _ in range(2):
                cut = await self._cut()
                await self._published()
                await self._news(work)
                await self._fold(work, cut, progress)
            await self._switch.fence(self._partitions)
        marks = await self._settle()
        await self._cut()
        await self._news(work)
        ends = await self._inputs.ends()
        await self._fold(work, ends, progress)
        await self._check_told(work, accept_missing)
        left = work.refold.leftovers()
        await work.staging.note(
            work.refold.settle(await work.staging.load({read.event.customer_id for read in left}))
        )
        return await self._finish(work, ends, marks)

    async def _begin(self) -> _Work:
        telling, dead = Telling(), set[Any]()
        intake = Intake(self._settings, self._program, Placement(self._partitions))
        before = None
        if self._bound is not None:
            rebuilt = max(state.rebuilt for state in self._before.values())
            before = Before(self._bound.partitions, rebuilt, self._watermarks)
        for reader in (self._tiers, self._letters):
            await reader.rewind()
        await self._inputs.rewind()
        whole = self._letters.is_whole
        refold = Refold(self._program, intake, self._partitions, telling, dead, whole, before)
        return _Work(telling, refold, Staging(self._redis, self._settings, refold), dead)

    async def _news(self, work: _Work) -> None:
        """Read what was published since. Raises OvertakenError."""
        async for record in self._tiers.news():
            if record.value is None:
                continue
            try:
                told = read_told(record.partition, Published(record.value, record.headers))
            except ValueError as error:
                log.warning("a record of the output is none of ours: %s", error)
                continue
            if work.telling.tell(told, work.refold.cursor):
                await work.staging.withdraw(told.event.customer_id)
        cut = len(self._settings.topic_prefix)
        async for record in self._letters.news():
            held = {name: value for name, value in record.headers if name in DLQ_HEADERS}
            try:
                topic = (held[TOPIC_HEADER] or b"").decode()[cut:]
                numbers = [
                    int(held[name] or b"") for name in (PARTITION_HEADER, OFFSET_HEADER, TIMESTAMP_HEADER)
                ]
            except (KeyError, ValueError):
                continue
            place = (topic, *numbers)
            if place not in work.dead:
                work.dead.add(place)
                await work.staging.withdraw(cast(Any, place))

    async def _cut(self) -> Positions:
        """Where the old store stands now, as far as the log goes; the start where it has no shard."""
        ends = await self._inputs.ends()
        cut = dict.fromkeys(ends, 0)
        for partition in self._before:
            state = shard_state(await self._held(partition))
            cut |= {
                (topic, partition): min(at, ends.get((topic, partition), 0))
                for topic, at in state.offsets.items()
            }
        self._watermarks.update(cut)
        return cut

    async def _published(self) -> None:
        """Give live workers a little time to publish what they have decided by now: then it is known."""
        wanted: dict[int, int] = {p: shard_state(await self._held(p)).outbox_last for p in self._before}
        give_up_at = time.monotonic() + _PUBLISHED_WITHIN
        while wanted and time.monotonic() < give_up_at and await self._count_members():
            for partition, last in list(wanted.items()):
                key = ShardKeys(self._settings.redis_prefix, partition).outbox
                with answers():
                    waiting = await cast(Any, self._redis.llen(key))
                if shard_state(await self._held(partition)).outbox_last - waiting >= last:
                    del wanted[partition]
            if wanted:
                await asyncio.sleep(0.2)

    async def _settle(self) -> list[Mark]:
        """Fence every writer there may be; up to where each shard's outbox is published."""
        marks: list[Mark] = []
        for partition in range(self._partitions):
            writer = await self._kafka.writer(partition)
            try:
                marks.append(await writer.published())
            finally:
                await writer.close()
        return marks

    def _reign(self, partition: int) -> int:
        return self._before[partition].reign if partition in self._before else 0

    async def _fold(self, work: _Work, upto: Mapping[tuple[str, int], int], progress: Progress) -> None:
        refold, staging = work.refold, work.staging
        async for chunk in self._inputs.chunks(upto):
            ready = refold.ready()
            events = refold.read(chunk.records)
            customers = await staging.load({*ready, *(read.event.customer_id for read in events)})
            folded = refold.fold(ready, events, customers, chunk.cursor, chunk.merged_to)
            await staging.note(folded)
            progress("reading", sum(chunk.cursor.values()), self._positions)
        # What was reached with the last chunk.
        ready = refold.ready()
        customers = await staging.load(ready)
        await staging.note(refold.fold(ready, (), customers, refold.cursor, refold.merged_to))

    async def _check_told(self, work: _Work, accept_missing: bool) -> None:
        """Raises FatalError where a change was decided from more than the log holds, unless that is accepted."""
        for customer_id, told in work.telling.pending():
            if not accept_missing:
                raise FatalError(
                    f"customer {customer_id!r} was told tier {told.event.tier!r} when partition {told.partition} had "
                    f"been read up to {told.watermarks}, and the log ends before: it lost records, or its topics were "
                    "made anew; with --accept-missing what was told is kept as it is",
                    Stop.PUBLISHED_UNREAD,
                )
            customers = await work.staging.load([customer_id])
            refold = work.refold
            await work.staging.note(
                refold.fold([customer_id], (), customers, refold.cursor, refold.merged_to)
            )

    async def _finish(self, work: _Work, ends: Positions, marks: list[Mark]) -> Result:
        refold, staging = work.refold, work.staging
        outputs = await self._changes.ends()
        result = Result(
            False,
            sum(staging.customers),
            refold.counted,
            refold.duplicates,
            refold.adopted,
            sum(staging.entries),
        )
        shards: list[dict[str, str | int]] = []
        for partition in range(self._partitions):
            fields: dict[str, str | int] = {
                **dict(binding_fields(self._binding)),
                "version": 0,
                "owner": "",
                # In a reign that is known, so that the numbers of the outbox count.
                "reign": 1 + max(marks[partition].reign, self._reign(partition)),
                "outbox_last": marks[partition].number + staging.entries[partition],
                "output": outputs[partition],
                "customers": staging.customers[partition],
                "rebuilt": refold.rebuilt,
                "program:text": self._program.text,
            }
            for topic in INPUTS:
                fields[f"offset:{topic}"] = ends[topic, partition]
            fields |= {f"newest:{t}": at for t, at in refold.newest[partition].items()}
            fields |= {f"appended:{t}": at for t, at in refold.appended[partition].items()}
            limit = self._settings.falls_limit
            if limit and staging.falls[partition] > limit * staging.customers[partition]:
                fields["held"] = marks[partition].number
                result.paused.append(partition)
            shards.append(fields)
        await staging.finish(shards)
        return result
