"""What is kept of a customer's bond beside orders and touches, and what is decided of it. docs/bonds.md has the rules.

Times are epoch milliseconds. Facts follow from the inputs alone; decisions are what was told.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

from schemas.bond_records import BondEvent, Match, encode

SUBSCRIPTIONS_KEPT_APART = 32
"""How many different subscriptions are kept per customer; further ones, by arrival, are not."""


class Subscription(msgspec.Struct, array_like=True, gc=False):
    """Earliest and latest purchase (None where only touchpoints told of it), and the newest that was said of it:
    ``pause``, ``resume`` or ``cancel``, empty where nothing was."""

    first_at: int | None
    last_at: int | None
    said_at: int = -1
    said: str = ""


class Run(msgspec.Struct, array_like=True, gc=False):
    """A scenario's active run. ``step`` is the index of the next step, ``planned`` when it is due, ``due`` until when
    it was deferred, or ``planned``."""

    started: int
    step: int
    planned: int
    due: int


class Watch(msgspec.Struct, array_like=True, gc=False):
    """How a scenario stands with a customer: whether its condition was true at the last evaluation, how many runs
    there were, when the last one began, and the active one."""

    on: bool = False
    runs: int = 0
    last_started: int | None = None
    run: Run | None = None


class Placed(msgspec.Struct, array_like=True, gc=False):
    """A trigger that takes a place under the caps: the key of its id, when, its channel, and the ``seq`` of the
    decision."""

    key: int
    at: int
    channel: str
    seq: int


class Attributed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What was told last of a conversion: the touch (key and time; None where it is withdrawn), by which match, the
    conversion's time, store and net, the revision, and the ``seq`` of the decision."""

    touch: int | None
    touched_at: int
    match: Match | None
    at: int
    store: str | None
    amount: int
    revision: int
    seq: int


class Bought(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where and how an order was bought: what the bond asks for, as its earliest purchase said it (of two at one
    instant, the first that was read)."""

    channel: str | None
    store_id: str | None
    campaign_id: str | None
    subscription_id: str | None


class Named(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What an attribution tells of a touch, or asks of a visit."""

    event_id: str
    source: str
    channel: str
    action: str | None
    store_id: str | None
    campaign_id: str | None


class Permission(msgspec.Struct, frozen=True):
    """``until`` is there for ``defer``: the instant in epoch milliseconds. ``reason`` says what stands against it,
    None for ``allow``."""

    decision: Literal["allow", "defer", "suppress"]
    until: int | None = None
    reason: str | None = None


class BondMark(msgspec.Struct, frozen=True):
    """The counters of a customer's decisions after one of them. ``seq`` counts all three kinds, without holes."""

    seq: int
    segment: str | None
    segment_seq: int
    attribution_seq: int
    reservations: int


class BondChange(msgspec.Struct, frozen=True):
    """One record to publish, the bytes of its body, and where the customer's decisions stand with it."""

    customer_id: str
    mark: BondMark
    body: BondEvent
    value: bytes


class Bond(msgspec.Struct, array_like=True, gc=False):
    """One customer's bond, mutable. ``time`` is that of the last evaluation, None before the first event.

    Facts: ``seen`` (the newest event of any input), ``first_at`` (the first purchase), ``subscriptions``, ``zone`` and
    when it was told, ``visited_at`` (the newest inbound touch in a store), and when each benefit that a scenario asks
    for was ``redeemed`` last. Decisions: the counters of ``BondMark``, ``digest`` of the last record, ``tier`` and
    ``tier_since`` as of the last evaluation, ``watches`` by scenario, and ``placed``. ``looked`` is up to when it was
    seen since that time alone changes nothing.
    """

    time: int | None = None
    first_at: int | None = None
    subscriptions: dict[str, Subscription] = {}
    zone: str | None = None
    zone_at: int = -1
    seen: int = -1
    visited_at: int = -1
    redeemed: dict[str, int] = {}
    segment: str | None = None
    segment_seq: int = 0
    seq: int = 0
    attribution_seq: int = 0
    reservations: int = 0
    digest: int = 0
    tier: str | None = None
    tier_since: int = 0
    watches: dict[str, Watch] = {}
    placed: list[Placed] = []
    looked: int = -1

    def mark(self) -> BondMark:
        """Where the decisions stand."""
        return BondMark(self.seq, self.segment, self.segment_seq, self.attribution_seq, self.reservations)

    def tell(self, customer_id: str, body: BondEvent) -> BondChange:
        """Number a decision; the record to publish."""
        self.seq += 1
        value = encode(body)
        self.digest = digest_of(value)
        return BondChange(customer_id, self.mark(), body, value)


class _NoBond(Bond):
    """What all customers share whose program keeps no bonds."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: where no bonds are kept nothing is noted of one")


#: A bond that nothing is noted in.
NONE: Bond = _NoBond()


def digest_of(value: bytes) -> int:
    """An unsigned 64-bit number of a record's body. Of all of it: after a lost take-over another owner may have sent
    what this one suppressed, at the same instant."""
    return int.from_bytes(blake2b(value, digest_size=8).digest())
