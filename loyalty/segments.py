"""Segments: which one a customer is in as of an instant, and when time alone may change it.

Every test turns at most once while nothing arrives, but for steps of tenure, so the next instant at which anything may
turn is found from the tests' thresholds, not from the history.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from loyalty.attachment import Attachment
from loyalty.customer import Customer, Tally
from loyalty.subscriptions import Subscriptions
from schemas.program import Program
from schemas.program_bonds import Bonds, Segment

# So many of the newest orders say what is usual.
_ORDERS_OF_GAP: Final = 6
_THOUSAND: Final = 1_000
NEVER: Final = 1 << 60
"""No instant: later than all."""


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
            return end - first, sum(customer.nets[first:])
        return end - first, customer.monetary - sum(customer.nets[low:first])

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
            nets, held, oldest = customer.nets, 0, len(times)
            while held < money:
                oldest -= 1
                if oldest < 0:
                    return None
                held += nets[oldest]
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
        return self._gap_from(customer, self._first_of_gap(customer, at))

    def lapsing(self, customer: Customer, at: int, gaps: int) -> bool:
        """Whether the silence is longer than ``gaps`` thousandths of the usual gap."""
        last = self.last(customer, at)
        if last is None or last == at:
            return False
        gap = self.gap(customer, at)
        return gap is not None and (at - last) * _THOUSAND > gaps * gap

    def lapses(self, customer: Customer, after: int, least: int, gaps: int, before: int) -> int:
        """The first instant after one at which ``lapsing`` for ``least`` milliseconds or more may turn: the silence is
        long enough, or an order leaves and another gap is the usual one. Instants from ``before`` on need not be
        exact, and stand where nobody can lapse."""
        last = self.last(customer, after)
        if last is None:
            return before
        times, first = customer.times, self._first_of_gap(customer, after)
        if len(times) - first < 2:
            return before
        turn, leaves, silent = before, times[first] + self.window, last + least
        if after < leaves < turn:
            turn = leaves
        if silent < turn:
            gap = self._gap_from(customer, first)
            if gap is not None:
                silent = max(silent, last + gaps * gap // _THOUSAND + 1)
            if after < silent < turn:
                turn = silent
        return turn

    def _gap_from(self, customer: Customer, first: int) -> int | None:
        newest, tally = customer.times[first:], customer.tally
        if tally is None:
            return _usual(newest)
        if tally.gap_of != newest:
            tally.gap_of, tally.gap = newest, _usual(newest)
        return tally.gap

    def _first_of_gap(self, customer: Customer, at: int) -> int:
        """The index of the oldest order that says what gap is usual."""
        times, first = customer.times, len(customer.times) - _ORDERS_OF_GAP
        if first < customer.low or times[first] <= at - self.window:
            return bisect_right(times, at - self.window, customer.low)
        return first


class _Test:
    """What one segment asks for; a bound of 0, or ``NEVER`` for the most orders, asks for nothing. Plain attributes,
    as it is asked at every evaluation."""

    def __init__(self, segment: Segment) -> None:
        self.min_value = segment.min_value
        self.min_attachment = segment.min_attachment
        self.min_orders = segment.min_orders
        self.max_orders = NEVER if segment.max_orders is None else segment.max_orders
        self.min_silence = segment.min_silence or 0
        self.min_gaps = segment.min_gaps or 0
        self.subscription: str = segment.subscription or ""


class Segments:
    """One program's segments, by index in their order. Times are epoch milliseconds."""

    def __init__(
        self, bonds: Bonds, axes: Axes, attachment: Attachment, subscriptions: Subscriptions
    ) -> None:
        self._tests = [_Test(segment) for segment in bonds.segments]
        self.names = tuple(segment.name for segment in bonds.segments)
        self._axes = axes
        self._attachment = attachment
        self._subscriptions = subscriptions
        self._values = _asked(segment.min_value for segment in bonds.segments)
        self._attachments = _asked(segment.min_attachment for segment in bonds.segments)
        # Where one segment asks for both, it begins with the later of them. Once no order counts it is silent anyway.
        self._silences = sorted(
            {
                (min(segment.min_silence or 0, axes.window), segment.min_gaps or 0)
                for segment in bonds.segments
                if segment.min_silence or segment.min_gaps
            }
        )
        self._states = any(segment.subscription for segment in bonds.segments)

    def at(self, customer: Customer, at: int, value: int, attachment: int) -> int:
        """The segment at ``at``, where value and attachment are these."""
        orders, axes = customer.lifetime_orders, self._axes
        for index, test in enumerate(self._tests):
            if (
                value >= test.min_value
                and attachment >= test.min_attachment
                and test.min_orders <= orders <= test.max_orders
                and (not test.min_silence or axes.silent(customer, at, test.min_silence))
                and (not test.min_gaps or axes.lapsing(customer, at, test.min_gaps))
                and (
                    not test.subscription or self._subscriptions.any_in(customer.bond, test.subscription, at)
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

    def next_turn(self, customer: Customer, after: int, before: int) -> int:
        """The next instant after one at which a test may turn, if nothing more arrives; ``before`` where none may turn
        before it."""
        tally = customer.tally
        if tally is None or tally.measured != after:
            tally = self.measure(customer, after)
        turn = self._next_of_time(customer, after, before)
        if self._states and customer.bond.subscriptions:
            for lapses_at in self._subscriptions.lapses(customer.bond, after):
                if after < lapses_at < turn:
                    turn = lapses_at
        number = 0
        for least in self._values:
            if tally.value >= least:
                turn = min(turn, self._lost(tally, number, customer, after, turn))
            number += 1
        for least in self._attachments:
            if tally.attachment >= least:
                turn = min(turn, self._lost(tally, number, customer, after, turn))
            number += 1
        return turn

    def _next_of_time(self, customer: Customer, after: int, before: int) -> int:
        """When tenure or a silence may next turn a test; ``before`` where neither may before it."""
        turn, axes = before, self._axes
        if self._attachments:
            year = self._attachment.next_year(customer, after)
            if year is not None and after < year < turn:
                turn = year
        last = axes.last(customer, after)
        if last is None:
            return turn
        for least, gaps in self._silences:
            if gaps:
                turn = axes.lapses(customer, after, least, gaps, turn)
            elif after < last + least < turn:
                turn = last + least
        return turn

    def _lost(self, tally: Tally, number: int, customer: Customer, after: int, turn: int) -> int:
        """When a threshold that holds is lost, if nothing more arrives, or any instant before that is not before
        ``turn``.

        What comes only puts off when a threshold is lost: one that was worked out before is looked at again only where
        it would be the next to turn, or where it held beyond that instant, as a renewal left that it could do without.
        """
        known = tally.lost.get(number, -1)
        if known <= after or (known < turn and number not in tally.exact):
            known = self._work_out(number, customer, after)
            tally.lost[number] = known
            tally.exact.add(number)
        return known

    def _work_out(self, number: int, customer: Customer, after: int) -> int:
        """When the threshold of a number is lost, if nothing more arrives: values come first."""
        values = self._values
        lost = (
            self._axes.value_falls_below(customer, values[number])
            if number < len(values)
            else self._attachment.falls_below(customer, after, self._attachments[number - len(values)])
        )
        return NEVER if lost is None or lost <= after else lost


def _usual(times: list[int]) -> int | None:
    if len(times) < 2:
        return None
    gaps = [times[index] - times[index - 1] for index in range(1, len(times))]
    gaps.sort()
    return gaps[(len(gaps) - 1) // 2]


def _asked(thresholds: Iterable[int | None]) -> list[int]:
    """The different thresholds that ask for something."""
    return sorted({threshold for threshold in thresholds if threshold})
