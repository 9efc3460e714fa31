"""The worker's one thread is shared: between two slices of a batch, whoever waits for it has a turn."""

import asyncio
from types import TracebackType
from typing import Self


class Pace:
    """Long work on customers, one lane at a time: else each of twelve lanes would have its slice before a question
    that came meanwhile has its turn. Counted and not timed, so that a simulation runs the same each time.

    Held only while working, never while waiting for the store.
    """

    #: How many events or customers make a slice: about a millisecond.
    SLICE = 16

    def __init__(self) -> None:
        self._lane = asyncio.Lock()
        self._left = self.SLICE

    async def __aenter__(self) -> Self:
        await self._lane.acquire()
        self._left = self.SLICE
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lane.release()

    def is_over(self) -> bool:
        """Whether a slice has ended: count one more, and then `await asyncio.sleep(0)`."""
        self._left -= 1
        if self._left:
            return False
        self._left = self.SLICE
        return True
