"""A batch, decoded a part at a time, and as much of it as one commit takes.

A batch of a worker that catches up has tens of thousands of records. In one commit a customer that comes often is
packed and written once. But Redis answers nobody else while it is written, and all that it decides is in memory at
once.
"""

from collections import deque
from dataclasses import replace
from typing import NamedTuple

from loyalty.folding import customer_ids
from streams.intake import Events, Intake
from streams.outbox import Entry
from streams.pacing import Pace
from streams.protocols import Batch

#: Records that are decoded before another task has a turn: some tenths of a millisecond.
_DECODE_RECORDS = 64
#: Customers, dead letters and records sent on from which on the rest is for the next commit: each takes Redis
#: some 20 µs.
_COMMIT_CUSTOMERS = 2_500


class Part(NamedTuple):
    """Records one after another, the events they hold, and what goes out for those that hold none."""

    batch: Batch
    events: Events
    entries: list[Entry]


class Parts:
    """What of a batch is not committed yet; false when nothing is."""

    def __init__(self, intake: Intake, batch: Batch) -> None:
        self._intake = intake
        self._batch = batch
        #: How many records are decoded, and up to which position; None when all is.
        self._records = 0
        self._at: int | None = batch.start
        self._decoded: deque[Part] = deque()
        self._taken: list[Part] = []
        #: How many records are taken for a commit.
        self._committed = 0

    def __bool__(self) -> bool:
        return self._at is not None or bool(self._decoded)

    async def read(self, pace: Pace) -> dict[str, None]:
        """Decode as much as one commit takes; of which customers. In a turn of the pace."""
        ids = customer_ids([event for part in self._decoded for event in part.events])
        entries = sum(len(part.entries) for part in self._decoded)
        while self._at is not None and len(ids) + entries < _COMMIT_CUSTOMERS:
            part = self._decode(self._at)
            ids |= customer_ids(part.events)
            entries += len(part.entries)
            await pace.rest()
        return ids

    def _decode(self, start: int) -> Part:
        batch, first = self._batch, self._records
        self._records = following = first + _DECODE_RECORDS
        is_last = following >= len(batch.records)
        end = batch.end if is_last else batch.records[following].offset
        records = replace(batch, start=start, end=end, records=batch.records[first:following])
        part = Part(records, *self._intake.read(records))
        self._decoded.append(part)
        self._at = None if is_last else end
        return part

    def take(self) -> Events | None:
        """The next events, which the next commit takes; None where no more are decoded."""
        if not self._decoded:
            return None
        self._taken.append(self._decoded.popleft())
        return self._taken[-1].events

    def taken(self) -> tuple[Batch, list[Entry]]:
        """All that was taken since the last time, and what goes out for records that hold no event."""
        parts, self._taken = self._taken, []
        first = self._committed
        self._committed = first + sum(len(part.batch.records) for part in parts)
        records = self._batch.records[first : self._committed]
        batch = replace(self._batch, start=parts[0].batch.start, end=parts[-1].batch.end, records=records)
        return batch, [entry for part in parts for entry in part.entries]
