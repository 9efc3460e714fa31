"""The number by which an event is known."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

# Copied for each: to make one with a size of its own takes longer than to hash.
_EMPTY: Final = blake2b(digest_size=8)


def event_key(source: str, event_id: str) -> int:
    """An unsigned 64-bit number for the pair: BLAKE2b of its text, the source's length first, so that no two
    pairs have one text. Source: RFC 7693."""
    text = f"{len(source)}:{source}{event_id}"
    made = _EMPTY.copy()
    made.update(text.encode())
    return int.from_bytes(made.digest())
