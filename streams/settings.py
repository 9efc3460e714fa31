"""Where the worker and the commands find Kafka, Redis and the program."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit


class SettingsError(Exception):
    """A setting has a value that cannot be used. The message names it and says what is allowed."""


class ClockKind(StrEnum):
    """By which clock time falls due (contract, section 3)."""

    WALL = "wall"
    EVENT = "event"


#: A broker takes no session timeout under 6 s unless told otherwise.
_LEAST = {
    "move_rate": 1,
    "falls_limit": 0,
    "dead_letters_limit": 0,
    "linger": 0,
    "sweep_interval": 0.01,
    "outbox_bound": 1,
    "cache_customers": 1,
    "read_ahead_bytes": 1024 * 1024,
    "session_timeout": 6,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """Flags, then `KIZUNA_*` variables, then the defaults below. Every field has a variable of its name."""

    brokers: str = "127.0.0.1:9092"
    redis_url: str = "redis://127.0.0.1:6379/0"
    redis_prefix: str = "loyalty"
    program: str = "program.toml"
    topic_prefix: str = "loyalty."
    clock: ClockKind = ClockKind.WALL
    group: str = "kizuna"
    web_host: str = "127.0.0.1"
    web_port: int = 6066
    #: Where other workers, and those they send here, find this one's pages; empty: at web_host and web_port.
    web_url: str = ""
    #: How many decoded customers one worker keeps in memory, over all its shards.
    cache_customers: int = 200_000
    #: Bytes of an input topic that one worker asks for ahead of its work, over all its shards.
    read_ahead_bytes: int = 96 * 1024 * 1024
    #: Changes, dead letters and records to send on that a shard may hold unpublished before it stops reading.
    outbox_bound: int = 20_000
    #: Seconds between two sweeps of a shard.
    sweep_interval: float = 0.5
    #: Customers that one worker moves to a changed program in a second, beside its events.
    move_rate: int = 1_000
    #: Share of a shard's customers (0.05: 5 %) that may fall within an hour; beyond it publishing pauses. 0: no limit.
    falls_limit: float = 0.0
    #: Dead letters that an input partition may bring within a minute; beyond it the worker stops. 0: no limit.
    dead_letters_limit: int = 0
    #: Seconds for which a worker that must stop goes on serving its pages, so that its metrics tell why.
    linger: float = 5.0
    #: Seconds without a heartbeat after which Kafka gives a worker's partitions away.
    session_timeout: float = 10.0

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None, **flags: Any) -> Self:
        """The settings of this process; a flag that is None was not given.

        Raises SettingsError where a variable or a flag has a value of the wrong form.
        """
        environ = os.environ if environ is None else environ
        given: dict[str, Any] = {}
        for name, field in cls.__dataclass_fields__.items():
            value = flags.get(name)
            source = f"--{name.replace('_', '-')}"
            if value is None:
                source = f"KIZUNA_{name.upper()}"
                value = environ.get(source)
            if value is None or value == "":
                continue
            given[name] = _convert(source, value, type(field.default))
        settings = cls(**given)
        settings._check()
        return settings

    def _check(self) -> None:
        if any(c in self.redis_prefix for c in "{}"):
            raise SettingsError("KIZUNA_REDIS_PREFIX: braces are not allowed, they mark the hash tag")
        if not self.broker_list():
            raise SettingsError("KIZUNA_BROKERS: expected host:port, several separated by commas")
        for name, least in _LEAST.items():
            # `not >=` refuses NaN, too.
            if not getattr(self, name) >= least:
                raise SettingsError(
                    f"KIZUNA_{name.upper()}: expected {least} or more, not {getattr(self, name)}"
                )
        if self.falls_limit > 1:
            raise SettingsError(f"KIZUNA_FALLS_LIMIT: expected a share from 0 to 1, not {self.falls_limit}")
        if not 0 <= self.web_port <= 65535:
            raise SettingsError(f"KIZUNA_WEB_PORT: expected 0 to 65535, not {self.web_port}")
        if self.web_url and not _is_address(self.web_url):
            raise SettingsError(
                f"KIZUNA_WEB_URL: expected an address such as http://worker-1:6066, not {self.web_url!r}"
            )

    def topic(self, name: str) -> str:
        """The name in Kafka of one of the topics of the contract, such as `purchases`."""
        return self.topic_prefix + name

    def address(self) -> str:
        """Where this worker's pages are found, without a slash at the end."""
        host = f"[{self.web_host}]" if ":" in self.web_host else self.web_host
        return (self.web_url or f"http://{host}:{self.web_port}").rstrip("/")

    def broker_list(self) -> list[str]:
        """The bootstrap servers, one `host:port` each."""
        return [broker.strip() for broker in self.brokers.split(",") if broker.strip()]

    def redis_shown(self) -> str:
        """The Redis URL without its password, for a message or a log."""
        return without_password(self.redis_url)

    def but(self, **changes: Any) -> Self:
        """The same settings with some of them changed."""
        return replace(self, **changes)


def without_password(url: str) -> str:
    """A Redis URL that may be shown."""
    # redis-py takes a password from the query, too.
    parts = urlsplit(url)._replace(query="", fragment="")
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    if colon:
        parts = parts._replace(netloc=f"{user}:***@{hosts}")
    return urlunsplit(parts)


def each_host(url: str) -> list[str]:
    """A Redis URL may name several hosts of a cluster, separated by commas: a URL for each of them."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    named = [host.strip() for host in hosts.split(",") if host.strip()]
    if len(named) < 2:
        return [url]
    return [urlunsplit(parts._replace(netloc=f"{credentials}{at}{host}")) for host in named]


def _is_address(url: str) -> bool:
    parts = urlsplit(url)
    if any(ord(c) <= ord(" ") for c in url) or parts.query or parts.fragment:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _convert(source: str, value: Any, kind: type) -> Any:
    try:
        return kind(value)
    except ValueError:
        if issubclass(kind, StrEnum):
            allowed = " or ".join(str(member) for member in kind)
        else:
            allowed = {int: "a whole number", float: "a number"}.get(kind, "text")
        raise SettingsError(f"{source}: expected {allowed}, not {value!r}") from None
