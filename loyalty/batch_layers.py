"""What a customer of the batch computation stands on: its metrics, and what holds its tier."""

from __future__ import annotations

from typing import NamedTuple

from schemas.events import OverrideMode
from schemas.tier_change import ChangeReason


class Metrics(NamedTuple):
    """What the tiers look at, as of some instant. ``recency`` in ms, ``monetary`` in minor units."""

    frequency: int
    monetary: int
    last_purchase_at: int | None
    recency: int | None


class Override(NamedTuple):
    """The command with the newest ``occurred_at``, be it over or not; the tier by name."""

    occurred_at: int
    mode: OverrideMode
    tier: str
    until: int


class Protection(NamedTuple):
    """A floor without a command; the tier by name, ``reason`` is that of its end."""

    tier: str
    until: int
    reason: ChangeReason
