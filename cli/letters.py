"""A dead letter as a person deals with it: what it says of itself, how it is shown, which ones are chosen."""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import click
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from cli.options import Since
from cli.records import TopicReader, headers_of, plain, second, shown, with_value
from schemas.dead_letter import (
    DETAIL_HEADER,
    OFFSET_HEADER,
    PARTITION_HEADER,
    REASON_HEADER,
    TIMESTAMP_HEADER,
    TOPIC_HEADER,
    Headers,
    strip_for_replay,
)
from schemas.rejection import Reason
from schemas.times import format_ms
from streams.protocols import INPUTS
from streams.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

# As `schemas.dead_letter.fit` ends the detail of what it has cut.
_CUT = re.compile(r"; cut: (value|key|headers) of [0-9]+ bytes, SHA-256 [0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record of the dead-letter topic. `topic`, `partition`, `offset` and `timestamp` are the original's.

    They are None where the header is missing or says nothing usable: another program may have written it.
    """

    record: ConsumerRecord
    reason: str
    detail: str
    topic: str
    partition: int | None
    offset: int | None
    timestamp: int | None

    @classmethod
    def of(cls, record: ConsumerRecord) -> Self:
        """Read its headers; of two of one name the last one is ours."""
        said = {name: (value or b"").decode(errors="backslashreplace") for name, value in record.headers}
        return cls(
            record,
            said.get(REASON_HEADER, ""),
            said.get(DETAIL_HEADER, ""),
            said.get(TOPIC_HEADER, ""),
            _number(said.get(PARTITION_HEADER, "")),
            _number(said.get(OFFSET_HEADER, "")),
            _number(said.get(TIMESTAMP_HEADER, "")),
        )

    @property
    def place(self) -> str:
        """Where the original stands, or the dead letter where it does not say."""
        if self.topic and self.partition is not None and self.offset is not None:
            return f"{self.topic}[{self.partition}]@{self.offset}"
        return f"{self.record.topic}[{self.record.partition}]@{self.record.offset}"

    @property
    def was_cut(self) -> bool:
        """Whether it does not hold the whole original."""
        return _CUT.search(self.detail) is not None

    @property
    def original_headers(self) -> Headers:
        """The headers without those of the dead letter and of a reroute."""
        return strip_for_replay(self.record.headers)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def letter_text(letter: DeadLetter) -> str:
    """A line for a person."""
    return "  ".join(
        (
            click.style(second(letter.record.timestamp), dim=True),
            click.style(f"{shown(letter.reason) or 'no reason':<20}", fg="red"),
            shown(letter.place),
            f"key {shown(letter.record.key, 40)}",
            click.style(shown(letter.detail), dim=True),
        )
    )


def letter_line(letter: DeadLetter) -> str:
    """Its JSON line."""
    record = letter.record
    return with_value(
        {
            "reason": letter.reason,
            "detail": letter.detail,
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "timestamp": None if letter.timestamp is None else format_ms(letter.timestamp),
            "cut": letter.was_cut,
            "dead_letter": {
                "partition": record.partition,
                "offset": record.offset,
                "timestamp": format_ms(record.timestamp),
            },
            "key": plain(record.key),
            "headers": headers_of(letter.original_headers),
        },
        record.value,
    )


@dataclass(frozen=True, slots=True)
class Choice:
    """Which dead letters are meant; None asks for nothing. `topic` is a name of the contract."""

    reason: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    since: int | None = None

    def __post_init__(self) -> None:
        if (self.partition is None) != (self.offset is None) or (
            self.partition is not None and not self.topic
        ):
            raise click.UsageError("one dead letter is named by --topic, --partition and --offset together")

    @property
    def is_everything(self) -> bool:
        """Whether nothing is asked for."""
        return self == Choice()

    def takes(self, letter: DeadLetter, settings: Settings) -> bool:
        """Whether it is meant."""
        asked = (
            (self.reason, letter.reason),
            (None if self.topic is None else settings.topic(self.topic), letter.topic),
            (self.partition, letter.partition),
            (self.offset, letter.offset),
        )
        if any(wanted is not None and wanted != found for wanted, found in asked):
            return False
        return self.since is None or letter.record.timestamp >= self.since


def choice_options(command: F) -> F:
    """Options that choose dead letters; the command gets them as its argument `choice`."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        choice = Choice(**{field.name: kwargs.pop(field.name) for field in fields(Choice)})
        return command(*args, choice=choice, **kwargs)

    for option in (
        click.option(
            "--since",
            type=Since(),
            metavar="TIME",
            help="Those that became dead letters since then: a time, or how long ago, such as 24h.",
        ),
        click.option(
            "--offset", type=click.IntRange(0), metavar="N", help="And its offset: exactly one record."
        ),
        click.option(
            "--partition",
            type=click.IntRange(0),
            metavar="P",
            help="The partition where the original stands; with --topic and --offset.",
        ),
        click.option("--topic", type=click.Choice(INPUTS), help="Those of this input."),
        click.option(
            "--reason", type=click.Choice([str(reason) for reason in Reason]), help="Those with this reason."
        ),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def chosen(
    reader: TopicReader, ends: Mapping[TopicPartition, int], settings: Settings, choice: Choice
) -> Iterator[list[DeadLetter]]:
    """The dead letters that are meant, from the oldest on, up to these positions."""
    reader.seek_to_beginning()
    for records in reader.until(ends):
        letters = [DeadLetter.of(record) for record in records]
        yield [letter for letter in letters if choice.takes(letter, settings)]
