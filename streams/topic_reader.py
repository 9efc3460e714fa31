"""One topic, read committed from its beginning to its end, and later on what was added."""

from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.kafka_log import answers
from streams.settings import Settings

_FETCH_WAIT_MS = 50
_POLL_MS = 200


class TopicReader:
    """Start it before use, stop it at the end. Every method raises UnavailableError."""

    def __init__(self, settings: Settings, name: str, partitions: int) -> None:
        self._tps = [TopicPartition(settings.topic(name), partition) for partition in range(partitions)]
        self._consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=settings.broker_list(),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=_FETCH_WAIT_MS,
        )
        #: Whether the topic still holds all that it ever did.
        self.is_whole = True

    async def start(self) -> None:
        """Connect, and go to the start."""
        async with answers():
            await self._consumer.start()
            self._consumer.assign(self._tps)
        await self.rewind()

    async def rewind(self) -> None:
        """Go to the start of every partition again."""
        async with answers():
            starts = await self._consumer.beginning_offsets(self._tps)
        self.is_whole = not any(starts.values())
        for tp, at in starts.items():
            self._consumer.seek(tp, at)

    async def stop(self) -> None:
        """Close the connection."""
        await self._consumer.stop()

    async def ends(self) -> dict[int, int]:
        """The position behind the last record, by partition."""
        async with answers():
            return {tp.partition: at for tp, at in (await self._consumer.end_offsets(self._tps)).items()}

    async def news(self) -> AsyncIterator[Any]:
        """What was not read yet, up to the end that there is now: aiokafka's records, in order by partition."""
        async with answers():
            ends = await self._consumer.end_offsets(self._tps)
        left = set(self._tps)
        while left:
            # Positions pass over markers, aborted records and holes: the end may come without a record.
            async with answers():
                left = {tp for tp in left if await self._consumer.position(tp) < ends[tp]}
                fetched = await self._consumer.getmany(*left, timeout_ms=_POLL_MS) if left else {}
            for records in fetched.values():
                for record in records:
                    yield record
