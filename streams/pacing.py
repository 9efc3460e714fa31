"""The worker's one thread is shared: between two slices of a batch, whoever waits for it has a turn."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

#: Seconds of work after which others have their turn.
SLICE = 0.0005


class Pace:
    """Long work on customers, one lane at a time: else each of twelve lanes would have its slice before a question
    that came meanwhile has its turn. Held only while working, never while waiting for the store.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._lane = asyncio.Lock()
        self._until = 0.0

    async def __aenter__(self) -> Self:
        await self._lane.acquire()
        self._until = self._clock() + SLICE
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lane.release()

    async def rest(self) -> None:
        """Give the others their turn, if the slice is over."""
        if self._clock() >= self._until:
            await asyncio.sleep(0)
            self._until = self._clock() + SLICE

    def is_over(self) -> bool:
        """Whether the slice is over: `rest` then. For loops to which even a call of a coroutine matters."""
        return self._clock() >= self._until
