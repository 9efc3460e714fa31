"""`kizuna publish`: events from a file of JSON lines."""

import os
import stat
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

import click
import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from cli.options import counted, json_option, print_json, settings_options
from cli.producing import REQUEST_BYTES, abandon, check_topic, producer_of
from cli.progress import Advance, progress
from streams.protocols import PURCHASES, TOUCHPOINTS, FatalError
from streams.settings import Settings
from streams.topics import said

#: Bytes that are sent and not yet acknowledged, at most.
_IN_FLIGHT = 32 * 1024 * 1024


class _Keyed(msgspec.Struct):
    customer_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


_read = msgspec.json.Decoder(_Keyed).decode


def key_of(line: bytes) -> bytes | None:
    """The record's key, the `customer_id`; None where the line has none that the pipeline would take."""
    try:
        return _read(line).customer_id.encode()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--topic",
    type=click.Choice([PURCHASES, TOUCHPOINTS]),
    default=PURCHASES,
    show_default=True,
    help="Which input the events are for: purchases (and refunds), or touchpoints.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "lz4", "snappy", "zstd"]),
    default="none",
    show_default=True,
    help="How the records are compressed on their way and on the broker's disk.",
)
@settings_options("brokers", "topic_prefix")
@json_option
def publish(settings: Settings, file: str, topic: str, compression: str, as_json: bool) -> None:
    """Send the JSON lines of FILE as events; FILE - is standard input.

    Each line goes as it is, under its customer_id as key; empty lines are skipped. A line without a
    customer_id goes without a key: the worker answers it with a dead letter, which says what is wrong.
    Sending a file twice does no harm: the worker counts an event_id once.
    """
    with _opened(file) as lines:
        check_topic(settings, topic)
        producer = producer_of(settings, compression)
        sending = _Sending(producer, settings.topic(topic))
        started = time.monotonic()
        try:
            with progress(topic, "records", _size(lines)) as advance:
                sending.all(lines, advance)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and sending.numbered:
                click.echo(f"interrupted: {sending.certain()}", err=True)
            abandon(producer)
            raise
        producer.close()
    _summary(sending, settings.topic(topic), time.monotonic() - started, as_json)


def _summary(sending: "_Sending", topic: str, seconds: float, as_json: bool) -> None:
    rate = round(sending.delivered / seconds) if seconds else 0
    if as_json:
        print_json(
            {
                "topic": topic,
                "records": sending.delivered,
                "bytes": sending.size,
                "without_customer_id": sending.keyless,
                "empty_lines": sending.empty,
                "seconds": round(seconds, 3),
                "records_per_second": rate,
            }
        )
    else:
        click.secho(
            f"{counted(sending.delivered, 'record')} sent to {topic} in {seconds:.1f} s ({rate:,}/s)",
            fg="green",
        )
    if sending.keyless:
        click.secho(
            f"{counted(sending.keyless, 'line')} without a customer_id, sent without a key: "
            "the worker makes dead letters of such (kizuna dead-letters list)",
            fg="yellow",
            err=True,
        )


class _Sending:
    """Lines on their way; every one's delivery is awaited, in their order."""

    def __init__(self, producer: KafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._waiting: deque[tuple[int, int, Any]] = deque()
        self._in_flight = 0
        self.delivered = self.size = self.keyless = self.empty = 0
        #: The last line that was read, and the last one up to which all are delivered.
        self.numbered = self.settled = 0

    def all(self, lines: IO[bytes], advance: Advance) -> None:
        """Send every line. Raises FatalError with the number of the line that Kafka did not take."""
        read = 0
        while line := lines.readline(REQUEST_BYTES):
            self.numbered += 1
            if len(line) == REQUEST_BYTES and not line.endswith(b"\n"):
                self._settle_all()
                raise self._refused(self.numbered, f"it is longer than {REQUEST_BYTES:,} bytes")
            read += len(line)
            self._send(line)
            advance(self.delivered, read)
        self._settle_all()

    def certain(self) -> str:
        """What is known of an unfinished run."""
        if not self.settled:
            return "no line is known to be in Kafka"
        return f"everything up to line {self.settled} is in Kafka, of later lines nothing is certain"

    def _send(self, line: bytes) -> None:
        value = line.rstrip(b"\r\n")
        if not value.strip():
            self.empty += 1
            return
        key = key_of(value)
        self.keyless += key is None
        try:
            future = self._producer.send(self._topic, value=value, key=key)
        except KafkaError as error:
            self._settle_all()
            raise self._refused(self.numbered, said(error)) from error
        self._waiting.append((self.numbered, len(value), future))
        self._in_flight += len(value)
        while self._waiting and (self._waiting[0][2].is_done or self._in_flight > _IN_FLIGHT):
            self._settle()

    def _settle_all(self) -> None:
        while self._waiting:
            self._settle()

    def _settle(self) -> None:
        number, size, future = self._waiting.popleft()
        try:
            future.get()
        except KafkaError as error:
            raise self._refused(number, said(error)) from error
        self._in_flight -= size
        self.delivered += 1
        self.size += size
        self.settled = number

    def _refused(self, number: int, why: str) -> FatalError:
        return FatalError(f"line {number} could not be delivered: {why}; {self.certain()}")


@contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(file).open("rb") as opened:
            yield opened
    except OSError as error:
        raise click.ClickException(f"{file}: cannot be read ({error.strerror or error})") from error


def _size(lines: IO[bytes]) -> int | None:
    """Bytes of a file; None for a pipe."""
    try:
        found = os.fstat(lines.fileno())
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
