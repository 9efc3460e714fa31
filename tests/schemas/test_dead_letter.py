"""Dead letters: their headers, how they are cut to fit, and how they go back."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.dead_letter import DLQ_HEADERS, KEPT, dead_letter_headers, fit, record_size, strip_for_replay
from schemas.rejection import Reason, RejectedError
from schemas.reroute import REROUTED_HEADER, is_rerouted, rerouted_headers

LIMIT = 1024 * 1024 + KEPT
Pair = tuple[str, bytes | None]


def letter(*original: Pair) -> list[Pair]:
    detail = "amount: expected at most 2 decimals"
    return dead_letter_headers(
        original, Reason.INVALID_EVENT, detail, "loyalty.purchases", 3, 42, 1_491_134_010_000
    )


def test_the_headers_are_the_original_ones_and_then_ours() -> None:
    assert letter(("trace", b"1"), ("empty", None)) == [
        ("trace", b"1"),
        ("empty", None),
        ("dlq-reason", b"invalid_event"),
        ("dlq-detail", b"amount: expected at most 2 decimals"),
        ("dlq-topic", b"loyalty.purchases"),
        ("dlq-partition", b"3"),
        ("dlq-offset", b"42"),
        ("dlq-timestamp", b"1491134010000"),
    ]


def test_a_record_that_fits_is_left_alone() -> None:
    headers = letter(("trace", b"1"))
    assert fit(b"900", b"x" * 1_000_000, headers, LIMIT) == (b"900", b"x" * 1_000_000, headers)
    assert fit(None, None, headers, LIMIT) == (None, None, headers)


def test_a_value_that_does_not_fit_keeps_its_first_64_kib_and_its_length_and_hash_are_told() -> None:
    value = bytes(range(256)) * 8192
    key, cut, headers = fit(b"900", value, letter(("trace", b"1")), LIMIT)
    assert (key, cut) == (b"900", value[:KEPT])
    assert headers[0] == ("trace", b"1")
    told = dict(headers)["dlq-detail"] or b""
    assert told.startswith(b"amount: expected at most 2 decimals; cut: value of 2097152 bytes, SHA-256 ")
    assert told.endswith(hashlib.sha256(value).hexdigest().encode())


def test_an_oversized_key_and_headers_are_cut_and_told_too() -> None:
    key, value, headers = fit(
        b"k" * 2**20, b"small", letter(("a", b"1"), ("big", b"x" * 2**20), ("b", b"2")), LIMIT
    )
    assert (key, value) == (b"k" * KEPT, b"small")
    assert [name for name, _ in headers] == ["a", *DLQ_HEADERS]
    told = (dict(headers)["dlq-detail"] or b"").decode()
    assert f"key of {2**20} bytes, SHA-256 {hashlib.sha256(b'k' * 2**20).hexdigest()}" in told
    assert "headers of" in told
    assert "value of" not in told


pairs = st.tuples(st.text(max_size=5), st.none() | st.integers(0, 3 * KEPT).map(lambda n: b"h" * n))
sizes = st.none() | st.integers(0, 4 * KEPT).map(lambda n: b"x" * n)


@settings(deadline=None)
@given(sizes, sizes, st.lists(pairs, max_size=4), st.integers(1000, 3 * KEPT))
def test_what_comes_out_fits_and_is_a_beginning_of_what_went_in(
    key: bytes | None, value: bytes | None, original: list[Pair], limit: int
) -> None:
    headers = letter(*original)
    new_key, new_value, new_headers = fit(key, value, headers, limit)
    assert record_size(new_key, new_value, new_headers) <= limit
    assert [name for name, _ in new_headers[-6:]] == list(DLQ_HEADERS)
    assert new_headers[:-6] == original[: len(new_headers) - 6]
    for before, after in ((key, new_key), (value, new_value)):
        assert (before is None) == (after is None)
        assert (before or b"").startswith(after or b"")
    changed = (new_key, new_value, new_headers[:-6]) != (key, value, original)
    assert changed == (b"; cut: " in (dict(new_headers)["dlq-detail"] or b""))


def test_a_limit_without_room_for_our_own_headers_is_refused() -> None:
    with pytest.raises(ValueError, match="limit: expected room"):
        fit(b"900", b"x" * 1000, letter(), 300)


def test_a_replayed_record_has_neither_our_headers_nor_the_mark_of_a_reroute() -> None:
    original: list[Pair] = [("trace", b"1"), ("ce_id", None)]
    assert strip_for_replay(letter(*rerouted_headers(original))) == original


def test_a_rerouted_record_is_known_by_its_mark() -> None:
    assert rerouted_headers([("a", None)]) == [("a", None), (REROUTED_HEADER, b"1")]
    assert is_rerouted(rerouted_headers([]))
    assert not is_rerouted([("a", b"1")])


def test_a_rejection_says_its_reason_and_detail() -> None:
    error = RejectedError(Reason.NOT_JSON, "value: expected JSON")
    assert str(error) == "not_json: value: expected JSON"
    assert [reason.value for reason in Reason] == [
        *("too_large", "not_json", "invalid_event", "unsupported_currency"),
        *("future_event", "misrouted", "too_late"),
    ]
