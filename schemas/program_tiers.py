"""The program file's tiers: what it takes to enter and to stay, and how one falls. The rules: docs/tiers.md."""

from __future__ import annotations

from typing import Literal, cast, get_args

import msgspec

from schemas.program_table import LONGEST, Table, money, refuse, whole
from schemas.times import DAY

Downgrade = Literal["requalify", "one_down", "base"]
RefundPolicy = Literal["reverse", "grace"]

_ENTER_KEYS = ("min_monetary", "min_frequency", "max_recency")
_STAY_KEYS = ("retain_monetary", "retain_frequency", "grace_period", "downgrade", "refund_policy")
TIER_KEYS = ("name", *_ENTER_KEYS, *_STAY_KEYS, "benefits")

_LONGEST_BENEFIT = 256


class Tier(msgspec.Struct, frozen=True):
    """One tier and what it takes. A threshold of 0, or a ``max_recency`` of None, asks for nothing.

    ``min_monetary`` is in minor units of the program's currency, ``max_recency`` and ``grace_period`` are in
    milliseconds: the tier holds while recency is below the first, and is kept for the second once it does not.
    ``retain_monetary`` and ``retain_frequency`` are what it takes to stay; None stands for the same as to enter.
    """

    name: str
    min_monetary: int = 0
    min_frequency: int = 0
    max_recency: int | None = None
    retain_monetary: int | None = None
    retain_frequency: int | None = None
    grace_period: int = 0
    downgrade: Downgrade = "requalify"
    refund_policy: RefundPolicy = "reverse"
    benefits: tuple[str, ...] = ()

    @property
    def stays_at(self) -> tuple[int, int]:
        """``(monetary, frequency)`` that it takes to be retained."""
        return (
            self.min_monetary if self.retain_monetary is None else self.retain_monetary,
            self.min_frequency if self.retain_frequency is None else self.retain_frequency,
        )


def read_tiers(file: Table, decimals: int, window: int) -> tuple[Tier, ...]:
    """The file's tiers, from the lowest up. Raises ``ProgramError``."""
    entries = file.get("tiers", "one [[tiers]] or more, the lowest first")
    if not isinstance(entries, list) or not entries:
        refuse("tiers", "expected one [[tiers]] or more, the lowest first")
    tiers: list[Tier] = []
    for index, entry in enumerate(entries):
        table = Table(f"tiers[{index}]", entry, TIER_KEYS)
        if not tiers:
            _check_first(table)
        tier = _tier(table, decimals, window)
        if any(tier.name == lower.name for lower in tiers):
            refuse(table.at("name"), "expected a name that no tier before it has")
        if tiers:
            if not any(key in table for key in _ENTER_KEYS):
                refuse(table.path, f"expected at least one of {', '.join(_ENTER_KEYS)}")
            _check_strictness(table, tier, tiers[-1])
        tiers.append(tier)
    return tuple(tiers)


def _tier(table: Table, decimals: int, window: int) -> Tier:
    name = table.text("name", "a name of 1 to 64 characters")
    if not 1 <= len(name) <= 64:
        refuse(table.at("name"), "expected 1 to 64 characters")
    min_monetary = min_frequency = 0
    max_recency = retain_monetary = retain_frequency = None
    if "min_monetary" in table:
        min_monetary = money(table.at("min_monetary"), table.values["min_monetary"], decimals)
    if "min_frequency" in table:
        min_frequency = whole(table.at("min_frequency"), table.values["min_frequency"])
    if "max_recency" in table:
        max_recency = table.duration("max_recency", least=1)
        if max_recency >= window:
            refuse(table.at("max_recency"), "expected a duration shorter than program.window")
    if "retain_monetary" in table:
        value = money(table.at("retain_monetary"), table.values["retain_monetary"], decimals, least=0)
        retain_monetary = _to_stay(table, "monetary", value, min_monetary)
    if "retain_frequency" in table:
        value = whole(table.at("retain_frequency"), table.values["retain_frequency"], least=0)
        retain_frequency = _to_stay(table, "frequency", value, min_frequency)
    grace_period = table.duration("grace_period", "0s", most=LONGEST)
    downgrade = cast("Downgrade", table.choice("downgrade", get_args(Downgrade)))
    if downgrade == "one_down" and window > LONGEST:
        # A tier that is fallen to so may be kept for a whole window.
        refuse(
            table.at("downgrade"),
            f"one_down is not allowed where program.window is above {LONGEST // DAY}d",
        )
    return Tier(
        name,
        min_monetary,
        min_frequency,
        max_recency,
        retain_monetary,
        retain_frequency,
        grace_period,
        downgrade,
        cast("RefundPolicy", table.choice("refund_policy", get_args(RefundPolicy))),
        table.texts("benefits", _LONGEST_BENEFIT),
    )


def _to_stay(table: Table, what: str, value: int, to_enter: int) -> int | None:
    """A threshold to be retained, or None for the same as to enter: a default spelt out is no other tier."""
    key = f"retain_{what}"
    if f"min_{what}" not in table:
        refuse(
            table.at(key), f"not allowed without min_{what}: who need not have it to enter need not to stay"
        )
    if value > to_enter:
        refuse(table.at(key), f"expected at most min_{what}: to stay may not take more than to enter")
    return None if value == to_enter else value


def _check_first(table: Table) -> None:
    for key in table.values:
        if key in _ENTER_KEYS:
            refuse(table.at(key), "not allowed here: the first tier has no thresholds")
        if key in _STAY_KEYS:
            refuse(table.at(key), "not allowed here: nobody falls out of the first tier")


def _check_strictness(table: Table, tier: Tier, below: Tier) -> None:
    """A tier above must hold for no one for whom the tier below does not: the tiers are then a ladder."""
    stricter = "expected to be at least as strict as in the tier below"
    if tier.min_monetary < below.min_monetary:
        refuse(table.at("min_monetary"), f"{stricter}, not lower")
    if tier.min_frequency < below.min_frequency:
        refuse(table.at("min_frequency"), f"{stricter}, not lower")
    if below.max_recency is not None and (tier.max_recency is None or tier.max_recency > below.max_recency):
        refuse(table.at("max_recency"), f"{stricter}, not longer")
