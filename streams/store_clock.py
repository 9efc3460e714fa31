"""The store's clock, also for those who cannot wait for its answer."""

import time
from collections.abc import Callable

from streams.protocols import Clock

#: Seconds for which the last answer is carried on by this process's own clock.
_GOOD_FOR = 5.0


class StoreClock:
    """A `Clock` that remembers what it was told last."""

    def __init__(self, store: Clock, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._told: tuple[int, float] | None = None

    async def now(self) -> int:
        """Epoch milliseconds, asked now."""
        told = await self._store.now()
        # As of the answer's arrival: what is carried on from here is behind by the way it took, and never ahead.
        self._told = told, self._monotonic()
        return told

    async def about(self) -> int:
        """Epoch milliseconds, by an answer that is no older than some seconds. Raises as `now` does."""
        if self._told is not None:
            told, heard = self._told
            passed = self._monotonic() - heard
            if passed < _GOOD_FOR:
                return told + int(passed * 1000)
        return await self.now()
