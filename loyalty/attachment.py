"""Attachment, the second axis beside value: what a customer does for the bond, over a window of its own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter

from loyalty.customer import Customer, Tally
from loyalty.entries import Touch
from loyalty.subscriptions import is_renewal
from schemas.program_bonds import Attachment as Rule
from schemas.times import DAY

YEAR = 365 * DAY
_time_of = attrgetter("time")


class Attachment:
    """One program's rule, whose orders count for ``orders_window``. Times are epoch milliseconds, attachment is in
    points."""

    def __init__(self, rule: Rule, orders_window: int) -> None:
        self._rule = rule
        self.window = rule.window
        self._renewed_for = min(rule.window, orders_window)
        self._worth: dict[tuple[str, str | None], int] = {}

    def at(self, customer: Customer, at: int) -> int:
        """The attachment as of an instant that is not before anything that counts."""
        tally = self._tally(customer, at)
        rule = self._rule
        total = tally.points + rule.breadth * len(tally.channels) + self.tenure(customer, at)
        if rule.renewal and customer.bond.subscriptions:
            total += rule.renewal * sum(1 for _ in self._renewals(customer, at))
        return total

    def before(self, customer: Customer, at: int) -> int:
        """The same as of any instant, leaving no trace in the customer."""
        kept, customer.tally = customer.tally, None
        try:
            return self.at(customer, at)
        finally:
            customer.tally = kept

    def tenure(self, customer: Customer, at: int) -> int:
        """Points for full years."""
        rule, first = self._rule, customer.bond.first_at
        if not rule.tenure or first is None or at < first:
            return 0
        return rule.tenure * min((at - first) // YEAR, rule.tenure_years)

    def next_year(self, customer: Customer, at: int) -> int | None:
        """The next instant after ``at`` that adds points for tenure."""
        rule, first = self._rule, customer.bond.first_at
        if not rule.tenure or first is None:
            return None
        years = max(0, at - first) // YEAR + 1
        return first + years * YEAR if years <= rule.tenure_years else None

    def falls_below(self, customer: Customer, at: int, least: int) -> int | None:
        """When an attachment that is at least ``least`` at ``at`` will not be any more, tenure as it is now.

        From the newest back, as far as the threshold needs: not the whole history. None where tenure alone is enough.
        """
        held = self.tenure(customer, at)
        if held >= least:
            return None
        for time, points in self._newest_first(customer, at):
            held += points
            if held >= least:
                return min(time + self.window, self._renewal_ends(customer, at))
        return None

    def _renewal_ends(self, customer: Customer, at: int) -> int:
        """When the oldest renewal counts no more: where that is the orders' window, it may be before older touches."""
        if not self._rule.renewal or self._renewed_for == self.window or not customer.bond.subscriptions:
            return at + self.window
        renewed = self._renewals(customer, at)
        return min((time + self._renewed_for for time in renewed), default=at + self.window)

    def _newest_first(self, customer: Customer, at: int) -> Iterator[tuple[int, int]]:
        """What adds to the attachment up to ``at``: when, and how many points."""
        rule, touches = self._rule, customer.touches
        renewals = self._renewals(customer, at) if rule.renewal and customer.bond.subscriptions else iter(())
        renewed = next(renewals, None)
        channels: set[int] = set()
        for index in range(bisect_right(touches, at, key=_time_of) - 1, -1, -1):
            touch = touches[index]
            while renewed is not None and renewed >= touch.time:
                yield renewed, rule.renewal
                renewed = next(renewals, None)
            if touch.outbound:
                continue
            points = self._points(customer, touch)
            if touch.channel not in channels:
                channels.add(touch.channel)
                points += rule.breadth
            yield touch.time, points
        while renewed is not None:
            yield renewed, rule.renewal
            renewed = next(renewals, None)

    def _tally(self, customer: Customer, at: int) -> Tally:
        tally, touches = customer.tally, customer.touches
        if tally is None or at < tally.at:
            tally = customer.tally = Tally()
            tally.low = tally.size = bisect_right(touches, at - self.window, key=_time_of)
        size = len(touches)
        if tally.size < size:
            channels = tally.channels
            while tally.size < size and touches[tally.size].time <= at:
                touch = touches[tally.size]
                tally.size += 1
                if not touch.outbound:
                    tally.points += self._points(customer, touch)
                    channels[touch.channel] = channels.get(touch.channel, 0) + 1
        start = at - self.window
        while tally.low < tally.size and touches[tally.low].time <= start:
            touch = touches[tally.low]
            tally.low += 1
            if not touch.outbound:
                tally.points -= self._points(customer, touch)
                left = tally.channels[touch.channel] - 1
                if left:
                    tally.channels[touch.channel] = left
                else:
                    del tally.channels[touch.channel]
        tally.at = at
        return tally

    def _points(self, customer: Customer, touch: Touch) -> int:
        action = customer.actions[touch.action] if touch.action >= 0 else None
        named = customer.channels[touch.channel], action
        worth = self._worth.get(named)
        if worth is None:
            worth = self._worth_of(*named)
            if len(self._worth) < 10_000:  # what shops may call their channels has no end
                self._worth[named] = worth
        return worth

    def _worth_of(self, channel: str, action: str | None) -> int:
        for points in self._rule.points:
            if points.channel in (None, channel) and points.action in (None, action):
                return points.points
        return 0

    def _renewals(self, customer: Customer, at: int) -> Iterator[int]:
        """When subscriptions were renewed in the window up to ``at``, the newest first."""
        start = at - self._renewed_for
        for index in range(len(customer.times) - 1, customer.low - 1, -1):
            time = customer.times[index]
            if time <= start:
                return
            bought = customer.counted[index].bought
            if (
                bought is not None
                and bought.subscription_id is not None
                and time <= at
                and is_renewal(customer.bond, bought.subscription_id, time)
            ):
                yield time
