"""What the worker logs: one line each, no customer, no secret; a broker that is gone does not fill the disk."""

import logging
import logging.config
import time

from streams.protocols import FatalError

#: This project's own loggers: what they say is said once for each thing that happens.
OURS = ("streams", "agents", "cli")


class NoTwice(logging.Filter):
    """Drops the libraries' tracebacks of what stops the worker on purpose: the command says it last, in one line."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log this one."""
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, FatalError)


class RateLimit(logging.Filter):
    """Lets the same message of the same library's logger pass once in `every` seconds.

    aiokafka reconnects about 2,000 times a second to a broker that stopped gracefully, and logs each.
    """

    def __init__(self, every: float = 5.0) -> None:
        super().__init__()
        self._every = every
        self._passed: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log this one."""
        if record.name.partition(".")[0] in OURS:
            return True
        key = record.name, str(record.msg)
        now = time.monotonic()
        if now - self._passed.get(key, -self._every) < self._every:
            return False
        if len(self._passed) > 1_000:
            self._passed.clear()
        self._passed[key] = now
        return True


def configure(level: str = "INFO") -> None:
    """Log to standard error: this project's own lines from `level` on, the libraries' from WARNING on."""
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"rate": {"()": RateLimit}, "twice": {"()": NoTwice}},
            "formatters": {"line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}},
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "formatter": "line",
                    "filters": ["twice", "rate"],
                }
            },
            "root": {"level": "WARNING", "handlers": ["stderr"]},
            # Faust says each time that a sweep took longer than its interval: under load it does, and nothing is lost.
            # And that there was a crash, before the command says in one line what stopped it.
            "loggers": {"mode.timers": {"level": "ERROR"}, "faust.worker": {"level": logging.CRITICAL + 1}}
            | {name: {"level": level} for name in OURS},
        }
    )
