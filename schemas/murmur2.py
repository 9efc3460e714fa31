"""Where Kafka's own clients put a key: MurmurHash2, as its Java client has it.

aiokafka has the same in plain Python, some 5 µs for a key of 16 bytes. This one is compiled, with integers of the
processor's own, and takes a fiftieth: less than to remember what came of it.
"""

from __future__ import annotations

from mypy_extensions import i64

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def home(key: bytes, partitions: int) -> int:
    """Partition of a key: ``(murmur2(key) & 0x7fffffff) % partitions``. Source: ``Utils.murmur2`` and
    ``BuiltInPartitioner`` of Apache Kafka."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(key: bytes) -> int:
    """MurmurHash2 of 32 bits, unsigned, with Kafka's seed."""
    # No product is larger than 63 bits: 32 of the hash, 31 of the multiplier.
    m: i64 = _M
    mask: i64 = _MASK
    length: i64 = len(key)
    h: i64 = _SEED ^ length
    at: i64 = 0
    while length - at >= 4:
        k = _byte(key, at) | _byte(key, at + 1) << 8 | _byte(key, at + 2) << 16 | _byte(key, at + 3) << 24
        k = k * m & mask
        h = (h * m & mask) ^ ((k ^ (k >> 24)) * m & mask)
        at += 4
    left = length - at
    if left == 3:
        h ^= _byte(key, at + 2) << 16
    if left >= 2:
        h ^= _byte(key, at + 1) << 8
    if left >= 1:
        h = (h ^ _byte(key, at)) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def _byte(key: bytes, at: i64) -> i64:
    return key[at]
