"""Segments: which one a customer is in as of an instant, and when time alone may change it.

Every test turns at most once while nothing arrives, but for steps of tenure, so the next instant at which anything may
turn is found from the tests' thresholds, not from the history.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise

from loyalty.attachment import Attachment
from loyalty.customer import Customer, Tally
from loyalty.subscriptions import Subscriptions
from schemas.program import Program
from schemas.program_bonds import Bonds

# So many of the newest orders say what is usual.
_ORDERS_OF_GAP = 6
_THOUSAND = 1_000
_NEVER = 1 << 62


class Axes:
    """Value and silence, from the orders that count. Instants are never before the customer's own time."""

    def __init__(self, program: Program) -> None:
        self.window = program.window
        self._frequency = program.scores.frequency
        self._monetary = program.scores.monetary
        # For each value, what it takes: pairs of orders and money, any of which is enough.
        counts, sums = (0, 1, *self._frequency), (0, 0, *self._monetary)
        self._takes = {
            value: [(counts[f], sums[value - f]) for f in range(1, 6) if 1 <= value - f <= 5]
            for value in range(2, 11)
        }

    def counted(self, customer: Customer, at: int) -> tuple[int, int]:
        """How many orders count at ``at``, and their net."""
        times, low = customer.times, customer.low
        start, end = at - self.window, len(times)
        if low == end or times[low] > start:
            return end - low, customer.monetary
        # Where touches were read far ahead of purchases, most orders may be out: add up the fewer ones.
        first = bisect_right(times, start, low)
        if end - first < first - low:
            return end - first, sum([order.paid - order.refunded for order in customer.counted[first:]])
        gone = sum([order.paid - order.refunded for order in customer.counted[low:first]])
        return end - first, customer.monetary - gone

    def value(self, customer: Customer, at: int) -> int:
        """The scores for frequency and monetary, added: 0 to 10."""
        count, monetary = self.counted(customer, at)
        if not count:
            return 0
        return 2 + bisect_right(self._frequency, count) + bisect_right(self._monetary, monetary)

    def value_falls_below(self, customer: Customer, least: int) -> int | None:
        """When a value that is at least ``least`` will not be any more; None where it is not so much."""
        last: int | None = None
        for count, money in self._takes.get(least, [(1, 0)]):
            lost = self.falls_below(customer, count, money)
            if lost is not None and (last is None or lost > last):
                last = lost
        return last

    def falls_below(self, customer: Customer, count: int, money: int) -> int | None:
        """When fewer than ``count`` orders or less than ``money`` will count; None where they do not."""
        times, index = customer.times, len(customer.times) - count
        if index < 0:
            return None
        if money > 0:
            counted, held, oldest = customer.counted, 0, len(times)
            while held < money:
                oldest -= 1
                if oldest < 0:
                    return None
                order = counted[oldest]
                held += order.paid - order.refunded
            index = min(index, oldest)
        return times[index] + self.window if index < len(times) else None

    def last(self, customer: Customer, at: int) -> int | None:
        """The newest order that counts at ``at``."""
        times = customer.times
        return times[-1] if times and times[-1] > at - self.window else None

    def silent(self, customer: Customer, at: int, least: int) -> bool:
        """Whether a customer who has bought has not for ``least`` milliseconds."""
        if customer.lifetime_orders <= 0:
            return False
        last = self.last(customer, at)
        return last is None or at - last >= least

    def gap(self, customer: Customer, at: int) -> int | None:
        """The customer's usual gap between orders; None for fewer than two."""
        newest, tally = customer.times[self._first_of_gap(customer, at) :], customer.tally
        if tally is None:
            return _usual(newest)
        if tally.gap_of != newest:
            tally.gap_of, tally.gap = newest, _usual(newest)
        return tally.gap

    def lapsing(self, customer: Customer, at: int, gaps: int) -> bool:
        """Whether the silence is longer than ``gaps`` thousandths of the usual gap."""
        last = self.last(customer, at)
        if last is None or last == at:
            return False
        gap = self.gap(customer, at)
        return gap is not None and (at - last) * _THOUSAND > gaps * gap

    def lapses(self, customer: Customer, after: int, gaps: int) -> tuple[int, int] | None:
        """When ``lapsing`` may turn after an instant: the silence is long enough, and orders leave and another gap is
        the usual one. None where nobody can lapse."""
        last = self.last(customer, after)
        gap = None if last is None else self.gap(customer, after)
        if last is None or gap is None:
            return None
        first = customer.times[self._first_of_gap(customer, after)]
        return last + gaps * gap // _THOUSAND + 1, first + self.window

    def _first_of_gap(self, customer: Customer, at: int) -> int:
        """The index of the oldest order that says what gap is usual."""
        times, first = customer.times, len(customer.times) - _ORDERS_OF_GAP
        if first < customer.low or times[first] <= at - self.window:
            return bisect_right(times, at - self.window, customer.low)
        return first


class Segments:
    """One program's segments, by index in their order. Times are epoch milliseconds."""

    def __init__(
        self, bonds: Bonds, axes: Axes, attachment: Attachment, subscriptions: Subscriptions
    ) -> None:
        self._segments = bonds.segments
        self.names = tuple(segment.name for segment in bonds.segments)
        self._axes = axes
        self._attachment = attachment
        self._subscriptions = subscriptions
        self._values = _asked(segment.min_value for segment in bonds.segments)
        self._attachments = _asked(segment.min_attachment for segment in bonds.segments)
        # Where one segment asks for both, it begins with the later of them. Once no order counts it is silent anyway.
        self._silences = {
            (min(segment.min_silence or 0, axes.window), segment.min_gaps)
            for segment in bonds.segments
            if segment.min_silence or segment.min_gaps
        }
        self._states = any(segment.subscription for segment in bonds.segments)

    def at(self, customer: Customer, at: int, value: int, attachment: int) -> int:
        """The segment at ``at``, where value and attachment are these."""
        orders = customer.lifetime_orders
        for index, segment in enumerate(self._segments):
            if (
                value >= segment.min_value
                and attachment >= segment.min_attachment
                and orders >= segment.min_orders
                and (segment.max_orders is None or orders <= segment.max_orders)
                and (segment.min_silence is None or self._axes.silent(customer, at, segment.min_silence))
                and (segment.min_gaps is None or self._axes.lapsing(customer, at, segment.min_gaps))
                and (
                    segment.subscription is None
                    or self._subscriptions.any_in(customer.bond, segment.subscription, at)
                )
            ):
                return index
        raise AssertionError("the last segment has no keys")  # the program is checked

    def measure(self, customer: Customer, at: int) -> Tally:
        """Value and attachment at ``at``, as the tally then holds them."""
        attachment = self._attachment.at(customer, at)
        tally = customer.tally
        assert tally is not None  # there from now on
        tally.attachment, tally.value = attachment, self._axes.value(customer, at)
        tally.measured = at
        return tally

    def next_turn(self, customer: Customer, after: int) -> int | None:
        """The next instant after one at which a test may turn, if nothing more arrives."""
        axes, tally = self._axes, customer.tally
        if tally is None or tally.measured != after:
            tally = self.measure(customer, after)
        held = [("value", least) for least in self._values if tally.value >= least]
        turns: list[int] = []
        if self._attachments:
            held += [("attachment", least) for least in self._attachments if tally.attachment >= least]
            if (year := self._attachment.next_year(customer, after)) is not None:
                turns.append(year)
        if self._silences and (last := axes.last(customer, after)) is not None:
            for least, gaps in self._silences:
                if gaps is None:
                    turns.append(last + least)
                elif (lapses := axes.lapses(customer, after, gaps)) is not None:
                    turns += (max(last + least, lapses[0]), lapses[1])
        if self._states and customer.bond.subscriptions:
            turns += self._subscriptions.lapses(customer.bond, after)
        turn = min([turn for turn in turns if turn > after], default=_NEVER)
        for threshold in held:
            # What comes only puts off when a threshold is lost: one that was worked out before is looked at again only
            # where it would be the next to turn, or where it held beyond that instant, as a renewal left that it could
            # do without.
            lost = tally.lost.get(threshold, -1)
            if lost <= after or (lost < turn and threshold not in tally.exact):
                tally.lost[threshold] = self._lost(threshold, customer, after)
                tally.exact.add(threshold)
            turn = min(turn, tally.lost[threshold])
        return None if turn == _NEVER else turn

    def _lost(self, threshold: tuple[str, int], customer: Customer, after: int) -> int:
        """When a threshold that holds is lost, if nothing more arrives."""
        axis, least = threshold
        lost = (
            self._axes.value_falls_below(customer, least)
            if axis == "value"
            else self._attachment.falls_below(customer, after, least)
        )
        return _NEVER if lost is None or lost <= after else lost


def _usual(times: Sequence[int]) -> int | None:
    if len(times) < 2:
        return None
    gaps = sorted(after - before for before, after in pairwise(times))
    return gaps[(len(gaps) - 1) // 2]


def _asked(thresholds: Iterable[int | None]) -> tuple[int, ...]:
    """The different thresholds that ask for something."""
    return tuple(sorted({threshold for threshold in thresholds if threshold}))
