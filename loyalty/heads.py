"""The shapes of a customer's bytes, and their reading and writing; ``loyalty.packing`` says what goes into them. See
docs/adr/0002-customer-state.md.

Every head and page starts with one byte, the format's version, and goes on as MessagePack. Within a version,
fields may be added at the end of the structs with a default (a reader fills in what is missing); whatever an
older worker must not overlook takes a new version, which the older one refuses.
"""

from __future__ import annotations

from typing import Any

import msgspec

from loyalty.beneath import Override, Protection, Since
from loyalty.bond import Bond
from loyalty.entries import Entry, entries
from loyalty.rows import Row

FORMAT = 2
TAG = bytes([FORMAT])
"""The first byte of what is written."""

# Format 1 is the same without what stands beneath the tier; it is read, and written as 2.
_READABLE = (1, FORMAT)


class PackedStateError(ValueError):
    """Bytes that are no customer of this version's: written by another one, incomplete, or damaged."""


class Packed(msgspec.Struct, frozen=True):
    """A customer's bytes: the head, the sealed pages that changed, and the numbers of those that are no more.

    A dropped page may never have been written.
    """

    head: bytes
    written: dict[int, bytes]
    dropped: list[int]


class PackedBeneath(msgspec.Struct, array_like=True, gc=False):
    """What only some customers have; see ``Customer``. ``commands`` are keys and times, one after another."""

    earned: int
    grace: int | None
    at_risk: int | None
    override: Override | None
    protection: Protection | None
    since: Since | None
    commands: list[int]


class Head(msgspec.Struct, array_like=True, gc=False):
    """``sealed`` holds the numbers of sealed pages as runs: first, one after the last, first, … ``beneath`` is
    None where the tier is the earned one and nothing else is to be said."""

    tier: int
    tier_seq: int
    time: int | None
    lifetime_orders: int
    lifetime_monetary: int
    channels: list[str]
    sealed: list[int]
    number: int
    open: msgspec.Raw
    generation: int = 0
    beneath: PackedBeneath | None = None
    bond: Bond | None = None
    actions: list[str] = []


_encoder = msgspec.msgpack.Encoder()
# Not strict, as sums beyond 64 bits, which MessagePack has no integers for, are written as text.
_heads = msgspec.msgpack.Decoder(Head, strict=False)
_pages = msgspec.msgpack.Decoder(list[Row], strict=False)


def write(value: Any) -> bytes:
    """MessagePack of whatever belongs into a head or a page."""
    try:
        return _encoder.encode(value)
    except OverflowError:
        parts = [msgspec.msgpack.decode(part) if isinstance(part, msgspec.Raw) else part for part in value]
        return _encoder.encode(_long_as_text(msgspec.to_builtins(parts)))


def _long_as_text(value: Any) -> Any:
    """The same, with integers beyond 64 bits as text."""
    if isinstance(value, (list, tuple)):
        return [_long_as_text(item) for item in value]
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return str(value)
    return value


def _checked(content: bytes) -> memoryview:
    if not content or content[0] not in _READABLE:
        version = content[0] if content else "none"
        raise PackedStateError(f"state of format version {version}, and this worker reads up to {FORMAT}")
    return memoryview(content)[1:]


def read_head(head: bytes) -> Head:
    """A head, read. Raises ``PackedStateError``."""
    try:
        return _heads.decode(_checked(head))
    except msgspec.MsgspecError as error:
        raise PackedStateError(f"a head that cannot be read: {error}") from error


def read_page(page: bytes) -> list[Entry]:
    """The entries of a sealed page. Raises ``PackedStateError``."""
    return read_entries(_checked(page))


def read_entries(content: bytes | memoryview) -> list[Entry]:
    """The entries of an open page, as they stand in a head. Raises ``PackedStateError``."""
    try:
        return entries(_pages.decode(content))
    except msgspec.MsgspecError as error:
        raise PackedStateError(f"a page that cannot be read: {error}") from error
