"""What a customer's state is made of, as it is packed: the entries of its pages, and what stands beneath its tier.

Plain data; ``loyalty.customer`` arranges it, the fold has the rules.
"""

from __future__ import annotations

import msgspec

from loyalty.bond import Attributed
from schemas.events import OverrideMode
from schemas.tier_change import ChangeReason


class Bought(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where and how an order was bought: what the bond asks for, as its earliest purchase said it (of two at one
    instant, the first that was read)."""

    channel: str | None
    store_id: str | None
    campaign_id: str | None
    subscription_id: str | None


class Order(msgspec.Struct, array_like=True, tag=0, gc=False):
    """One order. ``time`` is its earliest purchase's, None while only refunds have come, which then wait.

    ``key`` is the id of the purchase that gave ``time``. ``more`` holds further ids as ``(key, time, key,
    time, …)`` and ``waiting`` early refunds as ``(time, amount, …)``: flat, so that the usual order costs
    nothing. An empty ``order_id`` is an order that is forgotten and still counts. ``bought`` is None where the bond
    asks for none of it, ``told`` where no attribution was told.
    """

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

    @property
    def counts(self) -> bool:
        """Whether the order is one: bought, and not refunded in full. Its net is then ``paid - refunded``."""
        return self.time is not None and (not self.refunded or self.refunded < self.paid)


class Named(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an attribution tells of a touch, or asks of a visit."""

    event_id: str
    source: str
    channel: str
    action: str | None
    store_id: str | None
    campaign_id: str | None


class Touch(msgspec.Struct, array_like=True, tag=1, gc=False):
    """One touchpoint: its id's key, when, the index of its channel in ``Customer.channels``, and which
    way.

    ``action`` is the index of its action in ``Customer.actions``, -1 where it has none or no bond is kept.
    ``trigger`` is the key of its ``trigger_id`` (of the pair of an empty source and it), ``named`` there where it may
    be part of an attribution, ``told`` where it is a visit of which one was told.
    """

    key: int
    time: int
    channel: int
    outbound: bool
    action: int = -1
    trigger: int | None = None
    named: Named | None = None
    told: Attributed | None = None


class Seen(msgspec.Struct, array_like=True, tag=2, gc=False):
    """The id of one more event of an order that has a great many, kept apart so that no order grows for
    ever."""

    key: int
    time: int


Entry = Order | Touch | Seen


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
