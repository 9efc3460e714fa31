"""Faust's transport, with a whole list of records of one partition as one message.

Faust spends some 100 µs between its fetcher and an agent; per batch instead of per record that is nothing. What is
overridden here is semi-private, so faust-streaming and aiokafka are pinned to the exact version. ADR 0003.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, cast

import aiokafka
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.protocols import INPUTS, Batch, FatalError, RefusedError
from streams.settings import Settings
from streams.shards import Shards

#: How long a broker may hold back an empty answer. While it does, a partition that has just been drained is not asked
#: for (one request per broker), so this bounds the delay of a lively partition beside idle ones.
_FETCH_WAIT_MS = 50
#: The same while nothing comes at all: what does come is answered at once, and twenty empty answers a second, of all
#: partitions, were a third of what an idle worker costs. Well within _SILENCE.
_IDLE_WAIT_MS = 200
#: How long nothing may be heard of a partition, seconds: in that time, unseen, its topic may be deleted, made anew and
#: filled beyond the position that is read next. In less, a fetch comes between and fails.
_SILENCE = 1.0
#: How long to wait for something new before looking again whether anything was heard, seconds.
_LOOK = 0.25
#: Bytes of one partition in one answer, at least and at most: a batch. In a large one a customer comes often, and is
#: packed and written once; and a shard's customers stay in the processor's cache for longer.
_BATCH_BYTES = 1024 * 1024, 8 * 1024 * 1024
#: Bytes of one answer.
_ANSWER_BYTES = 48 * 1024 * 1024


class ReaderThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, reading batches."""

    #: See `Settings.read_ahead_bytes`.
    read_ahead = 0
    #: The take-over whose positions are being read.
    epoch = 0
    #: Whether the topics' ids must be asked for before anything is used: a partition was silent for long.
    doubts = True
    #: When they were asked for, epoch milliseconds.
    asked = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: When a partition was heard of last, epoch milliseconds.
        self._heard: dict[TopicPartition, int] = {}

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        conf = self.app.conf
        # The first part of Faust's own method that others rely on; no tables, so its own assignor is not needed:
        # range puts partition p of topics with the same number of partitions on the same member.
        self._assignor = RangePartitionAssignor
        return aiokafka.AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[RangePartitionAssignor],
            enable_auto_commit=False,
            # There is always a watermark to seek to. A position outside the log is a fault, not a reason to skip.
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            fetch_max_bytes=min(_ANSWER_BYTES, self.read_ahead),
            max_partition_fetch_bytes=batch_bytes(self.read_ahead, 1),
            max_poll_interval_ms=int((conf.broker_max_poll_interval or 0) * 1000),
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
        )

    def _stopped_set(self) -> None:
        """As Faust's; where the thread has crashed its loop is closed, and nobody waits there any more."""
        with suppress(RuntimeError):
            super()._stopped_set()

    async def fetch(
        self, wanted: set[TP], timeout: float
    ) -> tuple[int, dict[TP, tuple[int, int, list[Any]]]]:
        """What has arrived, by partition: start, end and records; and the epoch it belongs to.

        Waits up to `timeout` seconds where nothing has. Positions also move without records: over transaction
        markers, aborted records and compaction holes.
        """
        return await self.call_thread(self._fetch, wanted, timeout)  # type: ignore[no-any-return]

    async def _fetch(
        self, wanted: set[TP], timeout: float
    ) -> tuple[int, dict[TP, tuple[int, int, list[Any]]]]:
        consumer = self._ensure_consumer()
        fetcher = consumer._fetcher
        if not self.consumer.flow_active or consumer._closed or fetcher._closed:
            return self.epoch, {}
        for waits in (True, False):
            # No await between the positions and the records: a seek in between would tear them apart.
            assignment = fetcher._subscriptions.subscription.assignment
            if assignment is None or fetcher._subscriptions.reassignment_in_progress:
                await asyncio.sleep(0.01)
                return self.epoch, {}
            self._listen(assignment)
            states = {tp: assignment.state_value(tp) for tp in wanted}
            before = {tp: s.position for tp, s in states.items() if s is not None and s.has_valid_position}
            with fetcher._subscriptions.fetch_context():
                records = await fetcher.fetched_records(set(before), timeout=0)
            moved = {
                tp: (start, states[tp].position, records.get(tp, []))
                for tp, start in before.items()
                if states[tp].position > start
            }
            if moved:
                # The next request is only made after this turn of the loop.
                fetcher._fetch_max_wait_ms = _FETCH_WAIT_MS
            if moved or not waits:
                break
            waiter = fetcher._create_fetch_waiter()
            done, _ = await asyncio.wait([waiter], timeout=min(timeout, _LOOK))
            if not done:
                waiter.cancel()
                if timeout >= _LOOK:  # else others wait for room
                    fetcher._fetch_max_wait_ms = _IDLE_WAIT_MS
                break
        return self.epoch, moved

    def _listen(self, assignment: Any) -> None:
        for tp in assignment.tps:
            heard = assignment.state_value(tp).timestamp
            if heard is not None:
                self.doubts |= heard - max(self._heard.get(tp, heard), self.asked) > _SILENCE * 1000
                self._heard[tp] = heard

    async def prove(self, offsets: Mapping[TP, int]) -> None:
        """Commit offsets in the present generation; raises aiokafka's error where that is over."""
        await self.call_thread(
            self._ensure_consumer().commit,
            {TopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()},
        )

    async def seek_all(self, offsets: Mapping[TP, int], epoch: int) -> None:
        """Move every position, and from then on call what is read by this epoch."""
        await self.call_thread(self._seek_all, offsets, epoch)

    async def _seek_all(self, offsets: Mapping[TP, int], epoch: int) -> None:
        consumer = self._ensure_consumer()
        for tp, offset in offsets.items():
            consumer.seek(TopicPartition(*tp), offset)
        shards = len(offsets) // len(INPUTS)
        consumer._fetcher._max_partition_fetch_bytes = batch_bytes(self.read_ahead, shards)
        self.epoch = epoch
        # The take-over asked for the ids some time before this.
        self.doubts = True


class Consumer(driver.Consumer):
    """Yields batches, admits only what has room, and reads from the store's watermarks."""

    _thread: ReaderThread
    shards: Shards
    settings: Settings

    def _new_consumer_thread(self) -> ReaderThread:
        thread = ReaderThread(self, loop=self.loop, beacon=self.beacon)
        thread.read_ahead = self.settings.read_ahead_bytes
        return thread

    def _input(self, tp: TP) -> tuple[str, int]:
        return tp.topic.removeprefix(self.settings.topic_prefix), tp.partition

    def _tp(self, topic: str, partition: int) -> TP:
        return TP(self.settings.topic(topic), partition)

    # -- reading ---------------------------------------------------------------------------------------------------

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Faust's fetcher asks here: one message for each partition that has something, its value a Batch."""
        if not self.flow_active:
            await self.wait(cast(Any, self.can_resume_flow))
        self.not_waiting_next_records.set()
        active = self._get_active_partitions()
        wanted = {tp for tp in active if self.shards.wants(*self._input(tp))}
        if not wanted:
            await asyncio.sleep(0.005)
            return
        # Where a partition waits for room, do not wait for the others long.
        try:
            epoch, arrived = await self._thread.fetch(wanted, timeout if len(wanted) == len(active) else 0.01)
        except OffsetOutOfRangeError as error:
            # The log was cut, or is another, while this worker reads it.
            for tp in error.args[0]:
                self.shards.lose_position(*self._input(TP(*tp)))
            await asyncio.sleep(0.05)
            return
        if arrived and self._thread.doubts:
            self._thread.doubts, self._thread.asked = False, int(time.time() * 1000)
            if not await self.shards.are_same(map(self._input, arrived)):
                return
        for tp, (start, end, records) in arrived.items():
            topic, partition = self._input(tp)
            batch = Batch(topic, partition, start, end, records, epoch)
            if epoch != self.shards.epoch:
                return
            self.shards.reading(batch)
            yield tp, self._to_batch_message(tp, batch)

    def _to_batch_message(self, tp: TP, batch: Batch) -> ConsumerMessage:
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            batch.start,
            0.0,
            0,
            [],
            None,
            cast(Any, batch),
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: the next message begins many records after the last one, that is no gap."""

    def _new_offset(self, tp: TP) -> int | None:
        """What to tell the group: the store's watermark. It shows lag and is never read back."""
        acked = self._acked[tp]
        if not acked:
            return None
        acked.clear()
        self._acked_index[tp].clear()
        return self.shards.watermark(*self._input(tp))

    # -- taking over -----------------------------------------------------------------------------------------------

    async def perform_seek(self) -> None:
        """Faust has an assignment and is about to read: take the shards over."""
        try:
            await self.shards.take_over(self)
        except FatalError as error:
            await self.shards.fail(error)

    def assigned(self) -> set[tuple[str, int]]:
        """See `streams.shards.Reader`."""
        return {self._input(tp) for tp in self.assignment()}

    async def prove(self, positions: Mapping[tuple[str, int], int]) -> None:
        """See `streams.shards.Reader`."""
        try:
            await self._thread.prove({self._tp(*key): at for key, at in positions.items()})
        except KafkaError as error:
            raise RefusedError(f"the group does not take this worker's offsets: {error}") from error

    async def move(self, positions: Mapping[tuple[str, int], int], epoch: int) -> None:
        """See `streams.shards.Reader`."""
        offsets = {self._tp(*key): at for key, at in positions.items()}
        self._acked.clear()
        self._acked_index.clear()
        self._read_offset.update(dict.fromkeys(offsets))
        self._committed_offset.update(offsets)
        try:
            await self._thread.seek_all(offsets, epoch)
        except KafkaError as error:
            raise RefusedError(f"a partition is not assigned here any more: {error}") from error

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's stall detector counts messages; kizuna_lag_seconds tells the truth."""


def batch_bytes(read_ahead: int, shards: int) -> int:
    """Bytes of one partition in one answer, where a worker of so many shards reads `read_ahead` bytes of a topic."""
    least, most = _BATCH_BYTES
    return max(least, min(most, read_ahead // max(shards, 1)))


class Transport(driver.Transport):
    """Faust's aiokafka transport with the reading of this module."""

    Consumer = Consumer
