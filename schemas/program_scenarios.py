"""The program file's ``[[scenarios]]``: when to say what to whom, one to one. The rules: docs/bonds.md."""

from __future__ import annotations

import re
from typing import NamedTuple, cast, get_args

from schemas.program_bonds import Goal, Scenario, Segment, Step, When
from schemas.program_table import (
    LONGEST,
    LONGEST_NAME,
    LONGEST_TEXT,
    Table,
    money,
    refuse,
    share,
    whole,
)
from schemas.program_tiers import Tier
from schemas.times import DAY

OWN_KEYS: dict[When, tuple[str, ...]] = {
    "segment": ("segment",),
    "first_order": ("after",),
    "last_order": ("after",),
    "near_tier": ("amount", "orders"),
    "tier_at_risk": (),
    "subscription_renewal": ("before",),
    "subscription_cancelled": (),
    "benefit_unused": ("benefit", "after"),
}
"""The keys that a condition asks for, and that no other may have."""

_OWN = ("segment", "after", "amount", "orders", "before", "benefit")
SCENARIO_KEYS = ("name", "when", *_OWN, "cool_down", "patience", "goal", "holdout", "steps")
STEP_KEYS = ("wait", "channel", "content")

_MOST_SCENARIOS = 64
_MOST_STEPS = 16
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NAME_ALLOWED = "1 to 64 letters (A-Z, a-z), digits, dots, underscores or dashes"
_WHEN_ALLOWED = f"one of {', '.join(OWN_KEYS)}"


class Known(NamedTuple):
    """What the rest of the file says: the currency's decimals, the program's window in milliseconds, its segments and
    tiers, and whether it has a ``[holdout]``."""

    decimals: int
    window: int
    segments: tuple[Segment, ...]
    tiers: tuple[Tier, ...]
    holdout: bool


def read_scenarios(file: Table, known: Known) -> tuple[Scenario, ...]:
    """The file's scenarios in its order. Raises ``ProgramError``."""
    scenarios: list[Scenario] = []
    for table in file.tables("scenarios", SCENARIO_KEYS, _MOST_SCENARIOS):
        scenario = _scenario(table, known)
        if any(scenario.name == earlier.name for earlier in scenarios):
            refuse(table.at("name"), "expected a name that no scenario before it has")
        scenarios.append(scenario)
    return tuple(scenarios)


def _scenario(table: Table, known: Known) -> Scenario:
    name = table.text("name", _NAME_ALLOWED)
    if not _NAME.fullmatch(name):
        refuse(table.at("name"), f"expected {_NAME_ALLOWED}")
    when = _when(table)
    plain = Scenario("", when, ())
    holdout = 0
    if "holdout" in table:
        if not known.holdout:
            refuse(table.at("holdout"), "not allowed without a table [holdout], which has the salt")
        holdout = share(table.at("holdout"), table.values["holdout"])
    amount, orders = _lacking(table, when, known.decimals)
    return Scenario(
        name,
        when,
        _steps(table),
        segment=_segment(table, known.segments) if when == "segment" else "",
        after=_after(table, when, known.window),
        amount=amount,
        orders=orders,
        before=table.duration("before", most=LONGEST) if when == "subscription_renewal" else 0,
        benefit=_benefit(table, known.tiers) if when == "benefit_unused" else "",
        cool_down=table.duration("cool_down", f"{plain.cool_down // DAY}d", most=LONGEST),
        patience=table.duration("patience", f"{plain.patience // DAY}d", most=LONGEST),
        goal=cast("Goal", table.choice("goal", get_args(Goal))),
        holdout=holdout,
    )


def _when(table: Table) -> When:
    when = cast("When", table.text("when", _WHEN_ALLOWED))
    if when not in OWN_KEYS:
        refuse(table.at("when"), f"expected {_WHEN_ALLOWED}")
    for key in _OWN:
        if key in table and key not in OWN_KEYS[when]:
            owners = " or ".join(f'"{owner}"' for owner, keys in OWN_KEYS.items() if key in keys)
            refuse(table.at(key), f"not allowed here: only where when is {owners}")
    return when


def _segment(table: Table, segments: tuple[Segment, ...]) -> str:
    names = ", ".join(segment.name for segment in segments)
    allowed = f"the name of a segment: {names}" if names else "a program with [[segments]] or [attachment]"
    name = table.text("segment", allowed)
    if name not in {segment.name for segment in segments}:
        refuse(table.at("segment"), f"expected {allowed}")
    return name


def _after(table: Table, when: When, window: int) -> int:
    if when not in {"first_order", "last_order", "benefit_unused"}:
        return 0
    after = table.duration("after", "0s" if when == "benefit_unused" else None, most=LONGEST)
    if when == "last_order" and after >= window:
        # By then the order no longer counts, and the condition is not true.
        refuse(table.at("after"), "expected a duration shorter than program.window")
    return after


def _lacking(table: Table, when: When, decimals: int) -> tuple[int, int]:
    """``(amount, orders)`` that the next tier may lack."""
    if when != "near_tier":
        return 0, 0
    if "amount" not in table and "orders" not in table:
        refuse(table.path, "expected at least one of amount, orders")
    amount = money(table.at("amount"), table.values["amount"], decimals) if "amount" in table else 0
    orders = whole(table.at("orders"), table.values["orders"]) if "orders" in table else 0
    return amount, orders


def _benefit(table: Table, tiers: tuple[Tier, ...]) -> str:
    allowed = "a benefit that some tier has"
    benefit = table.text("benefit", allowed)
    if not any(benefit in tier.benefits for tier in tiers):
        refuse(table.at("benefit"), f"expected {allowed}")
    return benefit


def _steps(table: Table) -> tuple[Step, ...]:
    return tuple(
        Step(
            entry.name("channel", LONGEST_NAME),
            entry.name("content", LONGEST_TEXT),
            entry.duration("wait", "0s", most=LONGEST),
        )
        for entry in table.tables("steps", STEP_KEYS, _MOST_STEPS, least=1)
    )
