"""The worker's one thread is shared: between two slices of a batch, whoever waits for it has a turn."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

#: Seconds of work after which others have their turn.
SLICE = 0.0005
#: Seconds after which a lane that has just begun to wait goes first: batches are large where a partition is caught up
#: with, and others may have nothing to catch up with.
TURN = 0.01
#: How many lanes may go before one that was interrupted.
_IN_A_ROW = 16

Turns = deque[asyncio.Future[None]]


class Pace:
    """Long work on customers, one lane at a time: else each of twelve lanes would have its slice before a question
    that came meanwhile has its turn. A turn is a block; one within another is the same turn, and the end of the inner
    one ends it, so that it is held only while working, never while waiting for the store.

    A long turn is interrupted by those that begin, and goes on when there are none: so of many large batches one after
    another is worked on, and the others are not in memory yet.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._beginning: Turns = deque()
        self._interrupted: Turns = deque()
        self._is_taken = False
        #: How many have begun since an interrupted one went on.
        self._begun = 0
        self._slice_until = 0.0
        self._turn_until = 0.0
        #: Whose turn it is; nobody's while it is handed on.
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if self._task is not task:
            if self._is_taken:
                await self._wait(self._beginning)
            self._begin(task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _begin(self, task: asyncio.Task[Any] | None) -> None:
        self._is_taken, self._task = True, task
        now = self._clock()
        self._slice_until, self._turn_until = now + SLICE, now + TURN

    async def _wait(self, turns: Turns, then: Callable[[], None] = lambda: None) -> None:
        """Wait for a turn in a queue, and do `then` as soon as one stands in it."""
        turn = asyncio.get_running_loop().create_future()
        turns.append(turn)
        then()
        try:
            await turn
        except BaseException:
            if not turn.cancelled():
                # It was this one's turn already.
                self._hand_on()
            raise

    def _hand_on(self) -> None:
        """The next turn begins, if anybody waits for one."""
        self._task = None
        while self._beginning or self._interrupted:
            if self._interrupted and (not self._beginning or self._begun >= _IN_A_ROW):
                self._begun = 0
                turn = self._interrupted.popleft()
            else:
                self._begun += 1
                turn = self._beginning.popleft()
            if not turn.done():  # else it was cancelled
                turn.set_result(None)
                return
        self._is_taken = False

    def _leave(self) -> bool:
        """Whether it was this task's turn, which is over now."""
        if self._task is None or self._task is not asyncio.current_task():
            return False
        self._hand_on()
        return True

    @asynccontextmanager
    async def left(self) -> AsyncIterator[None]:
        """For waiting in the middle of a turn, if there is one: another one goes on after it."""
        had_turn = self._leave()
        yield
        if had_turn:
            await self.__aenter__()

    async def rest(self) -> None:
        """Let others run, if the slice is over, and another lane, if the turn is long and one begins."""
        if not self.is_over():
            return
        await asyncio.sleep(0)
        task = asyncio.current_task()
        if self._beginning and self._clock() >= self._turn_until and self._task is task:
            await self._wait(self._interrupted, then=self._hand_on)
            self._begin(task)
        self._slice_until = self._clock() + SLICE

    def is_over(self) -> bool:
        """Whether the slice is over: `rest` then. For loops to which even a call of a coroutine matters."""
        return self._clock() >= self._slice_until
