"""All records of all inputs, merged by append time, for a rebuild. Read committed, by a consumer without a group."""

import heapq
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.kafka_log import answers
from streams.protocols import INPUTS
from streams.refold import Merged
from streams.settings import Settings

#: Records of one chunk.
CHUNK = 5_000
_FETCH_WAIT_MS = 50
_POLL_MS = 200

Positions = dict[tuple[str, int], int]


@dataclass(slots=True)
class Chunk:
    """Some records, in the order of the merged log, and how far it is read with them."""

    records: list[Merged]
    cursor: Positions
    #: Everything that was appended before this instant has been read, of what was asked for.
    merged_to: float


class MergedLog:
    """Start it before use, stop it at the end. Every method raises UnavailableError."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._settings = settings
        self._tps = {
            (topic, partition): TopicPartition(settings.topic(topic), partition)
            for topic in INPUTS
            for partition in range(partitions)
        }
        self._keys = {tp: key for key, tp in self._tps.items()}
        # Of one instant purchases come first, and commands last: they go by the purchases before them.
        self._rank = {key: (INPUTS.index(key[0]), key[1]) for key in self._tps}
        self._waiting: dict[tuple[str, int], deque[Any]] = {key: deque() for key in self._tps}
        self._consumer: Any = None

    async def start(self) -> None:
        """Connect, and go to the start of every partition."""
        async with answers():
            self._consumer = AIOKafkaConsumer(
                bootstrap_servers=self._settings.broker_list(),
                enable_auto_commit=False,
                # A position outside the log is a fault, not a reason to skip.
                auto_offset_reset="none",
                isolation_level="read_committed",
                fetch_max_wait_ms=_FETCH_WAIT_MS,
            )
            await self._consumer.start()
            self._consumer.assign(list(self._tps.values()))
        await self.rewind()

    async def stop(self) -> None:
        """Close the connection."""
        if self._consumer is not None:
            await self._consumer.stop()

    async def rewind(self) -> None:
        """Go to the start of every partition again."""
        for key, at in (await self.starts()).items():
            self._waiting[key].clear()
            self._consumer.seek(self._tps[key], at)

    async def starts(self) -> Positions:
        """The first position there is."""
        async with answers():
            return self._named(await self._consumer.beginning_offsets(list(self._tps.values())))

    async def ends(self) -> Positions:
        """The position behind the last record that may be read: open transactions and what follows them are not."""
        async with answers():
            return self._named(await self._consumer.end_offsets(list(self._tps.values())))

    async def chunks(self, upto: Mapping[tuple[str, int], int]) -> AsyncIterator[Chunk]:
        """What is before `upto` and was not read yet; where that is nothing, one chunk without records."""
        heads: list[tuple[int, tuple[int, int], tuple[str, int]]] = []
        empty = set(self._tps)
        while True:
            records: list[Merged] = []
            while len(records) < CHUNK:
                for key in await self._filled(empty, upto):
                    heapq.heappush(heads, (self._waiting[key][0].timestamp, self._rank[key], key))
                empty = set()
                if not heads:
                    break
                while not empty and len(records) < CHUNK:
                    _, rank, key = heads[0]
                    waiting = self._waiting[key]
                    records.append(Merged(*key, waiting.popleft()))
                    if waiting and waiting[0].offset < upto[key]:
                        heapq.heapreplace(heads, (waiting[0].timestamp, rank, key))
                    else:
                        # What comes next of this partition must be known before anything later is taken.
                        heapq.heappop(heads)
                        empty.add(key)
            over = len(records) < CHUNK
            yield Chunk(
                records,
                {key: min(await self._position(key), upto[key]) for key in self._tps},
                float("inf") if over else records[-1].record.timestamp,
            )
            if over:
                return

    async def _filled(
        self, keys: set[tuple[str, int]], upto: Mapping[tuple[str, int], int]
    ) -> list[tuple[str, int]]:
        """Read until each partition has a record before `upto` at its head, or has none; those that have."""
        found: list[tuple[str, int]] = []
        left = set(keys)
        while True:
            for key in list(left):
                waiting = self._waiting[key]
                if waiting and waiting[0].offset < upto[key]:
                    found.append(key)
                    left.discard(key)
                # Positions pass over markers, aborted records and holes: the end may come without a record.
                elif waiting or await self._position(key) >= upto[key]:
                    left.discard(key)
            if not left:
                return found
            async with answers():
                fetched = await self._consumer.getmany(*(self._tps[key] for key in left), timeout_ms=_POLL_MS)
            for tp, records in fetched.items():
                self._waiting[self._keys[tp]].extend(records)

    async def _position(self, key: tuple[str, int]) -> int:
        waiting = self._waiting[key]
        if waiting:
            return int(waiting[0].offset)
        async with answers():
            return int(await self._consumer.position(self._tps[key]))

    def _named(self, positions: Mapping[TopicPartition, int]) -> Positions:
        return {self._keys[tp]: at for tp, at in positions.items()}
