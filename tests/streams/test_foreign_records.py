"""Headers whose names are not UTF-8 do not stop the reading of their partition."""

from typing import Any

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords

from streams.foreign_records import ForeignRecords


class Latin1(str):
    """A name of a header that a careless client sends."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return super().encode("latin-1")


def batch(base: int, names: list[str], compression: int = 0) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(
        magic=2,
        compression_type=compression,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 20,
    )
    for offset, name in enumerate(names):
        builder.append(
            offset=offset, timestamp=7, key=b"k%d" % offset, value=b"v%d" % offset, headers=[(name, b"x")]
        )
    data = builder.build()
    data[0:8] = base.to_bytes(8, "big")  # the broker's part; no checksum covers it
    return bytes(data)


def read(data: bytes) -> list[tuple[int, bytes | None, list[Any]]]:
    records = ForeignRecords(data)
    found = []
    while records.has_next():
        next_batch = records.next_batch()
        assert next_batch.validate_crc()
        assert next_batch.next_offset > next_batch.base_offset
        found += [(record.offset, record.value, list(record.headers)) for record in next_batch]
    return found


@pytest.mark.parametrize("compression", [0, 1, 2, 3, 4], ids=["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_name_that_is_not_utf_8_is_escaped_and_its_neighbours_are_read(compression: int) -> None:
    data = (
        batch(10, ["a", "b"], compression)
        + batch(12, ["c", Latin1("café"), "d"], compression)
        + batch(15, ["e"], compression)
    )
    with pytest.raises((UnicodeDecodeError, CorruptRecordException)):
        read_by_aiokafka(data)
    assert [(offset, headers[0][0]) for offset, _, headers in read(data)] == [
        *((10, "a"), (11, "b"), (12, "c"), (13, "caf\\xe9"), (14, "d"), (15, "e"))
    ]
    assert read(data)[3] == (13, b"v1", [("caf\\xe9", b"x")])


def read_by_aiokafka(data: bytes) -> list[Any]:
    records = MemoryRecords(data)
    found = []
    while records.has_next():
        found += list(records.next_batch() or ())
    return found


def test_what_is_corrupt_is_still_refused() -> None:
    data = bytearray(batch(0, [Latin1("café")]))
    data[-1] ^= 0xFF
    broken = bytes(data[:-6]) + b"\xff" * 6
    records = ForeignRecords(broken)
    next_batch = records.next_batch()
    assert not next_batch.validate_crc()
    with pytest.raises((CorruptRecordException, UnicodeDecodeError, IndexError)):
        list(next_batch)


def test_a_usual_batch_is_read_by_the_quick_reader() -> None:
    assert DefaultRecordBatchBuilder is not _DefaultRecordBatchBuilderPy
    [first] = read(batch(0, ["a"]))
    assert first == (0, b"v0", [("a", b"x")])
