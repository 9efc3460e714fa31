"""The one way out: changes, dead letters and records to send on, numbered, committed with the state, then published."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

import msgspec

from loyalty.bond import BondChange
from loyalty.views import Beneath, Change, Decision
from schemas import bond_records
from schemas.rejection import Reason
from schemas.tier_change import TierEvent
from schemas.tier_change import encode as encode_change
from schemas.tier_change import headers as change_headers
from streams.protocols import INPUTS, OutRecord
from streams.topics import ATTRIBUTIONS, CUSTOMER_TIERS, NURTURING_TRIGGERS, SEGMENT_CHANGES, TIER_CHANGES

#: Header of a change: up to where each input had been read when it was decided, `<input>=<position>;…`.
WATERMARKS_HEADER = "loyalty-watermarks"
#: In the same header: before which append time everything counts, wherever it stands. There where a rebuild made the
#: store (ADR 0013).
REBUILT = "rebuilt"
#: Header of a change that does not show all of the standing: what is beneath it (docs/tiers.md), in JSON.
BENEATH_HEADER = "loyalty-beneath"
#: Header of what is told of a bond: where the customer's decisions stand with it (`BondMark`), in JSON.
BOND_HEADER = "loyalty-bond"

#: Where each kind of record about a bond goes.
BOND_TOPIC_OF: dict[type, str] = {
    bond_records.SegmentEvent: SEGMENT_CHANGES,
    bond_records.TriggerEvent: NURTURING_TRIGGERS,
    bond_records.AttributionEvent: ATTRIBUTIONS,
}

#: Topic of an entry that is not to be published after all. Its place stays, as entries are numbered.
WITHDRAWN = ""

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
    #: Whether the next entry is of the same commit. What one commit decided is published together: what is out is
    #: then what was decided up to some watermark, and no half of it.
    more: bool = False

    def records(self) -> Iterator[OutRecord]:
        """The records it becomes: a change stands in the log and in the compacted table of each customer's newest.

        None where it was withdrawn.
        """
        if self.topic == WITHDRAWN:
            return
        yield OutRecord(self.topic, self.partition, self.key, self.value, self.headers)
        if self.topic == TIER_CHANGES:
            yield OutRecord(CUSTOMER_TIERS, self.partition, self.key, self.value, self.headers)


#: What a withdrawn entry becomes.
NOTHING = Entry(WITHDRAWN, None, None, None, ())


def whole(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries of one commit, marked as such."""
    for entry in entries[:-1]:
        entry.more = True
    return entries


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Entry).decode


def change_entry(body: TierEvent, beneath: Beneath | None, partition: int, watermarks: bytes) -> Entry:
    """A change of the shard's own partition, decided when the inputs had been read up to `watermarks`."""
    headers = [*change_headers(body), (WATERMARKS_HEADER, watermarks)]
    if beneath is not None:
        headers.append((BENEATH_HEADER, msgspec.json.encode(beneath)))
    return Entry(TIER_CHANGES, partition, body.customer_id.encode(), encode_change(body), headers)


def bond_entry(change: BondChange, partition: int, watermarks: bytes) -> Entry:
    """A record about a bond of the shard's own partition, as `change_entry` makes those of tiers."""
    body = change.body
    headers = [
        *bond_records.headers(body),
        (WATERMARKS_HEADER, watermarks),
        (BOND_HEADER, msgspec.json.encode(change.mark)),
    ]
    topic, key = BOND_TOPIC_OF[type(body)], change.customer_id.encode()
    return Entry(topic, partition, key, change.value, headers)


def decision_entry(
    decision: Decision, body_of: Callable[[Change], TierEvent], partition: int, watermarks: bytes
) -> Entry:
    """What was decided, of the shard's own partition; `body_of` is `Rules.change_body`."""
    if isinstance(decision, BondChange):
        return bond_entry(decision, partition, watermarks)
    return change_entry(body_of(decision), decision.beneath, partition, watermarks)


def watermarks(offsets: dict[str, int], rebuilt: int = 0) -> bytes:
    """The value of WATERMARKS_HEADER; `rebuilt` is `ShardState.rebuilt`."""
    read_up_to = ";".join(f"{topic}={offsets[topic]}" for topic in INPUTS)
    return (f"{read_up_to};{REBUILT}={rebuilt}" if rebuilt else read_up_to).encode()


def positions_of(headers: Headers) -> tuple[dict[str, int], int]:
    """What `watermarks` was made of. Raises ValueError where it is not among the headers."""
    raw = dict(headers).get(WATERMARKS_HEADER)
    if raw is None:
        raise ValueError(f"expected the header {WATERMARKS_HEADER}")
    positions = dict(part.split("=", 1) for part in raw.decode().split(";"))
    try:
        return {topic: int(positions[topic]) for topic in INPUTS}, int(positions.get(REBUILT, 0))
    except KeyError as error:
        raise ValueError(f"expected {WATERMARKS_HEADER}: {error}") from error


class Outbox:
    """A shard's unpublished entries, oldest first; the store holds the same list."""

    def __init__(self, last: int, pending: Iterable[Entry], bound: int, held: int | None = None) -> None:
        """`held`: publishing is paused behind this entry."""
        self._pending = deque(pending)
        self._bound = bound
        self._some = asyncio.Event()
        #: Which entries came when, by this process's clock: number of the last, seconds.
        self._came: deque[tuple[int, float]] = deque([(last, time.monotonic())] if self._pending else [])
        #: Number of the newest entry.
        self.last = last
        self._held = held
        self._set()

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
            self._came.append((self.last, time.monotonic()))
            self._set()

    @property
    def age(self) -> float:
        """Seconds since the oldest unpublished entry came here; 0 where there is none."""
        return time.monotonic() - self._came[0][1] if self._came else 0.0

    def customers(self, topics: Container[str]) -> set[str]:
        """Of whom there is something unpublished for one of these topics, whose records bear the customer as key."""
        return {
            entry.key.decode() for entry in self._pending if entry.topic in topics and entry.key is not None
        }

    def hold(self, behind: int | None) -> None:
        """Publish nothing behind this entry; None: everything again."""
        self._held = behind
        self._set()

    def behind(self, number: int) -> Iterator[tuple[int, Entry]]:
        """The unpublished entries behind one, each with its number."""
        first = self._first
        return ((first + i, entry) for i, entry in enumerate(self._pending, 1) if first + i > number)

    def replace(self, number: int, entry: Entry) -> None:
        """Put another entry in the place of an unpublished one."""
        self._pending[number - self._first - 1] = entry

    def withdrawn(self, number: int) -> Entry:
        """What takes the place of an unpublished entry that is not to be published after all."""
        return msgspec.structs.replace(NOTHING, more=self._pending[number - self._first - 1].more)

    @property
    def _first(self) -> int:
        """Number of the newest entry that is published."""
        return self.last - len(self._pending)

    def _set(self) -> None:
        if self._pending and (self._held is None or self._first < self._held):
            self._some.set()
        else:
            self._some.clear()

    async def take(self, limit: int, size_limit: int) -> tuple[list[Entry], int]:
        """Wait for entries; the oldest, and the number of the last.

        About `limit` of them, and about `size_limit` bytes: whole commits, and one in any case.
        """
        await self._some.wait()
        first = self._first
        taken: list[Entry] = []
        size = 0
        for entry in self._pending:
            if first + len(taken) == self._held:
                break
            size += len(entry.value or b"") + len(entry.key or b"")
            if taken and not taken[-1].more and (len(taken) >= limit or size > size_limit):
                break
            taken.append(entry)
        return taken, first + len(taken)

    def drop(self, upto: int) -> None:
        """Forget what was published, up to this number."""
        while self._pending and self._first < upto:
            self._pending.popleft()
        while self._came and self._came[0][0] <= upto:
            self._came.popleft()
        self._set()
