"""What the stories about bonds are told with. Each is told to the fold and to the batch computation, which must agree
after every step."""

from __future__ import annotations

from typing import Any

from schemas.bond_records import AttributionEvent, SegmentEvent, TriggerEvent
from schemas.program import Program
from schemas.program_bonds import (
    Attribution,
    Bonds,
    Scenario,
    Segment,
    Step,
)
from schemas.times import parse_rfc3339
from tests.loyalty.bond_comparison import BondPair
from tests.loyalty.worlds import DAY, START, program, touch

HOUR = DAY // 24
T0 = START
REST = Segment("rest")


WELCOME = Scenario("welcome", "first_order", (Step("email", "hello"),), cool_down=0, goal="none")
WELCOME_ID = "grocery:trigger/900/welcome/1/1"


O2O = Attribution(window=2 * DAY, campaign_window=10 * DAY)


def bonded(**sections: Any) -> Program:
    """The contract's example with these sections; segments with no tests unless given."""
    return program(bonds=Bonds(**{"segments": (REST,), **sections}))


def pair(*steps: Any, **sections: Any) -> BondPair:
    """Both computations, after these steps."""
    both = BondPair(bonded(**sections))
    for step in steps:
        both.take(step)
    return both


def attachment(both: BondPair, at: int) -> int:
    """As of an instant, by both."""
    line, (expected,) = both.shard.line("900", at), both.reference.lines(at)
    assert line == expected
    return int(line["attachment"])


def segments(both: BondPair) -> list[tuple[str | None, str, str, int]]:
    """The changes: from, to, reason, and milliseconds after T0."""
    return [
        (record.previous_segment, record.segment, record.reason, parse_rfc3339(record.effective_at) - T0)
        for record in both.shard.records("900")
        if isinstance(record, SegmentEvent)
    ]


def triggers(both: BondPair) -> list[tuple[str | None, int, int, str, int]]:
    """Scenario, run, step, status, and milliseconds after T0."""
    return [
        (record.scenario, record.run, record.step, record.status, parse_rfc3339(record.effective_at) - T0)
        for record in both.shard.records("900")
        if isinstance(record, TriggerEvent)
    ]


def attributions(both: BondPair) -> list[AttributionEvent]:
    return [record for record in both.shard.records("900") if isinstance(record, AttributionEvent)]


def sweep(days: float) -> tuple[str, int]:
    return "sweep", T0 + int(days * DAY)


def asked(
    both: BondPair, at: int, channel: str = "email", action: str | None = None
) -> tuple[str, int | None]:
    """The permission by both: decision, and milliseconds after T0 to which it is deferred."""
    theirs = both.reference.customers["900"].permission(channel, action, at)
    ours = both.shard.rules.permission(both.shard.customers["900"], channel, action, at)
    assert (ours.decision, ours.until, ours.reason) == theirs
    return ours.decision, None if ours.until is None else ours.until - T0


def sent(at: int, channel: str = "email", **given: Any) -> Any:
    return touch(at, channel, "outbound", action="send", **given)


def brought(both: BondPair) -> list[tuple[str, int, str | None, str | None, int | None, str | None]]:
    """Status, revision, touch, match, lag in seconds, amount."""
    return [
        (r.status, r.revision, r.touch and r.touch.event_id, r.match, r.lag_seconds, r.amount)
        for r in attributions(both)
    ]
