"""What every command shares: where Kafka and Redis are, how an error is told, how data is printed."""

import functools
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from schemas.times import parse_duration
from streams.protocols import FatalError, ShardLostError
from streams.settings import Settings, SettingsError

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = {
    "brokers": (
        "--brokers",
        {"metavar": "HOST:PORT,…", "help": "Kafka's bootstrap servers (KIZUNA_BROKERS)."},
    ),
    "topic_prefix": (
        "--topic-prefix",
        {"help": "Prefix of every topic (KIZUNA_TOPIC_PREFIX, default loyalty.)."},
    ),
    "redis_url": ("--redis-url", {"metavar": "URL", "help": "Redis or Valkey (KIZUNA_REDIS_URL)."}),
    "redis_prefix": (
        "--redis-prefix",
        {"help": "Prefix of every key (KIZUNA_REDIS_PREFIX, default loyalty)."},
    ),
    "program": (
        "--program",
        {"metavar": "FILE", "help": "The program file (KIZUNA_PROGRAM, default program.toml)."},
    ),
    "group": ("--group", {"help": "The worker's consumer group (KIZUNA_GROUP, default kizuna)."}),
    "clock": (
        "--clock",
        {"type": click.Choice(["wall", "event"]), "help": "By which clock time falls due (KIZUNA_CLOCK)."},
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
            try:
                return command(*args, settings=Settings.read(**flags), **kwargs)
            except (FatalError, ShardLostError, SettingsError) as error:
                raise click.ClickException(str(error)) from error

        for name in reversed(names):
            flag, details = _OPTIONS[name]
            wrapped = click.option(flag, name, **details)(wrapped)  # type: ignore[arg-type]
        return wrapped  # type: ignore[return-value]

    return decorate


def json_option(command: F) -> F:
    """`--json`: data instead of text."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")(command)


def print_json(value: Mapping[str, Any]) -> None:
    """One object on a line of its own, at once."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")) + "\n")
    sys.stdout.flush()


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
