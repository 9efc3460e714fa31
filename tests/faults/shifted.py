"""`kizuna worker`, the real one, in a process whose clock is off by FAULT_SHIFT seconds: a machine that was set wrong.

Run as `python -m tests.faults.shifted`. What Python asks for the time of day is off: `time.time`, `time.time_ns`,
`datetime.now` and its like, and so is what it logs. Clocks that only measure spans stay.
"""

import datetime
import os
import sys
import time
from typing import Any, Self


def shift(seconds: float) -> None:
    """Set this process's clock off. Before anything else is imported."""
    real, real_ns, type_ = time.time, time.time_ns, datetime.datetime

    class Shifted(type_):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Self:
            return cls.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls) -> Self:
            return cls.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Self:
            return cls.fromtimestamp(time.time())

    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    datetime.datetime = Shifted  # type: ignore[misc]


if __name__ == "__main__":
    shift(float(os.environ["FAULT_SHIFT"]))
    from cli.main import main

    sys.argv = ["kizuna", "worker"]
    main()
