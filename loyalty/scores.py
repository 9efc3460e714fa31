"""RFM scores: 1 to 5 by a program's cut points."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from schemas.program import Scores


def score(scores: Scores, recency: int | None, frequency: int, monetary: int) -> tuple[int, int, int]:
    """``(r, f, m)``: ``recency`` in milliseconds, None where no order counts, and then all three are 0.

    Recency at or below its first cut point scores 5; frequency and monetary at or above their last.
    """
    if recency is None:
        return 0, 0, 0
    return (
        5 - bisect_left(scores.recency, recency),
        1 + bisect_right(scores.frequency, frequency),
        1 + bisect_right(scores.monetary, monetary),
    )
