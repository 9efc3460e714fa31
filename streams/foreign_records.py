"""Records as any client may write them: aiokafka refuses a header whose name is not UTF-8, and would do so for ever.

Kafka itself does not look at names of headers, and clients in C or Go send what they are given. Such a name is read
with its bytes escaped, like any header that nobody knows; the event counts.
"""

import struct
from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

#: Kafka's record batch: the length, which counts what is behind it, and the format's version.
_LENGTH = struct.Struct(">8xi")
_VERSION = struct.Struct(">16xb")
_NEWEST_VERSION = 2


class _Escaping(bytearray):
    """Bytes that are always text."""

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        return _Escaping(found) if isinstance(at, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """What is not in the encoding is escaped."""
        return super().decode(encoding, "backslashreplace")


class _ForeignBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # it has no types
    """A batch, read by aiokafka's slower reader, with names of headers as they come."""

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer: Any
        self._buffer = _Escaping(self._buffer)


class _Batch:
    """One of aiokafka's batches, with the bytes it was read from."""

    def __init__(self, batch: Any, raw: memoryview) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except (UnicodeDecodeError, CorruptRecordException):
            if _VERSION.unpack_from(self._raw)[0] != _NEWEST_VERSION:
                raise
            # Truly corrupt records are refused here, too.
            return iter(list(_ForeignBatch(self._raw)))


class ForeignRecords:
    """In the place of aiokafka's MemoryRecords: what came of a partition in one answer."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._records: Any = MemoryRecords(data)

    def size_in_bytes(self) -> int:
        """How many bytes there are."""
        return int(self._records.size_in_bytes())

    def has_next(self) -> bool:
        """Whether another whole batch is there."""
        return bool(self._records.has_next())

    def next_batch(self) -> _Batch:
        """The next batch. Raises aiokafka's CorruptRecordException."""
        start = self._at
        self._at = end = start + _LENGTH.size + _LENGTH.unpack_from(self._data, start)[0]
        return _Batch(self._records.next_batch(), self._data[start:end])


class _AsTheyAre(fetcher.PartitionRecords):  # type: ignore[misc]  # it has no types
    """Records as they were read: aiokafka copies each into another object, which costs more than reading it."""

    def _consumer_record(self, tp: object, record: Any) -> Any:
        return record


def accept_foreign_records() -> None:
    """Let all of aiokafka's consumers in this process read such records, and give them out as they are: with key,
    value, headers, offset and timestamp."""
    fetcher.MemoryRecords = ForeignRecords
    fetcher.PartitionRecords = _AsTheyAre
