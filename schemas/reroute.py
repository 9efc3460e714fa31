"""The mark on a record that stood in the wrong place and was sent on, once, to its customer's partition."""

from __future__ import annotations

from collections.abc import Sequence

REROUTED_HEADER = "loyalty-rerouted"


def is_rerouted(headers: Sequence[tuple[str, bytes | None]]) -> bool:
    """Whether the record was sent on before: if it is wrong still, it is a dead letter."""
    return any(name == REROUTED_HEADER for name, _ in headers)


def rerouted_headers(headers: Sequence[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
    """The headers with which a misplaced record is sent on: its own, unchanged, and the mark."""
    return [*headers, (REROUTED_HEADER, b"1")]
