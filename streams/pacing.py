"""The worker's one thread is shared: between two slices of a batch, whoever waits for it has a turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

#: Seconds of work after which others have their turn.
SLICE = 0.0005


class Pace:
    """Long work on customers, one lane at a time: else each of twelve lanes would have its slice before a question
    that came meanwhile has its turn. A turn is a block; one within another is the same turn, and the end of the inner
    one ends it, so that it is held only while working, never while waiting for the store.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._lane = asyncio.Lock()
        self._until = 0.0
        #: Whose turn it is.
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if self._task is not task:
            await self._lane.acquire()
            self._task = task
            self._until = self._clock() + SLICE
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> bool:
        """Whether it was this task's turn, which is over now."""
        if self._task is None or self._task is not asyncio.current_task():
            return False
        self._task = None
        self._lane.release()
        return True

    @asynccontextmanager
    async def left(self) -> AsyncIterator[None]:
        """For waiting in the middle of a turn, if there is one: another one goes on after it."""
        had_turn = self._leave()
        yield
        if had_turn:
            await self.__aenter__()

    async def rest(self) -> None:
        """Give the others their turn, if the slice is over."""
        if self._clock() >= self._until:
            await asyncio.sleep(0)
            self._until = self._clock() + SLICE

    def is_over(self) -> bool:
        """Whether the slice is over: `rest` then. For loops to which even a call of a coroutine matters."""
        return self._clock() >= self._until
