"""An asyncio loop whose time is a number: when nothing is ready it jumps to the next timer.

No thread, no socket, no waiting; so one seed gives one order of events.
"""

import asyncio
from typing import Any


class DeadlockError(Exception):
    """Nothing is ready, no timer is left, and somebody still waits."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` starts at 0.0 and moves only when nothing else can be done."""

    def __init__(self) -> None:
        super().__init__()
        self._virtual = 0.0
        self._selector = self
        #: What nobody caught. A simulation that ends with any of it has failed.
        self.unhandled: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self._virtual

    def select(self, timeout: float | None) -> list[Any]:
        """What the base class calls when it has nothing to do for so long."""
        if timeout is None:
            raise DeadlockError(f"nothing is left to wait for, at {self._virtual:.3f} s")
        if timeout > 0:
            # Its own sum of differences would never be exact.
            self._virtual = self._scheduled[0]._when  # type: ignore[attr-defined]
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.unhandled.append(f"{context['message']}: {error!r}")

    def finish(self) -> None:
        """Cancel whatever is left and close."""
        for _ in range(20):
            left = asyncio.all_tasks(self)
            if not left:
                break
            for task in sorted(left, key=lambda task: task.get_name()):
                task.cancel()
            self.run_until_complete(asyncio.wait(left, timeout=60))
        self.run_until_complete(self.shutdown_asyncgens())
        self.close()
