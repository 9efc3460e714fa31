"""What a customer's state is made of: the entries of its pages. ``loyalty.customer`` arranges them, the fold has the
rules, and ``loyalty.rows`` says how they are read from bytes.

Plain classes and no structs of msgspec: compiled, their fields are read where they lie.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import astuple
from mypy_extensions import mypyc_attr

from loyalty.bond import Attributed, Bought, Named
from loyalty.rows import ORDER, SEEN, TOUCH, OrderRow, Row, TouchRow


@mypyc_attr(acyclic=True)
class Order:
    """One order. ``time`` is its earliest purchase's, None while only refunds have come, which then wait.

    ``key`` is the id of the purchase that gave ``time``. ``more`` holds further ids as ``(key, time, key,
    time, …)`` and ``waiting`` early refunds as ``(time, amount, …)``: flat, so that the usual order costs
    nothing. An empty ``order_id`` is an order that is forgotten and still counts. ``bought`` is None where the bond
    asks for none of it, ``told`` where no attribution was told.
    """

    __slots__ = (
        *("bought", "key", "more", "order_id", "page", "paid"),
        *("refunded", "time", "told", "waiting"),
    )

    def __init__(
        self,
        page: int,
        order_id: str,
        time: int | None,
        paid: int,
        refunded: int = 0,
        key: int | None = None,
        more: tuple[int, ...] | None = None,
        waiting: tuple[int, ...] | None = None,
        bought: Bought | None = None,
        told: Attributed | None = None,
    ) -> None:
        self.page = page
        self.order_id = order_id
        self.time = time
        self.paid = paid
        self.refunded = refunded
        self.key = key
        self.more = more
        self.waiting = waiting
        self.bought = bought
        self.told = told

    @property
    def counts(self) -> bool:
        """Whether the order is one: bought, and not refunded in full. Its net is then ``paid - refunded``."""
        return self.time is not None and (not self.refunded or self.refunded < self.paid)

    def row(self) -> tuple[Any, ...]:
        """The order as it is written; an ``OrderRow`` reads it."""
        return (
            ORDER,
            self.page,
            self.order_id,
            self.time,
            self.paid,
            self.refunded,
            self.key,
            self.more,
            self.waiting,
            self.bought,
            self.told,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Order) and self.row() == other.row()

    def __repr__(self) -> str:
        return f"Order{self.row()[1:]}"


@mypyc_attr(acyclic=True)
class Touch:
    """One touchpoint: its id's key, when, the index of its channel in ``Customer.channels``, and which
    way.

    ``action`` is the index of its action in ``Customer.actions``, -1 where it has none or no bond is kept.
    ``trigger`` is the key of its ``trigger_id`` (of the pair of an empty source and it), ``named`` there where it may
    be part of an attribution, ``told`` where it is a visit of which one was told.
    """

    __slots__ = ("action", "channel", "key", "named", "outbound", "time", "told", "trigger")

    def __init__(
        self,
        key: int,
        time: int,
        channel: int,
        outbound: bool,
        action: int = -1,
        trigger: int | None = None,
        named: Named | None = None,
        told: Attributed | None = None,
    ) -> None:
        self.key = key
        self.time = time
        self.channel = channel
        self.outbound = outbound
        self.action = action
        self.trigger = trigger
        self.named = named
        self.told = told

    def row(self) -> tuple[Any, ...]:
        """The touch as it is written; a ``TouchRow`` reads it."""
        return (
            TOUCH,
            self.key,
            self.time,
            self.channel,
            self.outbound,
            self.action,
            self.trigger,
            self.named,
            self.told,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Touch) and self.row() == other.row()

    def __repr__(self) -> str:
        return f"Touch{self.row()[1:]}"


@mypyc_attr(acyclic=True)
class Seen:
    """The id of one more event of an order that has a great many, kept apart so that no order grows for
    ever."""

    __slots__ = ("key", "time")

    def __init__(self, key: int, time: int) -> None:
        self.key = key
        self.time = time

    def row(self) -> tuple[Any, ...]:
        """The id as it is written; a ``SeenRow`` reads it."""
        return (SEEN, self.key, self.time)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Seen) and self.row() == other.row()

    def __repr__(self) -> str:
        return f"Seen{self.row()[1:]}"


Entry = Order | Touch | Seen


def rows(entries: Iterable[Entry]) -> list[tuple[Any, ...]]:
    """Entries as they are written."""
    return [entry.row() for entry in entries]


def entries(read: list[Row]) -> list[Entry]:
    """Entries of the rows that were read."""
    return [_entry(row) for row in read]


def _entry(row: Row) -> Entry:
    if isinstance(row, OrderRow):
        # All at once: to ask for each by its name takes five times as long.
        f = astuple(row)
        return Order(f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9])
    if isinstance(row, TouchRow):
        f = astuple(row)
        return Touch(f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7])
    return Seen(row.key, row.time)
