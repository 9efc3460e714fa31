"""`kizuna rebuild`: makes the state anew from the log, beside a store that is at work or in the place of a lost one.

ADR 0013 has the reasons. In order: fold the log into a store of its own, up to where the old store stands; fence the
old store; fold the rest; switch. What was published is adopted and not published again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

from schemas.dead_letter import OFFSET_HEADER, PARTITION_HEADER, TIMESTAMP_HEADER, TOPIC_HEADER
from schemas.program import Program
from streams.intake import Intake
from streams.kafka_log import KafkaLog
from streams.merged_log import MergedLog, Positions
from streams.old_store import OldStore
from streams.preflight import binding, check_keeps
from streams.protocols import INPUTS, FatalError, Mark, Published, Stop
from streams.redis_nodes import connect
from streams.redis_store import answers, binding_fields, output_field
from streams.refold import Before, OfBond, Place, Refold
from streams.settings import Settings
from streams.staging import Staging, discard
from streams.switch import Step, Switch
from streams.telling import OvertakenError, Reached, Telling, read_bond_told, read_told
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
    outputs,
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
    #: Inputs that were made anew since the store read them.
    remade: list[str] = field(default_factory=list)

    @property
    def is_all_there(self) -> bool:
        """Whether the log holds all that was ever counted, as far as anybody can tell."""
        return not self.gone and not self.remade


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
    dead: set[Place]


class Rebuild:
    """One run of the command. Make it with `open`, close it with `close`."""

    def __init__(self, settings: Settings, program: Program, cluster: Cluster, partitions: int) -> None:
        self._settings = settings
        self._program = program
        self._partitions = partitions
        self._binding = binding(settings, program, cluster, partitions)
        self._nodes = connect(settings.redis_url)
        self._switch = Switch(self._nodes, settings)
        self._old = OldStore(self._nodes, settings)
        self._kafka = KafkaLog(settings, partitions)
        self._inputs = MergedLog(settings, partitions)
        self._tiers = TopicReader(settings, CUSTOMER_TIERS, partitions)
        self._changes = TopicReader(settings, TIER_CHANGES, partitions)
        self._bonds = {
            name: TopicReader(settings, name, partitions) for name in outputs(program) if name != TIER_CHANGES
        }
        self._letters = TopicReader(settings, DEAD_LETTERS, cluster.partitions[DEAD_LETTERS])
        self._topics = (self._tiers, self._changes, self._letters, *self._bonds.values())
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
        self._open.push_async_callback(self._nodes.aclose)
        with answers(self._nodes):
            memory = await self._nodes.memory()
        check_keeps(self._settings, memory)
        self.step = await self._switch.step()
        if not self._is_whole:
            await self._old.look(await self._switch.shards(), self._binding)
        for one in memory if self._old.states else ():
            if 0 < one["maxmemory"] < 2 * one["used_memory"]:
                raise FatalError(
                    f"Redis uses {one['used_memory']:,} of {one['maxmemory']:,} bytes, and a second store is made "
                    "beside the first: workers at work would find no room; raise maxmemory for the time"
                )
        parts: list[KafkaLog | MergedLog | TopicReader] = [self._kafka, self._inputs, *self._topics]
        for part in parts:
            self._open.push_async_callback(part.stop)
            await part.start()

    async def close(self) -> None:
        """Close the connections."""
        await self._open.aclose()

    @property
    def _is_whole(self) -> bool:
        """Whether another run has made its store whole, and died in the midst of the switch."""
        return self.step in (Step.CLEARING, Step.RENAMING)

    async def survey(self) -> Survey:
        """What is there, and what would be done; nothing is written."""
        starts, ends = await self._inputs.starts(), await self._inputs.ends()
        self._positions = sum(ends.values())
        bound = self._old.bound
        return Survey(
            self._partitions,
            sum(ends[key] - starts[key] for key in ends),
            await self._members(),
            None if bound is None else bound.partitions,
            self._old.customers,
            self.step,
            {key: at for key, at in starts.items() if at > 0},
            self._old.remade,
        )

    async def _members(self) -> int:
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
        if not self._is_whole:
            if not accept_missing and not (await self.survey()).is_all_there:
                raise FatalError("the log does not hold all that was counted", Stop.RECORDS_GONE)
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
        # A protection is told of by nobody but the old store: it is read while that stands still.
        fenced = not self._old.states or self._old.may_protect
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
            if await self._switch.step() in (None, Step.FENCED):
                await discard(self._nodes, self._settings)
                await self._switch.lift()
        except Exception as error:
            log.warning("what this rebuild has left is cleared by the next one: %s", error)

    async def _attempt(self, fenced: bool, accept_missing: bool, progress: Progress) -> Result:
        await discard(self._nodes, self._settings)
        work = await self._begin()
        if not fenced:
            # Twice, for what came meanwhile: the less is left to do under the fence.
            for _ in range(2):
                cut = await self._old.read_up_to(await self._inputs.ends())
                await self._old.published(_PUBLISHED_WITHIN, self._members)
                await self._news(work)
                await self._fold(work, cut, progress)
            await self._switch.fence(self._partitions)
        marks = await self._settle()
        # Its workers, or a command, may have changed it meanwhile so that it must be left alone after all.
        await self._old.look(await self._switch.shards(), self._binding)
        # From here on nothing of ours is appended anywhere.
        ends = await self._inputs.ends()
        await self._old.read_up_to(ends)
        await self._news(work)
        if self._old.may_protect:
            await self._protect(work)
        await self._fold(work, ends, progress)
        await self._check_told(work, accept_missing)
        left = {read.event.customer_id for read in work.refold.leftovers()}
        await work.staging.note(work.refold.settle(await work.staging.load(left)))
        return await self._finish(work, ends, marks)

    async def _begin(self) -> _Work:
        telling, dead = Telling(), set[Place]()
        intake = Intake(self._settings, self._program, self._partitions)
        before = None
        if self._old.bound is not None:
            before = Before(self._old.bound.partitions, self._old.rebuilt, self._old.watermarks)
        await self._inputs.rewind()
        for reader in self._topics:
            await reader.rewind()
        whole = self._letters.is_whole
        refold = Refold(self._program, intake, self._partitions, telling, dead, whole, before)
        return _Work(telling, refold, Staging(self._nodes, self._settings, refold), dead)

    async def _news(self, work: _Work) -> None:
        """Read what was published since. Raises OvertakenError."""
        async for record in self._tiers.news():
            if record.value is None:
                continue
            try:
                told = read_told(record.partition, Published(record.offset, record.value, record.headers))
            except ValueError as error:
                log.warning("a record of the output is none of ours: %s", error)
                continue
            # Of a topic that was made anew nothing was known.
            told.watermarks |= dict.fromkeys(self._old.remade, 0)
            if work.telling.tell(told, work.refold.cursor):
                await work.staging.withdraw(told.event.customer_id)
        for reader in self._bonds.values():
            await self._bond_news(work, reader)
        async for record in self._letters.news():
            place = self._place(dict(record.headers))
            if place is not None and place not in work.dead:
                work.dead.add(place)
                await work.staging.withdraw(place)

    async def _bond_news(self, work: _Work, reader: TopicReader) -> None:
        async for record in reader.news():
            try:
                customer_id, told = read_bond_told(
                    record.partition, Published(record.offset, record.value, record.headers)
                )
            except ValueError as error:
                log.warning("a record of the output is none of ours: %s", error)
                continue
            told.watermarks.update(dict.fromkeys(self._old.remade, 0))
            work.telling.tell_bond(customer_id, told, work.refold.cursor)
            await work.staging.withdraw(OfBond(customer_id))

    def _place(self, headers: Mapping[str, bytes | None]) -> Place | None:
        """Where the record of a dead letter stood; None where that is not told."""
        try:
            topic = (headers[TOPIC_HEADER] or b"").decode().removeprefix(self._settings.topic_prefix)
            numbers = (PARTITION_HEADER, OFFSET_HEADER, TIMESTAMP_HEADER)
            partition, offset, timestamp = (int(headers[name] or b"") for name in numbers)
        except (KeyError, ValueError):
            return None
        return topic, partition, offset, timestamp

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

    async def _protect(self, work: _Work) -> None:
        """Customers whom a protection holds are taken over from the old store: it says more than their record."""
        async for partition, rules, customer in self._old.protected(self._program):
            offsets = {topic: self._old.watermarks[topic, partition] for topic in INPUTS}
            beneath = rules.beneath(customer)
            work.telling.amend(customer, beneath, partition, offsets, self._old.rebuilt)

    async def _fold(self, work: _Work, upto: Positions, progress: Progress) -> None:
        refold, staging = work.refold, work.staging
        async for chunk in self._inputs.chunks(upto):
            ready = refold.ready()
            events = refold.read(chunk.records)
            customers = await staging.load({*ready.customers, *(read.event.customer_id for read in events)})
            await staging.note(refold.fold(ready, events, customers, chunk.cursor, chunk.merged_to))
            progress("reading", sum(chunk.cursor.values()), self._positions)
        # What was reached with the last chunk.
        ready = refold.ready()
        customers = await staging.load(ready.customers)
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
            await self._keep_told(work, Reached([customer_id], []))
        for customer_id, bond in work.telling.pending_bonds():
            if not accept_missing:
                raise FatalError(
                    f"something was told of the bond of customer {customer_id!r} when partition {bond.partition} had "
                    f"been read up to {bond.watermarks}, and the log ends before: it lost records, or its topics were "
                    "made anew; with --accept-missing what was told is kept as it is",
                    Stop.PUBLISHED_UNREAD,
                )
            await self._keep_told(work, Reached([], [customer_id]))

    @staticmethod
    async def _keep_told(work: _Work, ready: Reached) -> None:
        refold = work.refold
        customers = await work.staging.load(ready.customers)
        await work.staging.note(refold.fold(ready, (), customers, refold.cursor, refold.merged_to))

    async def _finish(self, work: _Work, ends: Positions, marks: list[Mark]) -> Result:
        """Write the shards' own hashes: then the new store is whole."""
        refold, staging = work.refold, work.staging
        known = {TIER_CHANGES: await self._changes.ends()}
        known |= {name: await reader.ends() for name, reader in self._bonds.items()}
        result = Result(
            resumed=False,
            customers=sum(staging.customers),
            counted=refold.counted,
            duplicates=refold.duplicates,
            adopted=refold.adopted,
            unpublished=sum(staging.entries),
        )
        shards: list[dict[str, str | int]] = []
        for partition, mark in enumerate(marks):
            fields: dict[str, str | int] = {
                **dict(binding_fields(self._binding)),
                "version": 0,
                "owner": "",
                # In a reign that is known, so that the numbers of the outbox count.
                "reign": 1 + max(mark.reign, self._old.reign(partition)),
                "outbox_last": mark.number + staging.entries[partition],
                **{output_field(topic): ends[partition] for topic, ends in known.items()},
                "customers": staging.customers[partition],
                "rebuilt": refold.rebuilt,
                "program:text": self._program.text,
                **{f"offset:{topic}": ends[topic, partition] for topic in INPUTS},
                **{f"newest:{topic}": at for topic, at in refold.newest[partition].items()},
                **{f"appended:{topic}": at for topic, at in refold.appended[partition].items()},
            }
            limit = self._settings.falls_limit
            if limit and staging.falls[partition] > limit * staging.customers[partition]:
                fields["held"] = mark.number
                result.paused.append(partition)
            shards.append(fields)
        await staging.finish(shards)
        return result
