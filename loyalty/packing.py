"""What of a customer goes into its bytes, and a customer of its bytes: a head with the open page inline, and sealed
pages. See docs/adr/0002-customer-state.md; ``loyalty.heads`` has the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from operator import attrgetter
from typing import Any

import msgspec
from msgspec.structs import astuple

from loyalty.bond import Bond
from loyalty.contacts import ContactWindow
from loyalty.customer import Customer, Kept, Page, newest_instant
from loyalty.entries import Entry, Order, Touch, rows
from loyalty.heads import (
    TAG,
    Head,
    Packed,
    PackedBeneath,
    PackedStateError,
    read_entries,
    read_head,
    read_page,
    write,
)
from loyalty.rules import Rules
from loyalty.segments import NEVER


def page_numbers(head: bytes) -> list[int]:
    """The numbers of the sealed pages that belong to a head, rising. Raises ``PackedStateError``."""
    return _numbers(read_head(head).sealed)


class Packing:
    """Packs and unpacks the customers of one shard's rules."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        programs = [rules.program, *([rules.previous.program] if rules.previous else [])]
        # Who is not moved yet will need what the longer of both windows covers.
        self._window = max(program.window for program in programs)
        self._ledger = rules.program.ledger
        bonds = [bonds for bonds in rules.bonds if bonds is not None]
        self._policies = [bond.policy for bond in bonds if bond.policy is not None]
        self._touches_kept = max(
            self._ledger,
            *(ContactWindow(program).reach for program in programs),
            *(bond.touches_reach for bond in bonds),
        )
        before_orders = [reach for bond in bonds if (reach := bond.touches_before_orders) is not None]
        self._touches_before_orders = max(before_orders) if before_orders else None

    def unpack(self, customer_id: str, head: bytes | None, pages: Mapping[int, bytes]) -> Customer:
        """The customer of a head's bytes and all its sealed pages, by number; a new one where there is no head.

        Raises ``PackedStateError``.
        """
        return self.customer(customer_id, None if head is None else read_head(head), pages)

    def customer(self, customer_id: str, head: Head | None, pages: Mapping[int, bytes]) -> Customer:
        """The same of a head that was read already."""
        if head is None:
            if pages:
                raise PackedStateError(f"customer {customer_id!r} has pages but no head")
            return self.rules.new_customer(customer_id)
        # All fields at once: to ask for each by its name takes five times as long.
        read = astuple(head)
        tier, tier_seq, time, lifetime_orders, lifetime_monetary, channels = read[:6]
        sealed, number, opened, generation, beneath, bond, actions = read[6:]
        program = self.rules.program_of(generation)
        if program is None:
            raise PackedStateError(f"customer {customer_id!r} is on a program that this worker does not know")
        if tier >= len(program.tiers):
            raise PackedStateError(f"customer {customer_id!r} is in a tier that the program does not have")
        customer = Customer(customer_id, generation)
        customer.tier = tier
        customer.tier_seq = tier_seq
        customer.time = time
        customer.lifetime_orders = lifetime_orders
        customer.lifetime_monetary = lifetime_monetary
        customer.channels = channels
        if bond is not None:
            customer.bond, customer.actions = bond, actions
        elif self.rules.keeps_bonds:
            customer.bond = Bond()
        customer.is_stored = True
        if beneath is None:
            customer.earned = tier
        else:
            _set_beneath(customer, beneath)
        if sealed or pages:
            numbers = _numbers(sealed)
            if set(numbers) != set(pages):
                raise PackedStateError(f"customer {customer_id!r} has other pages than its head says")
            for each in numbers:
                page = Page(each, read_page(pages[each]))
                page.seal()
                customer.pages[each] = page
        content = bytes(opened)
        customer.open = Page(number, read_entries(content))
        _keep_read(customer.open, content)
        _index(customer)
        if customer.time is not None:
            customer.arrange(customer.time - program.window)
        return customer

    def pack(
        self,
        customer: Customer,
        purchases_newest: int | None,
        touchpoints_newest: int | None,
        commands_newest: int | None = None,
    ) -> Packed:
        """The customer's bytes, without what no longer matters; the same customer always gives the same
        bytes.

        The three instants are the newest ``occurred_at`` of the partition's topics, None where nothing was read
        yet. Changes the customer only in what could not be observed.
        """
        looked_back_from = customer.time if customer.since is None else customer.since.time
        # No time is before 0, and -1 stands for none: so a horizon is at least 0 and a window starts after
        # -1.
        keeping = _Keeping(
            customer,
            0 if purchases_newest is None else max(0, purchases_newest - self._ledger),
            self._touches_horizon(purchases_newest, touchpoints_newest),
            -1 if looked_back_from is None else max(-1, looked_back_from - self._window),
        )
        # The open page is written anyway. A quarter's delay makes the pruning cost little per event.
        entries = customer.open.entries
        if entries and keeping.is_over(entries[len(entries) // 4]):
            keeping.prune(customer.open)
        written, dropped = keeping.settle_sealed() if customer.pages else ({}, [])
        if customer.low > 32:
            for by_time in (customer.times, customer.counted, customer.nets):
                del by_time[: customer.low]
            customer.low = 0
        head = (
            *(customer.tier, customer.tier_seq, customer.time),
            *(customer.lifetime_orders, customer.lifetime_monetary, customer.channels),
            *(_runs(customer.pages), customer.open.number, _opened(customer.open)),
            customer.generation,
            _beneath(customer, 0 if commands_newest is None else commands_newest - self._ledger),
        )
        if self.rules.keeps_bonds:
            if customer.bond.placed and (at := customer.bond.time) is not None:
                self._forget_places(customer.bond, at)
            return Packed(TAG + write((*head, customer.bond, customer.actions)), written, dropped)
        return Packed(TAG + write(head), written, dropped)

    def _forget_places(self, bond: Bond, at: int) -> None:
        """Let go of places that no cap can count any more: the longest of all policies, where there are two. Those
        within the ledger stay: whether a customer was saved must not change what a next program's caps count."""
        if self._policies:
            max(self._policies, key=attrgetter("reach")).forget(bond, at, self._ledger)
        else:
            bond.placed = []

    def _touches_horizon(self, purchases_newest: int | None, touchpoints_newest: int | None) -> int:
        """Touches before it are over: none that may come is a second of theirs, and no metric or attribution looks
        back so far."""
        if touchpoints_newest is None:
            return 0
        newest = touchpoints_newest
        if self.rules.keeps_bonds and purchases_newest is not None:
            # Where purchases lag behind, so does the time at which bonds are evaluated.
            newest = min(newest, purchases_newest)
        horizon = newest - self._touches_kept
        if self._touches_before_orders is not None:
            oldest_order = 0 if purchases_newest is None else purchases_newest - self._ledger
            horizon = min(horizon, oldest_order - self._touches_before_orders)
        return max(0, horizon)


def _set_beneath(customer: Customer, read: PackedBeneath) -> None:
    customer.earned, customer.grace, customer.at_risk = read.earned, read.grace, read.at_risk
    customer.override, customer.protection, customer.since = read.override, read.protection, read.since
    customer.commands = dict(_pairs(tuple(read.commands)))


def _beneath(customer: Customer, commands: int) -> PackedBeneath | None:
    """What stands beneath the tier, without commands before an instant that hold nothing any more."""
    if customer.commands:
        customer.commands = {key: at for key, at in customer.commands.items() if at >= commands}
    override = customer.override
    time = customer.time if customer.since is None else customer.since.time
    if override is not None and override.at < commands and time is not None and override.until <= time:
        customer.override = None
    if (
        customer.earned == customer.tier
        and customer.grace is None
        and customer.override is None
        and customer.protection is None
        and customer.since is None
        and not customer.commands
    ):
        return None
    return PackedBeneath(
        *(customer.earned, customer.grace, customer.at_risk),
        *(customer.override, customer.protection, customer.since),
        [number for pair in customer.commands.items() for number in pair],
    )


class _Keeping:
    """What of a customer still matters: horizons of its two topics, and where its window starts."""

    def __init__(self, customer: Customer, purchases: int, touches: int, start: int) -> None:
        self.customer = customer
        self.purchases = purchases
        self.touches = touches
        self.start = start

    def is_over(self, entry: Entry) -> bool:
        """Whether nothing that may still come, and no metric, needs an entry."""
        if isinstance(entry, Touch):
            return entry.time < self.touches
        if isinstance(entry, Order) and entry.time is not None and entry.time > self.start:
            return False
        return newest_instant(entry) < self.purchases

    def settle_sealed(self) -> tuple[dict[int, bytes], list[int]]:
        """Prune and write the sealed pages that changed, drop those that are over."""
        customer = self.customer
        written: dict[int, bytes] = {}
        dropped: list[int] = []
        must_look = bool(customer.rewritten)
        for number in sorted(customer.rewritten):
            page = customer.pages[number]
            self.prune(page)
            page.seal()
            if page.entries:
                written[number] = TAG + write(rows(page.entries))
        customer.rewritten.clear()
        kept = customer.kept
        if must_look or kept is None or kept.is_over(self.purchases, self.start, self.touches):
            slack = NEVER
            purchases, start, touches = self.purchases, self.start + 1, self.touches
            for page in customer.pages.values():
                # A page goes when the last of its horizons has passed. Two at a time: compiled, that is a comparison.
                left = max(page.purchases - purchases, page.dated - start)
                left = max(left, page.touches - touches)
                if left < 0:
                    dropped.append(page.number)
                elif left < slack:
                    slack = left
            customer.kept = Kept(self.purchases, self.start, self.touches, slack)
        for number in dropped:
            self.forget(customer.pages.pop(number).entries)
            written.pop(number, None)
        return written, dropped

    def prune(self, page: Page) -> None:
        """Take out of a page what is over, and out of its orders the names and ids that are."""
        purchases = self.purchases
        over: list[Entry] = []
        kept: list[Entry] = []
        for entry in page.entries:
            if isinstance(entry, Order) and not entry.more and not entry.waiting:
                # Written out for the usual order: one that is still in the ledger keeps all it has.
                time = entry.time
                if time is not None and time >= purchases:
                    kept.append(entry)
                    continue
            if self.is_over(entry):
                over.append(entry)
            else:
                kept.append(entry)
                if isinstance(entry, Order):
                    self.shorten(entry)
        if over:
            self.forget(over)
            page.entries = kept
        page.read = None

    def shorten(self, order: Order) -> None:
        """Take from an order its ids and waiting refunds before the horizon, and its name where it is too."""
        ids, orders = self.customer.ids, self.customer.orders
        if order.time is not None and order.time < self.purchases:
            if orders.get(order.order_id) is order:
                del orders[order.order_id]
            order.order_id = ""
            if order.key is not None:
                _forget_id(ids, order.key, order.time)
                order.key = None
        if order.more:
            for key, time in _pairs(order.more):
                if time < self.purchases:
                    _forget_id(ids, key, time)
            order.more = _flat((key, time) for key, time in _pairs(order.more) if time >= self.purchases)
        if order.waiting:
            order.waiting = _flat(pair for pair in _pairs(order.waiting) if pair[0] >= self.purchases)

    def forget(self, entries: list[Entry]) -> None:
        """Take entries that are over out of what the fold looks up by."""
        customer = self.customer
        ids, orders = customer.ids, customer.orders
        touches = set()
        for entry in entries:
            if isinstance(entry, Touch):
                touches.add(id(entry))
                _forget_id(customer.touch_ids, entry.key, entry.time)
                continue
            if entry.key is not None and entry.time is not None:
                _forget_id(ids, entry.key, entry.time)
            if isinstance(entry, Order):
                if entry.more:
                    for key, time in _pairs(entry.more):
                        _forget_id(ids, key, time)
                if orders.get(entry.order_id) is entry:
                    del orders[entry.order_id]
        if touches:
            # All of them are older than the horizon, so they lie in the front part.
            end = next(
                (i for i, t in enumerate(customer.touches) if t.time >= self.touches), len(customer.touches)
            )
            customer.touches[:end] = [touch for touch in customer.touches[:end] if id(touch) not in touches]
            customer.tally = None


def _keep_read(page: Page, content: bytes) -> None:
    """Note what an open page was read from."""
    count = len(page.entries)
    header = _array_header(count)
    # Another build may have written a longer header than there must be.
    if content.startswith(header):
        page.read, page.count = content[len(header) :], count


def _opened(page: Page) -> Any:
    """The rows of an open page; what was read, with those that are new behind it, where the others are the same. It
    serves once: to keep it for longer would take more in memory than it saves in time."""
    read = page.read
    if read is None:
        return rows(page.entries)
    page.read = None
    new = rows(page.entries[page.count :])
    if new:
        read += write(new)[len(_array_header(len(new))) :]
    return msgspec.Raw(_array_header(len(page.entries)) + read)


def _array_header(count: int) -> bytes:
    """That of a MessagePack array of less than 65,536."""
    return bytes((0x90 | count,)) if count < 16 else bytes((0xDC, count >> 8, count & 0xFF))


def _index(customer: Customer) -> None:
    """Fill what the fold looks up by from the entries, the later ones winning."""
    orders, ids, touch_ids, touches = customer.orders, customer.ids, customer.touch_ids, customer.touches
    for page in [*customer.pages.values(), customer.open]:
        for entry in page.entries:
            # Written out for the usual order, as this is most of the cost of loading a customer.
            if isinstance(entry, Order):
                if entry.order_id:
                    orders[entry.order_id] = entry
                if entry.key is not None and entry.time is not None:
                    _keep_id(ids, entry.key, entry.time)
                if entry.more:
                    for key, time in _pairs(entry.more):
                        _keep_id(ids, key, time)
            elif isinstance(entry, Touch):
                touches.append(entry)
                _keep_id(touch_ids, entry.key, entry.time)
            else:
                _keep_id(ids, entry.key, entry.time)
    touches.sort(key=lambda touch: touch.time)


def _keep_id(ids: dict[int, int], key: Any, time: Any) -> None:
    """An id that was forgotten and came again stands twice: the newer time is the one that is kept. Both are kept as
    the objects they are, see ``as_it_came``."""
    if key not in ids or ids[key] < time:
        ids[key] = time


def _forget_id(ids: dict[int, int], key: int, time: int) -> None:
    if ids.get(key) == time:
        del ids[key]


def _pairs(flat: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _flat(pairs: Any) -> tuple[int, ...] | None:
    return tuple(number for pair in pairs for number in pair) or None


def _runs(numbers: dict[int, Any]) -> list[int]:
    """Rising numbers as runs: 3, 4, 5, 9 are 3, 6, 9, 10."""
    if not numbers:
        return []
    first, last = next(iter(numbers)), next(reversed(numbers))
    if last - first + 1 == len(numbers):  # of thousands of pages hardly one is missing
        return [first, last + 1]
    rising = list(numbers)
    runs = [rising[0]]
    for before, after in pairwise(rising):
        if after != before + 1:
            runs += (before + 1, after)
    return [*runs, rising[-1] + 1]


def _numbers(runs: list[int]) -> list[int]:
    return [number for first, end in _pairs(tuple(runs)) for number in range(first, end)]
