"""What every command shares: where Kafka and Redis are, how an error is told, how data is printed."""

import functools
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from schemas.times import format_ms, parse_duration, parse_rfc3339
from streams.protocols import FatalError, ShardLostError
from streams.settings import Settings, SettingsError

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = {
    "brokers": (
        "--brokers",
        {
            "metavar": "HOST:PORT,…",
            "help": "Kafka's bootstrap servers (KIZUNA_BROKERS, default 127.0.0.1:9092).",
        },
    ),
    "topic_prefix": (
        "--topic-prefix",
        {"metavar": "TEXT", "help": "Prefix of every topic (KIZUNA_TOPIC_PREFIX, default loyalty.)."},
    ),
    "redis_url": (
        "--redis-url",
        {"metavar": "URL", "help": "Redis or Valkey (KIZUNA_REDIS_URL, default redis://127.0.0.1:6379/0)."},
    ),
    "redis_prefix": (
        "--redis-prefix",
        {"metavar": "TEXT", "help": "Prefix of every key (KIZUNA_REDIS_PREFIX, default loyalty)."},
    ),
    "program": (
        "--program",
        {"metavar": "FILE", "help": "The program file (KIZUNA_PROGRAM, default program.toml)."},
    ),
    "group": (
        "--group",
        {"metavar": "NAME", "help": "The worker's consumer group (KIZUNA_GROUP, default kizuna)."},
    ),
    "clock": (
        "--clock",
        {
            "type": click.Choice(["wall", "event"]),
            "help": "By which clock time falls due (KIZUNA_CLOCK, default wall).",
        },
    ),
    "web_host": (
        "--web-host",
        {"metavar": "HOST", "help": "Where the web pages are served (KIZUNA_WEB_HOST, default 127.0.0.1)."},
    ),
    "web_port": (
        "--web-port",
        {
            "type": click.IntRange(0, 65535),
            "metavar": "PORT",
            "help": "Port of /metrics, /healthz, /readyz, /customers/<id> (KIZUNA_WEB_PORT, default 6066).",
        },
    ),
}


def settings_options(*names: str) -> Callable[[F], F]:
    """Options for these settings; the command gets them read, as its argument `settings`.

    Errors that are the user's to mend, or a server's, become one line and a non-zero exit.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            flags = {name: kwargs.pop(name) for name in names}
            # The Kafka clients log what the line below says already.
            for client in ("kafka", "aiokafka"):
                logging.getLogger(client).addHandler(logging.NullHandler())
            try:
                settings = Settings.read(**flags)
            except SettingsError as error:
                raise click.ClickException(str(error)) from error
            try:
                return command(*args, settings=settings, **kwargs)
            except Exception as error:
                told = _told(error, settings)
                if told is None:
                    raise
                raise click.ClickException(told) from error

        for name in reversed(names):
            flag, details = _OPTIONS[name]
            wrapped = click.option(flag, name, **details)(wrapped)  # type: ignore[arg-type]
        return wrapped  # type: ignore[return-value]

    return decorate


def _told(error: Exception, settings: Settings) -> str | None:
    """The line for a person, or None where the error is this program's own."""
    from aiokafka.errors import KafkaError as AsyncKafkaError
    from kafka.errors import KafkaError
    from redis.exceptions import RedisError

    from streams.inspection import InspectionError
    from streams.program_change import ChangeError
    from streams.topics import said

    if isinstance(error, (FatalError, ShardLostError, InspectionError, ChangeError)):
        return str(error)
    if isinstance(error, (KafkaError, AsyncKafkaError)):
        return f"Kafka at {settings.brokers} does not do it: {said(error)}"
    if isinstance(error, RedisError):
        return f"Redis at {settings.redis_shown()} does not do it: {error}"
    return None


def json_option(command: F) -> F:
    """`--json`: data instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")(command)


def print_json(value: Mapping[str, Any]) -> None:
    """One object on a line of its own, at once."""
    print_lines([json_line(value)])


def json_line(value: Mapping[str, Any]) -> str:
    """The object's JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def print_lines(lines: list[str]) -> None:
    """Lines of data, in UTF-8 whatever the locale, at once: whoever reads them must not wait."""
    if lines:
        sys.stdout.buffer.write(("\n".join(lines) + "\n").encode())
        sys.stdout.buffer.flush()


def counted(count: int, thing: str) -> str:
    """Such as `1 record` or `1,200 records`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


class Duration(click.ParamType):
    """A duration such as 90d, 24h or 5m, as milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Milliseconds."""
        if isinstance(value, int):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Instant(click.ParamType):
    """A time such as 2017-04-02T11:53:26Z, as epoch milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Epoch milliseconds."""
        if isinstance(value, int):
            return value
        try:
            return parse_rfc3339(value)
        except ValueError as error:
            self.fail(f"{error}, such as 2017-04-02T11:53:26Z", param, ctx)


class Since(click.ParamType):
    """A time, or a duration back from now, as epoch milliseconds."""

    name = "time or duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Epoch milliseconds."""
        if isinstance(value, int):
            return value
        try:
            return time.time_ns() // 1_000_000 - parse_duration(value)
        except ValueError:
            pass
        try:
            return parse_rfc3339(value)
        except ValueError:
            expected = "expected a time such as 2017-04-02T11:53:26Z, or how long ago, such as 24h or 7d"
            self.fail(expected, param, ctx)


class Until(click.ParamType):
    """A time, or a duration from now on, as epoch milliseconds."""

    name = "time or duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Epoch milliseconds."""
        if isinstance(value, int):
            return value
        try:
            return _writable(time.time_ns() // 1_000_000 + parse_duration(value))
        except ValueError:
            pass
        try:
            return _writable(parse_rfc3339(value))
        except ValueError:
            expected = (
                "expected a time such as 2027-04-02T00:00:00Z, or how long from now, such as 30d or 24h"
            )
            self.fail(expected, param, ctx)


def _writable(at: int) -> int:
    format_ms(at)
    return at


as_of_option = click.option(
    "--as-of",
    type=Instant(),
    metavar="TIME",
    help="Show what would be at that time, such as 2017-04-02T11:53:26Z, were nothing more to arrive. "
    "Default: now; in the event clock, the newest event.",
)
