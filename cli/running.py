"""How a command runs its asynchronous part."""

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any, Never, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`, and Ctrl-C ends it at once.

    asyncio's own handler cancels the task, and before Python 3.12 `asyncio.wait_for`, by which redis-py
    writes, may swallow that. Where another handler stands, asyncio leaves it.
    """
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        return asyncio.run(work)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: FrameType | None) -> Never:
    raise KeyboardInterrupt
