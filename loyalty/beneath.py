"""What stands beneath a customer's tier, as it is packed: overrides, protections, and how it stood before time went on.

Plain data; ``loyalty.standing`` has the rules.
"""

from __future__ import annotations

import msgspec

from schemas.events import OverrideMode
from schemas.tier_change import ChangeReason


class Override(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What somebody commanded, from ``at`` until, not including, ``until``. ``tier`` is an index.

    One whose mode is ``clear`` holds nothing, and its ``until`` is its ``at``. It is kept so that an older one
    that comes later changes nothing.
    """

    at: int
    mode: OverrideMode
    tier: int
    until: int
    actor: str
    reason: str

    def cleared(self) -> Override:
        """The same, holding nothing."""
        return Override(self.at, "clear", 0, self.at, self.actor, self.reason)


class Protection(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A floor that nobody commanded: tier (an index), end, and the reason that its end will have."""

    tier: int
    until: int
    reason: ChangeReason


class Since(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How a customer stood after the last event, kept where time alone has changed something since."""

    time: int
    tier: int
    tier_seq: int
    earned: int
    grace: int | None
    at_risk: int | None
    protection: Protection | None
