"""What waits, in a rebuild, until as much of the log has been read as was known when it was decided."""

import heapq
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Generic, Protocol, TypeVar

#: A position by input and partition.
Cursor = Mapping[tuple[str, int], int]


class _Waits(Protocol):
    @property
    def partition(self) -> int:
        """Where it stands."""
        ...

    @property
    def watermarks(self) -> Mapping[str, int]:
        """Up to where each input of that partition had been read."""
        ...

    @property
    def rebuilt(self) -> int:
        """What was appended before this instant (epoch milliseconds) was known whatever partition it stands in."""
        ...


T = TypeVar("T", bound=_Waits)


class Awaiting(Generic[T]):
    """What waits, one for each customer."""

    def __init__(self) -> None:
        self._told: dict[str, T] = {}
        #: Those of whom it is not known yet what they wait for.
        self._fresh: dict[str, None] = {}
        self._by_position: dict[tuple[str, int], list[tuple[int, int, str, T]]] = {}
        self._by_time: list[tuple[int, int, str, T]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._told)

    def get(self, customer_id: str) -> T | None:
        return self._told.get(customer_id)

    def items(self) -> Iterator[tuple[str, T]]:
        return iter(list(self._told.items()))

    def put(self, customer_id: str, told: T) -> None:
        """It waits, in the place of what waited before for the customer."""
        self._told[customer_id] = told
        self._fresh[customer_id] = None

    def remove(self, customer_id: str) -> None:
        """It waits no longer."""
        del self._told[customer_id]

    def reached(self, cursor: Cursor, merged_to: float) -> list[str]:
        """Whose waiting is over, in no order, each told once: all that was known then has been read.

        `cursor` is up to where each partition was read; whatever was appended before `merged_to` was.
        """
        found: list[str] = []
        fresh, self._fresh = self._fresh, {}
        for customer_id in fresh:
            told = self._told.get(customer_id)
            if told is not None and self._is_over(customer_id, told, cursor, merged_to):
                found.append(customer_id)
        for key, waiting in list(self._by_position.items()):
            at = cursor.get(key, -1)
            while waiting and waiting[0][0] <= at:
                self._look_again(heapq.heappop(waiting), cursor, merged_to, found)
        while self._by_time and self._by_time[0][0] <= merged_to:
            self._look_again(heapq.heappop(self._by_time), cursor, merged_to, found)
        return found

    def _look_again(
        self, entry: tuple[int, int, str, T], cursor: Cursor, merged_to: float, found: list[str]
    ) -> None:
        _, _, customer_id, told = entry
        # One that was superseded meanwhile waits under its new name.
        if self._told.get(customer_id) is told and self._is_over(customer_id, told, cursor, merged_to):
            found.append(customer_id)

    def _is_over(self, customer_id: str, told: T, cursor: Cursor, merged_to: float) -> bool:
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
