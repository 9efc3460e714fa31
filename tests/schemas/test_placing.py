"""Where a customer lives must be where Kafka's own clients put it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner import murmur2

from schemas.murmur2 import home
from schemas.placing import place_of


@given(st.text(max_size=40), st.integers(1, 200))
def test_a_key_lives_where_kafkas_default_partitioner_puts_it(customer_id: str, partitions: int) -> None:
    # As its DefaultPartitioner has it, which wants a cluster's metadata besides.
    expected = (murmur2(customer_id.encode()) & 0x7FFFFFFF) % partitions
    assert home(customer_id.encode(), partitions) == expected
    assert place_of(customer_id, partitions) == (customer_id.encode(), expected)


@pytest.mark.parametrize(
    ("key", "partition"),
    # Of Kafka's own test of its murmur2 (UtilsTest): the hash, then the sign taken off, over 12.
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_a_key_lives_where_kafkas_own_test_says(key: bytes, partition: int) -> None:
    assert home(key, 12) == (partition & 0x7FFFFFFF) % 12
