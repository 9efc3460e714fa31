"""`kizuna worker`, the real one, that kills or suspends itself at a named step of its work, the n-th time.

Run as `python -m tests.faults.stepped`, told by variables: FAULT_STEP (one of STEPS), FAULT_TIMES (1 unless given),
FAULT_SIGNAL (KILL or STOP), FAULT_FILE, and FAULT_AFTER: how many commits of this process, of what it had read, must
have been answered before a step counts. The file is made just before the signal and says the step, so that a test
knows that the fault bit; of a worker that was resumed it also says how the call ended.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.kafka_log import KafkaWriter
from streams.protocols import Commit
from streams.redis_store import RedisStore


class Step(StrEnum):
    """Where a worker may end."""

    BEFORE_COMMIT = "before-commit"
    AFTER_COMMIT = "after-commit"
    """Redis has answered; the worker has not yet used the answer."""
    BEFORE_PUBLISH = "before-publish"
    IN_TRANSACTION = "in-transaction"
    """All records and the outbox number are sent, the transaction is not committed."""
    AFTER_PUBLISH = "after-publish"
    """The transaction is committed, the outbox not trimmed."""
    AFTER_TRIM = "after-trim"


class _Fault:
    """Counts the step's times, and bites."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.step = Step(environ["FAULT_STEP"])
        self._left = int(environ.get("FAULT_TIMES", "1"))
        self._signal = signal.Signals["SIG" + environ.get("FAULT_SIGNAL", "KILL")]
        self._file = Path(environ["FAULT_FILE"])
        self._after = int(environ.get("FAULT_AFTER", "0"))
        self.commits = 0

    def at(self, step: Step) -> bool:
        """Bite, if it is time; whether it did, which only a worker that was suspended and resumed will know."""
        if step is not self.step or self.commits < self._after or self._left == 0:
            return False
        self._left -= 1
        if self._left > 0:
            return False
        self._file.write_text(step)
        os.kill(os.getpid(), self._signal)
        return True

    def ended(self, call: "asyncio.Future[Any]") -> None:
        """Note how the call ended before which the worker was suspended: `done`, or the name of the error."""
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        with self._file.open("a") as file:
            file.write(f" {'done' if error is None else type(error).__name__}")


def arm(environ: dict[str, str]) -> None:
    """Put the fault into the worker's own parts."""
    fault = _Fault(environ)

    def around(owner: type, name: str, before: Step | None, after: Step | None = None) -> None:
        method: Callable[..., Awaitable[Any]] = getattr(owner, name)

        async def with_fault(self: Any, *args: Any, **kwargs: Any) -> Any:
            if before is not None and fault.at(before):
                call = asyncio.ensure_future(method(self, *args, **kwargs))
                call.add_done_callback(fault.ended)
                # Whoever gives up on it: how it ends is to be known.
                return await asyncio.shield(call)
            result = await method(self, *args, **kwargs)
            if any(isinstance(arg, Commit) and arg.topic is not None for arg in args):
                fault.commits += 1
            if after is not None:
                fault.at(after)
            return result

        setattr(owner, name, with_fault)

    around(RedisStore, "commit", Step.BEFORE_COMMIT, Step.AFTER_COMMIT)
    around(KafkaWriter, "publish", Step.BEFORE_PUBLISH)
    around(AIOKafkaProducer, "commit_transaction", Step.IN_TRANSACTION)
    around(RedisStore, "trim", Step.AFTER_PUBLISH, Step.AFTER_TRIM)


if __name__ == "__main__":
    from cli.main import main

    arm(dict(os.environ))
    sys.argv = ["kizuna", "worker"]
    main()
