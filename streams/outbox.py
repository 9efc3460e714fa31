"""The one way out: changes, dead letters and records to send on, numbered, committed with the state, then published."""

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from schemas.rejection import Reason
from schemas.tier_change import TierChanged
from schemas.tier_change import encode as encode_change
from schemas.tier_change import headers as change_headers
from streams.protocols import INPUTS, OutRecord
from streams.topics import CUSTOMER_TIERS, TIER_CHANGES

#: Header of a change: up to where each input had been read when it was decided, `<input>=<position>;…`.
WATERMARKS_HEADER = "loyalty-watermarks"

Headers = Sequence[tuple[str, bytes | None]]


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One thing to publish. `partition` None: by the key, as Kafka does."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers
    #: Why it is a dead letter; None for what is none. For counting only.
    reason: Reason | None = None

    def records(self) -> Iterator[OutRecord]:
        """The records it becomes: a change stands in the log and in the compacted table of each customer's newest."""
        yield OutRecord(self.topic, self.partition, self.key, self.value, self.headers)
        if self.topic == TIER_CHANGES:
            yield OutRecord(CUSTOMER_TIERS, self.partition, self.key, self.value, self.headers)


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Entry).decode


def change_entry(body: TierChanged, partition: int, watermarks: bytes) -> Entry:
    """A tier change of the shard's own partition, decided when the inputs had been read up to `watermarks`."""
    headers = [*change_headers(body), (WATERMARKS_HEADER, watermarks)]
    return Entry(TIER_CHANGES, partition, body.customer_id.encode(), encode_change(body), headers)


def watermarks(offsets: dict[str, int]) -> bytes:
    """The value of WATERMARKS_HEADER."""
    return ";".join(f"{topic}={offsets[topic]}" for topic in INPUTS).encode()


class Outbox:
    """A shard's unpublished entries, oldest first; the store holds the same list."""

    def __init__(self, last: int, pending: Iterable[bytes], bound: int) -> None:
        self._pending = deque(decode(raw) for raw in pending)
        self._bound = bound
        self._some = asyncio.Event()
        #: Number of the newest entry.
        self.last = last
        if self._pending:
            self._some.set()

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def has_room(self) -> bool:
        """Whether another batch may be read. It may overshoot the bound: a batch is whole or not at all."""
        return len(self._pending) < self._bound

    def add(self, entries: Sequence[Entry]) -> None:
        """Entries that have just been committed."""
        if entries:
            self._pending.extend(entries)
            self.last += len(entries)
            self._some.set()

    async def take(self, limit: int, size_limit: int) -> tuple[list[Entry], int]:
        """Wait for entries; the oldest (at most `limit`, about `size_limit` bytes), and the number of the last."""
        await self._some.wait()
        first = self.last - len(self._pending)
        taken: list[Entry] = []
        size = 0
        for entry in self._pending:
            size += len(entry.value or b"") + len(entry.key or b"")
            if taken and (len(taken) >= limit or size > size_limit):
                break
            taken.append(entry)
        return taken, first + len(taken)

    def drop(self, upto: int) -> None:
        """Forget what was published, up to this number."""
        while self._pending and self.last - len(self._pending) < upto:
            self._pending.popleft()
        if not self._pending:
            self._some.clear()
