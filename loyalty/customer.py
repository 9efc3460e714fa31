"""What is known of one customer, in memory: entries in pages as they arrived, and what the fold looks up by.

Orders, touches and further event ids are *entries*. An entry stays in the page in which it arrived; the last
page is open, the others are sealed (see ``docs/adr/0002-customer-state.md``). Everything else here is derived
from the entries, and built anew when a customer is unpacked.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from operator import attrgetter
from typing import Any

from mypy_extensions import mypyc_attr

from loyalty.beneath import Override, Protection, Since
from loyalty.bond import NONE, Bond
from loyalty.entries import Entry, Order, Seen, Touch

PAGE_ENTRIES = 16
"""How many entries a page holds before it is sealed."""

CHANNELS_KEPT_APART = 32
"""How many different channels are told apart per customer; further ones count as ``OTHER_CHANNEL``."""

OTHER_CHANNEL = "other"

STALE = -1
"""No instant: what is next due of the bond has to be worked out."""

UNKNOWN = -1
"""No instant: what the store has as a customer's next one is not known."""

_time = attrgetter("time")


def as_it_came(value: Any) -> Any:
    """The same value, whose numbers compiled code passes on as the objects they are. Of a number that it knows to be
    one it makes a new object for each place where it is kept, and of these there are millions."""
    return value


@mypyc_attr(acyclic=True)
class Kept:
    """Where the horizons stood when a customer's sealed pages were looked at last; until one of them has passed another
    ``slack`` milliseconds, no page can be dropped. Who has thousands of pages is not looked through at every event."""

    __slots__ = ("purchases", "slack", "start", "touches")

    def __init__(self, purchases: int, start: int, touches: int, slack: int) -> None:
        self.purchases = purchases
        self.start = start
        self.touches = touches
        self.slack = slack

    def is_over(self, purchases: int, start: int, touches: int) -> bool:
        """Whether a page may have to be dropped with these horizons."""
        return max(purchases - self.purchases, start - self.start, touches - self.touches) > self.slack


@mypyc_attr(acyclic=True)
class Tally:
    """What was worked out last of a bond, to be gone on from.

    Attachment was added up from the touches from index ``low`` up to ``size``, as of ``at``; ``channels`` has how many
    inbound ones there are by channel. ``lost`` has, by number of a threshold, an instant before which
    it surely still holds if nothing is taken away; those in ``exact`` are when it is lost if nothing more comes.
    ``value`` and ``attachment`` are as of ``measured``. ``gap`` is the usual gap of orders at the times ``gap_of``.
    """

    __slots__ = (
        *("at", "channels", "gap", "gap_of", "lost", "low", "points", "size"),
        *("attachment", "exact", "measured", "value"),
    )

    def __init__(self) -> None:
        self.at = -1
        self.low = self.size = self.points = 0
        self.channels: dict[int, int] = {}
        self.lost: dict[int, int] = {}
        self.exact: set[int] = set()
        self.gap: int | None = None
        self.gap_of: list[int] | None = None
        self.value = self.attachment = 0
        self.measured = -1


@mypyc_attr(acyclic=True)
class Page:
    """Up to ``PAGE_ENTRIES`` entries in order of arrival, and until when they matter.

    ``purchases`` and ``touches`` are the newest instants that the two topics' horizons must pass before the
    page may be dropped, ``dated`` the newest order time, which must have left the window; -1 where there is
    none. They are kept for sealed pages only.

    ``read`` is what the first ``count`` entries of an open page were read from, without the array's header; None where
    they are no longer the same (``Customer.rewrite``), or were written since.
    """

    __slots__ = ("count", "dated", "entries", "number", "purchases", "read", "touches")

    def __init__(self, number: int, entries: list[Entry] | None = None) -> None:
        self.number = number
        self.entries: list[Entry] = [] if entries is None else entries
        self.purchases = self.dated = self.touches = -1
        self.read: bytes | None = None
        self.count = 0

    def seal(self) -> None:
        """Work out until when the page matters."""
        self.purchases = self.dated = self.touches = -1
        for entry in self.entries:
            if isinstance(entry, Touch):
                self.touches = max(self.touches, entry.time)
            else:
                self.purchases = max(self.purchases, newest_instant(entry))
                if isinstance(entry, Order) and entry.time is not None:
                    self.dated = max(self.dated, entry.time)


def newest_instant(entry: Order | Seen) -> int:
    """The newest instant at which an order was bought, refunded or is waiting: -1 where nothing is left."""
    if isinstance(entry, Seen):
        return entry.time
    newest = -1 if entry.time is None else entry.time
    if entry.more:
        newest = max(newest, *entry.more[1::2])
    if entry.waiting:
        newest = max(newest, *entry.waiting[::2])
    return newest


_ATTRIBUTES = (
    *("customer_id", "tier", "tier_seq", "time", "lifetime_orders", "lifetime_monetary", "channels"),
    *("generation", "earned", "grace", "at_risk", "override", "protection", "since", "commands"),
    *("orders", "ids", "touch_ids", "touches", "times", "counted", "nets", "low", "monetary"),
    *("pages", "open", "rewritten", "kept"),
    *("bond", "actions", "bond_held", "tally", "bond_due"),
    *("is_stored", "stored_due"),
)


@mypyc_attr(acyclic=True)
class Customer:
    """One customer's state, mutable and without rules of its own: the fold holds those.

    ``time`` is the customer's time, None before the first purchase, refund or command. ``generation`` counts
    the programs of the store: the customer's tiers are indices into that program's. ``tier`` is the one that is
    shown, at risk until ``at_risk``; ``earned`` the one that the orders earn, kept in grace until ``grace`` (see
    docs/tiers.md). ``times``, ``counted`` and ``nets`` are the orders that count, by time; those before ``low`` have
    left the window, and ``monetary`` is the net sum of the others. ``ids``, ``touch_ids`` and ``commands`` map event
    keys to their ``occurred_at``. ``pages`` are the sealed ones, by number, ``rewritten`` those of them that
    changed, ``kept`` when they must be looked at. ``bond`` and ``actions`` (of touches, by arrival) stay empty
    where the program keeps no bonds;
    ``bond_held`` is true while nothing may be decided of it, as more was published than is known. ``tally`` and
    ``bond_due`` are what was worked out last of the bond (None and ``STALE`` where nothing was). ``is_stored`` says
    whether the store knows the customer, ``stored_due`` when it has it fall due next (``UNKNOWN`` until it is told).
    """

    __slots__ = _ATTRIBUTES

    def __init__(self, customer_id: str, generation: int = 0) -> None:
        self.customer_id = customer_id
        self.generation = generation
        self.tier = 0
        self.tier_seq = 0
        self.time: int | None = None
        self.lifetime_orders = 0
        self.lifetime_monetary = 0
        self.channels: list[str] = []
        self.earned = 0
        self.grace: int | None = None
        self.at_risk: int | None = None
        self.override: Override | None = None
        self.protection: Protection | None = None
        self.since: Since | None = None
        self.commands: dict[int, int] = {}
        self.orders: dict[str, Order] = {}
        self.ids: dict[int, int] = {}
        self.touch_ids: dict[int, int] = {}
        self.touches: list[Touch] = []
        self.times: list[int] = []
        self.counted: list[Order] = []
        self.nets: list[int] = []
        self.low = 0
        self.monetary = 0
        self.pages: dict[int, Page] = {}
        self.open = Page(0)
        self.rewritten: dict[int, bool] = {}  # a set takes four times as much
        self.kept: Kept | None = None
        self.bond: Bond = NONE
        self.actions: list[str] = []
        self.bond_held = False
        self.tally: Tally | None = None
        self.bond_due: int | None = STALE
        self.is_stored = False
        self.stored_due: int | None = UNKNOWN

    def __copy__(self) -> Customer:
        """A customer that shares what this one has: pages, orders, bond."""
        other = Customer(self.customer_id, self.generation)
        for name in _ATTRIBUTES:
            setattr(other, name, getattr(self, name))
        return other

    @property
    def frequency(self) -> int:
        """How many orders count in the window that ends at the customer's time."""
        return len(self.times) - self.low

    @property
    def last_purchase_at(self) -> int | None:
        """The newest counted order's time."""
        return self.times[-1] if len(self.times) > self.low else None

    def record(self, entry: Entry) -> int:
        """Write a new entry into the open page, or into the next where that is full; the page's number."""
        page = self.open
        if len(page.entries) >= PAGE_ENTRIES:
            page.read = None
            self.pages[page.number] = page
            self.rewritten[page.number] = True
            page = self.open = Page(page.number + 1)
        page.entries.append(entry)
        return page.number

    def touched(self, touch: Touch) -> None:
        """Write a new touch, keeping ``touches`` in order of time."""
        self.record(touch)
        touches = self.touches
        if not touches or touch.time >= touches[-1].time:
            touches.append(touch)
        else:
            insort(touches, touch, key=_time)
            self.tally = None

    def changed(self, order: Order) -> None:
        """Note that an order that was written before is no longer what it was."""
        self.rewrite(order.page)

    def rewrite(self, number: int) -> None:
        """Note that an entry of a page is no longer what it was."""
        if number != self.open.number:
            self.rewritten[number] = True
        else:
            self.open.read = None

    def enter(self, order: Order, start: int) -> None:
        """Count an order, if it counts: over the lifetime, and in the window after ``start`` if it lies
        there."""
        time = order.time
        if time is None or not order.counts:
            return
        net = order.paid - order.refunded
        self.lifetime_orders += 1
        self.lifetime_monetary += net
        if time <= start:
            return
        self.monetary += net
        times = self.times
        if not times or time >= times[-1]:
            times.append(as_it_came(order.time))
            self.counted.append(order)
            self.nets.append(net)
        else:
            at = bisect_right(times, time, self.low)
            times.insert(at, time)
            self.counted.insert(at, order)
            self.nets.insert(at, net)

    def leave(self, order: Order, start: int) -> None:
        """Undo ``enter``, before the order changes."""
        time = order.time
        if time is None or not order.counts:
            return
        net = order.paid - order.refunded
        self.lifetime_orders -= 1
        self.lifetime_monetary -= net
        if time <= start:
            return
        self.monetary -= net
        at = bisect_left(self.times, time, self.low)
        while self.counted[at] is not order:
            at += 1
        del self.times[at], self.counted[at], self.nets[at]

    def slide(self, start: int) -> None:
        """Let the orders at or before ``start`` leave the window."""
        times, low, end = self.times, self.low, len(self.times)
        while low < end and times[low] <= start:
            self.monetary -= self.nets[low]
            low += 1
        self.low = low

    def arrange(self, start: int) -> None:
        """Build ``times``, ``counted`` and ``monetary`` anew from the entries, for the window after
        ``start``."""
        counted: list[Order] = []
        newest, in_order = start, True
        for page in [*self.pages.values(), self.open]:
            for entry in page.entries:
                if not isinstance(entry, Order):
                    continue
                time = entry.time
                # The same as Order.counts, which costs a call.
                if time is None or time <= start or (entry.refunded and entry.refunded >= entry.paid):
                    continue
                counted.append(entry)
                if time < newest:
                    in_order = False
                newest = time
        if not in_order:
            counted.sort(key=_time)
        self.counted = counted
        self.times = times = []
        self.nets = nets = []
        monetary = 0
        for order in counted:
            times.append(as_it_came(order.time))
            net = order.paid - order.refunded
            nets.append(net)
            monetary += net
        self.monetary = monetary
        self.low = 0
