"""Reading a topic for a person or a script, and showing its records."""

import base64
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from schemas.rejection import RejectedError
from schemas.strict_json import check_text, parse
from schemas.times import DAY, HOUR, MINUTE, SECOND, format_ms
from streams.protocols import FatalError
from streams.settings import Settings
from streams.topics import BOOTSTRAP_MS, said

_POLL_MS = 500
_SILENCE_SECONDS = 30.0
_CLOSE_MS = 1_000


class TopicReader:
    """Reads all partitions of one topic, committed records only, as no member of any group."""

    def __init__(self, consumer: KafkaConsumer, partitions: list[TopicPartition], brokers: str) -> None:
        self._consumer = consumer
        self._partitions = partitions
        self._brokers = brokers

    def ends(self) -> dict[TopicPartition, int]:
        """Position behind the last committed record of each partition, now."""
        found: dict[TopicPartition, int] = self._consumer.end_offsets(self._partitions)
        return found

    def seek_to_beginning(self) -> None:
        """Read on from the oldest record that there is."""
        self._consumer.seek_to_beginning(*self._partitions)

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read on from these positions."""
        for partition, position in positions.items():
            self._consumer.seek(partition, position)

    def follow(self) -> Iterator[list[ConsumerRecord]]:
        """What comes, as it comes, without end."""
        while True:
            if found := self._poll():
                yield [record for records in found.values() for record in records]

    def until(self, ends: Mapping[TopicPartition, int]) -> Iterator[list[ConsumerRecord]]:
        """What stands before these positions. Raises FatalError where Kafka says nothing more for 30 s."""
        self._consumer.resume(*self._partitions)
        left = dict(ends)
        heard = time.monotonic()
        while True:
            for partition, end in list(left.items()):
                if self._consumer.position(partition) >= end:
                    del left[partition]
                    self._consumer.pause(partition)
            if not left:
                return
            found = self._poll()
            if found:
                heard = time.monotonic()
                yield [r for tp, records in found.items() for r in records if r.offset < ends[tp]]
            elif time.monotonic() - heard > _SILENCE_SECONDS:
                raise FatalError(f"Kafka at {self._brokers} does not answer any more")

    def _poll(self) -> dict[TopicPartition, list[ConsumerRecord]]:
        found: dict[TopicPartition, list[ConsumerRecord]] = self._consumer.poll(timeout_ms=_POLL_MS)
        return found


@contextmanager
def reading(settings: Settings, name: str) -> Iterator[TopicReader]:
    """A reader of one topic of the contract. Raises FatalError where it is missing, or no broker answers."""
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=settings.broker_list(),
            client_id="kizuna-cli",
            bootstrap_timeout_ms=BOOTSTRAP_MS,
            allow_auto_create_topics=False,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
    except (KafkaError, OSError, ValueError) as error:
        raise FatalError(f"no Kafka broker answers at {settings.brokers}: {said(error)}") from error
    try:
        topic = settings.topic(name)
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise FatalError(f"topic {topic} is missing (kizuna topics create)")
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        yield TopicReader(consumer, partitions, settings.brokers)
    finally:
        consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)


def json_text(content: bytes | None) -> str:
    """Bytes as one line of JSON: themselves if they are JSON, else text, else `{"base64": …}`."""
    if content is None:
        return "null"
    try:
        check_text(content)
        parse(content)
    except RejectedError:
        return json.dumps(plain(content), ensure_ascii=False)
    # As it was written, numbers and all. In JSON a line break can only stand between tokens.
    return content.decode().replace("\r", " ").replace("\n", " ").strip()


def plain(content: bytes | None) -> Any:
    """Bytes as a value for JSON: text, or `{"base64": …}` where they are no UTF-8; None for none."""
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def headers_of(headers: list[tuple[str, bytes | None]]) -> dict[str, Any]:
    """Headers by name; a name that stands there more than once has the array of its values."""
    found: dict[str, list[Any]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(plain(value))
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def with_value(fields: Mapping[str, Any], value: bytes | None) -> str:
    """The JSON of the fields, on one line, with the record's value as the last one."""
    head = json.dumps(fields, ensure_ascii=False, separators=(", ", ": "))
    return f'{head[:-1]}, "value": {json_text(value)}}}'


def record_line(record: ConsumerRecord) -> str:
    """A record's JSON line."""
    return with_value(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": format_ms(record.timestamp),
            "key": plain(record.key),
            "headers": headers_of(record.headers),
        },
        record.value,
    )


def shown(content: bytes | str | None, most: int = 200) -> str:
    """Text for a terminal: at most so many characters, and none that would steer it."""
    if content is None:
        return "-"
    text = content if isinstance(content, str) else content.decode(errors="backslashreplace")
    cut = text[:most] + ("…" if len(text) > most else "")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


def second(ms: int) -> str:
    """A time to the second, as `--as-of` and `--since` take it."""
    return format_ms(ms)[:19] + "Z"


def lasting(ms: int) -> str:
    """A duration in its two largest units."""
    parts: list[str] = []
    for unit, length in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        count, ms = divmod(ms, length)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
