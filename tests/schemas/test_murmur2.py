"""Keys are placed as Kafka's own clients place them."""

from aiokafka.partitioner import murmur2 as of_aiokafka
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.murmur2 import home, murmur2


@given(st.binary(max_size=70))
@example(b"")
@example(b"\xff" * 7)
def test_a_key_has_the_hash_that_another_client_gives_it(key: bytes) -> None:
    assert murmur2(key) == of_aiokafka(key) & 0xFFFFFFFF


def test_a_hash_with_its_highest_bit_set_has_a_partition_all_the_same() -> None:
    key = next(key for n in range(100) if murmur2(key := b"%d" % n) >= 1 << 31)
    assert home(key, 12) == (murmur2(key) & 0x7FFFFFFF) % 12
