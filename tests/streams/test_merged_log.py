"""All inputs as one log: by append time, cut where it is told to, over positions at which no record stands."""

import random
from typing import Any

import pytest
from aiokafka import TopicPartition

from streams.merged_log import Chunk, MergedLog
from streams.protocols import COMMANDS, INPUTS, PURCHASES
from streams.settings import Settings
from tests.streams.conftest import HandMadeRecord

Key = tuple[str, int]


class StubConsumer:
    """aiokafka's, as far as it is used: a few records a fetch, and holes at which positions move without any."""

    def __init__(
        self, logs: dict[TopicPartition, list[HandMadeRecord]], ends: dict[TopicPartition, int]
    ) -> None:
        self.logs, self.ends = logs, ends
        self.positions = dict.fromkeys(ends, 0)
        self.random = random.Random(3)

    async def position(self, tp: TopicPartition) -> int:
        return self.positions[tp]

    async def getmany(self, *tps: TopicPartition, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        found: dict[TopicPartition, list[Any]] = {}
        for tp in tps:
            if self.random.random() < 0.3:
                continue
            left = [record for record in self.logs[tp] if record.offset >= self.positions[tp]]
            part = left[: self.random.randrange(1, 4)]
            if part:
                found[tp] = part
            self.positions[tp] = part[-1].offset + 1 if len(part) < len(left) else self.ends[tp]
        return found


def some_logs(partitions: int) -> dict[Key, list[HandMadeRecord]]:
    """Rising offsets with holes; append times that do not fall in a partition, and often meet."""
    random_ = random.Random(5)
    logs: dict[Key, list[HandMadeRecord]] = {}
    for key in ((topic, partition) for topic in INPUTS for partition in range(partitions)):
        offset, at, log = 0, 1_000, []
        for _ in range(random_.randrange(40) if key != (COMMANDS, 0) else 0):
            offset, at = offset + random_.choice([1, 1, 1, 3]), at + random_.randrange(4)
            log.append(HandMadeRecord(offset, None, b"", timestamp=at))
        logs[key] = log
    return logs


def merged_log(logs: dict[Key, list[HandMadeRecord]], ends: dict[Key, int]) -> MergedLog:
    settings = Settings()
    log = MergedLog(settings, 2)
    log._consumer = StubConsumer(
        {TopicPartition(settings.topic(t), p): records for (t, p), records in logs.items()},
        {TopicPartition(settings.topic(t), p): end for (t, p), end in ends.items()},
    )
    return log


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.merged_log.CHUNK", 7)


async def read(log: MergedLog, upto: dict[Key, int]) -> list[Chunk]:
    return [chunk async for chunk in log.chunks(upto)]


async def test_records_come_by_append_time_up_to_the_cut_and_go_on_from_there() -> None:
    logs = some_logs(2)
    # Markers behind the last record.
    ends = {key: (records[-1].offset if records else 0) + 3 for key, records in logs.items()}
    cut = {key: end // 2 for key, end in ends.items()}
    log = merged_log(logs, ends)
    for start, upto in ((dict.fromkeys(ends, 0), cut), (cut, ends)):
        chunks = await read(log, upto)
        found = [
            (m.record.timestamp, INPUTS.index(m.topic), m.partition, m.record.offset)
            for c in chunks
            for m in c.records
        ]
        wanted = sorted(
            (record.timestamp, INPUTS.index(topic), partition, record.offset)
            for (topic, partition), records in logs.items()
            for record in records
            if start[topic, partition] <= record.offset < upto[topic, partition]
        )
        assert found == wanted
        assert len(found) > 30
        assert chunks[-1].cursor == upto
        assert chunks[-1].merged_to == float("inf")


async def test_a_chunk_says_how_far_the_log_is_read_with_it() -> None:
    logs = some_logs(2)
    ends = {key: (records[-1].offset if records else 0) + 1 for key, records in logs.items()}
    seen: dict[Key, list[int]] = {key: [] for key in logs}
    for chunk in await read(merged_log(logs, ends), ends):
        for topic, partition, record in chunk.records:
            seen[topic, partition].append(record.offset)
        for key, records in logs.items():
            assert seen[key] == [r.offset for r in records if r.offset < chunk.cursor[key]]
            assert all(r.offset in seen[key] for r in records if r.timestamp < chunk.merged_to)


async def test_where_nothing_is_there_one_chunk_says_so() -> None:
    nothing = {key: [] for key in some_logs(2)}
    (chunk,) = await read(merged_log(nothing, dict.fromkeys(nothing, 2)), dict.fromkeys(nothing, 2))
    assert (chunk.records, chunk.cursor[PURCHASES, 0], chunk.merged_to) == ([], 2, float("inf"))
