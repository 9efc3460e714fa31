"""Records that could not be used: the headers that say why, and how they are made to fit and sent back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from schemas.rejection import Reason
from schemas.reroute import REROUTED_HEADER

Headers = list[tuple[str, bytes | None]]

DLQ_PREFIX = "dlq-"
REASON_HEADER = "dlq-reason"
DETAIL_HEADER = "dlq-detail"
TOPIC_HEADER = "dlq-topic"
PARTITION_HEADER = "dlq-partition"
OFFSET_HEADER = "dlq-offset"
TIMESTAMP_HEADER = "dlq-timestamp"
DLQ_HEADERS = (REASON_HEADER, DETAIL_HEADER, TOPIC_HEADER, PARTITION_HEADER, OFFSET_HEADER, TIMESTAMP_HEADER)

KEPT = 64 * 1024
"""Bytes kept of the value of a record that the dead-letter topic cannot take, and of its key, and its
headers.
"""

# Upper bounds for Kafka's record format v2: the batch's header (61), and for the record and each header the
# lengths and deltas as varints of the greatest length.
_BATCH_OVERHEAD = 61 + 5 + 1 + 10 + 5 + 5 + 5 + 5
_HEADER_OVERHEAD = 5 + 5


def dead_letter_headers(
    original_headers: Sequence[tuple[str, bytes | None]],
    reason: Reason,
    detail: str,
    topic: str,
    partition: int,
    offset: int,
    timestamp: int,
) -> Headers:
    """A dead letter's headers: the original ones as they were, then the six of ours, in a fixed order.

    ``timestamp`` is the record's own, in epoch milliseconds. Where an original one bears a name of ours, both
    are there, and ours is the last.
    """
    return [
        *original_headers,
        (REASON_HEADER, reason.value.encode()),
        (DETAIL_HEADER, detail.encode("utf-8", "backslashreplace")),
        (TOPIC_HEADER, topic.encode()),
        (PARTITION_HEADER, str(partition).encode()),
        (OFFSET_HEADER, str(offset).encode()),
        (TIMESTAMP_HEADER, str(timestamp).encode()),
    ]


def record_size(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> int:
    """At most how many bytes a record takes as a batch of its own, which is what ``max.message.bytes``
    bounds.

    Source: Apache Kafka, "Record Batch" and "Record" in the protocol's message format, version 2.
    """
    return _BATCH_OVERHEAD + len(key or b"") + len(value or b"") + _headers_size(headers)


def fit(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]], limit: int
) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers of a dead letter, cut where a topic of ``max.message.bytes = limit`` needs it.

    ``headers`` are those of ``dead_letter_headers``. A record that fits is left alone. Of one that does not,
    the value keeps its first 64 KiB, the key its first 64 KiB, and of the original headers the first ones
    that together take 64 KiB; ``dlq-detail`` then tells the length and SHA-256 of each part that was cut.
    Where the limit is too small even for that, headers go first, then the key, then the value.

    Raises ``ValueError`` where the limit has no room for our own headers.
    """
    kept = list(headers)
    if record_size(key, value, kept) <= limit:
        return key, value, kept
    split = max(len(kept) - len(DLQ_HEADERS), 0)
    originals, ours = kept[:split], kept[split:]
    # Which parts are cut depends on the room, and the room on what the detail says of the parts: the longest
    # detail is set aside, the shorter one then fits too.
    longest = _with_detail(
        ours, [_told("value", value or b""), _told("key", key or b""), _told_headers(originals)]
    )
    room = limit - record_size(None, None, longest)
    if room < 0:
        raise ValueError(
            f"limit: expected room for the headers of a dead letter, at least {limit - room} bytes"
        )
    told = []
    cut_value = None if value is None else value[: min(KEPT, room)]
    if cut_value is not None and value is not None:
        room -= len(cut_value)
        if len(cut_value) < len(value):
            told.append(_told("value", value))
    cut_key = None if key is None else key[: min(KEPT, room)]
    if cut_key is not None and key is not None:
        room -= len(cut_key)
        if len(cut_key) < len(key):
            told.append(_told("key", key))
    cut_originals = _first_headers(originals, min(KEPT, room))
    if len(cut_originals) < len(originals):
        told.append(_told_headers(originals))
    return cut_key, cut_value, [*cut_originals, *_with_detail(ours, told)]


def strip_for_replay(headers: Sequence[tuple[str, bytes | None]]) -> Headers:
    """The headers with which a dead letter goes back to its topic: without ours, and the reroute's mark."""
    return [
        (name, value)
        for name, value in headers
        if not name.startswith(DLQ_PREFIX) and name != REROUTED_HEADER
    ]


def _headers_size(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum(
        _HEADER_OVERHEAD + len(name.encode("utf-8", "replace")) + len(value or b"") for name, value in headers
    )


def _first_headers(headers: Headers, room: int) -> Headers:
    """The first headers that together take no more than ``room``; half a header would be another one."""
    kept: Headers = []
    for header in headers:
        room -= _headers_size([header])
        if room < 0:
            break
        kept.append(header)
    return kept


def _told(part: str, content: bytes) -> str:
    return f"{part} of {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}"


def _told_headers(headers: Headers) -> str:
    """Told as if their names and values stood one behind the other."""
    content = b"".join(name.encode("utf-8", "replace") + (value or b"") for name, value in headers)
    return _told("headers", content)


def _with_detail(ours: Headers, told: list[str]) -> Headers:
    suffix = f"; cut: {'; '.join(told)}".encode()
    return [(name, (value or b"") + suffix if name == DETAIL_HEADER else value) for name, value in ours]
