"""A flood of dead letters: where an input brings more of them than the operator allows, the worker stops."""

from collections import deque
from collections.abc import Iterable

from schemas.dead_letter import TIMESTAMP_HEADER
from streams.outbox import Entry
from streams.protocols import Batch, FatalError, Stop

_MINUTE = 60_000


class Flood:
    """Dead letters of one input partition within a minute, by the time at which the records were appended."""

    def __init__(self, limit: int) -> None:
        """`limit`: how many are allowed; 0 for any number."""
        self._limit = limit
        #: When the newest ones were appended: one more than are allowed, at most.
        self._appended: deque[int] = deque(maxlen=limit + 1)

    def check(self, batch: Batch, entries: Iterable[Entry]) -> None:
        """Count a batch's dead letters, before anything of it is committed.

        Raises FatalError beyond the limit: the batch stays unread.
        """
        if not self._limit:
            return
        for entry in entries:
            if entry.reason is None:
                continue
            at = int(dict(entry.headers)[TIMESTAMP_HEADER] or b"0")
            self._appended.append(at)
            if len(self._appended) > self._limit and at - self._appended[0] < _MINUTE:
                raise FatalError(
                    f"{batch.topic} of partition {batch.partition}: more than {self._limit} dead letters within a "
                    f"minute (KIZUNA_DEAD_LETTERS_LIMIT), the last one {entry.reason}: nothing from position "
                    f"{batch.start} on was read; mend what sends them, or raise the limit to let them pass",
                    Stop.DEAD_LETTERS,
                )
