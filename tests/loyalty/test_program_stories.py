"""The stories of docs/program.md, each replayed by the fold and by the batch computation."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from schemas.money import parse_minor
from schemas.tier_change import TierEvent
from schemas.times import parse_rfc3339
from tests.loyalty.comparison import Pair
from tests.loyalty.worlds import purchase, refund
from tests.schemas.stories import Row, Story, stories


@pytest.mark.parametrize("story", stories(), ids=lambda story: story.name)
def test_what_the_page_says_is_what_happens(story: Story) -> None:
    pair, program, seen = Pair(story.program), story.program, 0
    for number, row in enumerate(story.rows):
        if number:
            pair.take(("sweep", row.at))
        if row.arrival is not None and row.arrival.kind == "program":
            assert story.new_program is not None
            program = story.new_program
            pair.shard.change_program(program, row.at)
            pair.reference.change_program(program, row.at)
            pair.take(("move", "900"))
        elif row.arrival is not None:
            make = purchase if row.arrival.kind == "purchase" else refund
            pair.take(make(row.at, row.arrival.order_id, parse_minor(row.arrival.amount, 2)))
        pair.take(("sweep", row.at + 1))
        customer = pair.shard.customers["900"]
        assert (program.tiers[customer.tier].name, customer.at_risk) == (row.tier, row.at_risk_until)
        bodies = pair.shard.bodies("900")
        check(bodies[seen:], row)
        seen = len(bodies)
    assert seen


def check(bodies: list[TierEvent], row: Row) -> None:
    """The records of one row are those that the page names."""
    assert [short(body) for body in bodies] == [tuple(told)[:6] for told in row.published]
    for body, told in zip(bodies, row.published, strict=True):
        assert parse_rfc3339(body.effective_at) == row.at
        assert told.benefits is None or told.benefits == body.benefits


def short(body: TierEvent) -> tuple[Any, ...]:
    changed = body.kind == "changed"
    until, needed = body.at_risk_until, body.needed
    return (
        body.kind,
        body.reason,
        body.previous_tier if changed else None,
        body.tier if changed else None,
        None if isinstance(until, msgspec.UnsetType) else parse_rfc3339(until),
        None if isinstance(needed, msgspec.UnsetType) else (needed.monetary, needed.frequency),
    )
