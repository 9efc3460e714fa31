"""What the output has told of each customer, and when a rebuild has read as much as was known then."""

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from sys import intern
from typing import Any

import msgspec

from loyalty.customer import Customer
from loyalty.views import Beneath
from schemas.tier_change import Rfm, TierEvent
from schemas.times import format_ms
from streams.healing import told_of
from streams.protocols import Published

#: A position by input and partition.
Cursor = Mapping[tuple[str, int], int]

#: Of a record that is adopted only the standing is kept: there is one for each customer.
_NO_RFM = Rfm(None, 0, "0", "XXX", 0, 0, 0)


@dataclass(slots=True)
class Told:
    """The newest published record of a customer, and what was known when it was decided."""

    #: The partition in which it stands, and up to where each input of that partition had been read.
    partition: int
    watermarks: dict[str, int]
    event: TierEvent
    beneath: Beneath | None = None
    #: What was appended before this instant (epoch milliseconds) was known whatever partition it stands in.
    rebuilt: int = 0
    #: What came since and has to wait until the record is adopted, in the order in which it was read.
    kept: list[Any] = field(default_factory=list)


def read_told(partition: int, record: Published) -> Told:
    """A record of customer-tiers. Raises ValueError where it is none of ours."""
    told = told_of(record)
    event = told.body
    lean = msgspec.structs.replace(
        event,
        event_id="",
        tier=intern(event.tier),
        previous_tier="",
        rfm=_NO_RFM,
        contacts={},
        cause_event_id=None,
    )
    return Told(partition, dict(told.read_up_to), lean, told.beneath, told.rebuilt)


class OvertakenError(Exception):
    """A change was published of a customer whose later events are counted already."""


class Telling:
    """The customers whose record is not adopted yet, by what their records wait for."""

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}
        #: `tier_seq` of each customer's newest record, adopted or not.
        self._seqs: dict[str, int] = {}
        #: Up to where each input was read when the newest changes were decided: what was decided below is published.
        self.frontier: dict[tuple[str, int], int] = {}
        self._by_position: dict[tuple[str, int], list[tuple[int, int, str, Told]]] = {}
        self._by_time: list[tuple[int, int, str, Told]] = []
        self._numbers = count()

    def __len__(self) -> int:
        """How many are not adopted yet."""
        return len(self._told)

    def of(self, customer_id: str) -> Told | None:
        """What is told of a customer and not adopted yet."""
        return self._told.get(customer_id)

    def pending(self) -> Iterator[tuple[str, Told]]:
        """Everyone whose record is not adopted yet."""
        return iter(list(self._told.items()))

    def tell(self, told: Told, cursor: Cursor) -> bool:
        """Note a published record; whether it is news. `cursor`: up to where was folded already.

        Raises OvertakenError where the record was decided before what is folded already.
        """
        customer_id = told.event.customer_id
        for topic, at in told.watermarks.items():
            key = topic, told.partition
            self.frontier[key] = max(at, self.frontier.get(key, 0))
        # A customer's records stand in several partitions where their number has changed: the largest number holds.
        if told.event.tier_seq <= self._seqs.get(customer_id, 0):
            return False
        if any(at < cursor.get((topic, told.partition), 0) for topic, at in told.watermarks.items()):
            raise OvertakenError(f"customer {customer_id!r} was told a tier that was decided before")
        self._seqs[customer_id] = told.event.tier_seq
        before = self._told.get(customer_id)
        if before is not None:
            told.kept = before.kept
        self._told[customer_id] = told
        self._wait(customer_id, told, {}, 0)
        return True

    def amend(
        self,
        customer: Customer,
        beneath: Beneath | None,
        partition: int,
        read_up_to: dict[str, int],
        rebuilt: int,
    ) -> None:
        """A store knows more of a customer than the newest record: what is beneath, having read its partition so far.

        Nothing where there is no record, or another one is the newest. Before anything is folded.
        """
        customer_id = customer.customer_id
        told = self._told.get(customer_id)
        if told is None or told.event.tier_seq != customer.tier_seq or customer.time is None:
            return
        event = msgspec.structs.replace(told.event, effective_at=format_ms(customer.time))
        told = Told(partition, read_up_to, event, beneath, rebuilt)
        self._told[customer_id] = told
        self._wait(customer_id, told, {}, 0)

    def adopted(self, customer_id: str) -> None:
        """The record is adopted."""
        del self._told[customer_id]

    def reached(self, cursor: Cursor, merged_to: float) -> list[str]:
        """Whose records may be adopted now, in no order: all that was known then has been read.

        `cursor` is up to where each partition was read; whatever was appended before `merged_to` was.
        """
        found: list[str] = []
        for key, waiting in list(self._by_position.items()):
            at = cursor.get(key, -1)
            while waiting and waiting[0][0] <= at:
                self._look_again(heapq.heappop(waiting), cursor, merged_to, found)
        while self._by_time and self._by_time[0][0] <= merged_to:
            self._look_again(heapq.heappop(self._by_time), cursor, merged_to, found)
        return found

    def _look_again(
        self, entry: tuple[int, int, str, Told], cursor: Cursor, merged_to: float, found: list[str]
    ) -> None:
        _, _, customer_id, told = entry
        # One that was superseded meanwhile waits under its new name.
        if self._told.get(customer_id) is told and self._wait(customer_id, told, cursor, merged_to):
            found.append(customer_id)

    def _wait(self, customer_id: str, told: Told, cursor: Cursor, merged_to: float) -> bool:
        """Whether nothing is left to wait for; else wait for the first thing that is."""
        for topic, at in told.watermarks.items():
            key = topic, told.partition
            if at > cursor.get(key, -1):
                waiting = self._by_position.setdefault(key, [])
                heapq.heappush(waiting, (at, next(self._numbers), customer_id, told))
                return False
        if told.rebuilt > merged_to:
            heapq.heappush(self._by_time, (told.rebuilt, next(self._numbers), customer_id, told))
            return False
        return True
