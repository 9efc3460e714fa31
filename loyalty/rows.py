"""The entries of a page as they are read from its bytes: checked by msgspec, and made into ``loyalty.entries`` at once.

Within a format, fields may be added at the end with a default.
"""

from __future__ import annotations

from typing import Final

import msgspec

from loyalty.bond import Attributed, Bought, Named

ORDER: Final = 0
TOUCH: Final = 1
SEEN: Final = 2
"""What a row begins with, by its kind."""


class OrderRow(msgspec.Struct, array_like=True, tag=ORDER, gc=False):
    """An ``Order``."""

    page: int
    order_id: str
    time: int | None
    paid: int
    refunded: int = 0
    key: int | None = None
    more: tuple[int, ...] | None = None
    waiting: tuple[int, ...] | None = None
    bought: Bought | None = None
    told: Attributed | None = None


class TouchRow(msgspec.Struct, array_like=True, tag=TOUCH, gc=False):
    """A ``Touch``."""

    key: int
    time: int
    channel: int
    outbound: bool
    action: int = -1
    trigger: int | None = None
    named: Named | None = None
    told: Attributed | None = None


class SeenRow(msgspec.Struct, array_like=True, tag=SEEN, gc=False):
    """A ``Seen``."""

    key: int
    time: int


Row = OrderRow | TouchRow | SeenRow
