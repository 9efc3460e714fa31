"""Tiers: which one a customer's metrics earn, and when time alone will take it away."""

from __future__ import annotations

from loyalty.customer import Customer
from schemas.program import Program

# Where no order counts, recency is longer than any limit, and shorter than "no limit".
_NO_LIMIT = 1 << 63
_NEVER_BOUGHT = _NO_LIMIT - 1


class Ladder:
    """A program's tiers, the lowest first, each at least as strict as the one below (the program is checked).

    So a tier that holds carries all those below, and the search goes up or down from where the customer is.
    """

    def __init__(self, program: Program) -> None:
        self.names = tuple(tier.name for tier in program.tiers)
        self._window = program.window
        self._thresholds = tuple(
            (
                tier.min_monetary,
                tier.min_frequency,
                _NO_LIMIT if tier.max_recency is None else tier.max_recency,
            )
            for tier in program.tiers
        )

    def holds(self, customer: Customer, at: int) -> bool:
        """Whether the customer's tier holds at ``at``, to which the window must have slid."""
        if not customer.tier:
            return True
        min_monetary, min_frequency, max_recency = self._thresholds[customer.tier]
        times = customer.times
        frequency = len(times) - customer.low
        recency = at - times[-1] if frequency else _NEVER_BOUGHT
        return customer.monetary >= min_monetary and frequency >= min_frequency and recency < max_recency

    def tier_for(self, customer: Customer, at: int) -> int:
        """The index of the highest tier all of whose thresholds hold at ``at``, to which the window has
        slid."""
        tier = customer.tier
        thresholds = self._thresholds
        times = customer.times
        monetary = customer.monetary
        frequency = len(times) - customer.low
        recency = at - times[-1] if frequency else _NEVER_BOUGHT
        highest = len(thresholds) - 1
        while tier < highest:
            min_monetary, min_frequency, max_recency = thresholds[tier + 1]
            if monetary < min_monetary or frequency < min_frequency or recency >= max_recency:
                break
            tier += 1
        if tier > customer.tier:
            return tier
        while tier:
            min_monetary, min_frequency, max_recency = thresholds[tier]
            if monetary >= min_monetary and frequency >= min_frequency and recency < max_recency:
                break
            tier -= 1
        return tier

    def next_fall(self, customer: Customer) -> int | None:
        """The first instant at which the customer's tier no longer holds, if nothing more arrives.

        As time passes recency grows, frequency and monetary shrink, and nothing gets better. The work is
        bounded by the tier's thresholds, not by the history. A tier that does not hold even now falls at the
        customer's time.
        """
        if not customer.tier or customer.time is None:
            return None
        min_monetary, min_frequency, max_recency = self._thresholds[customer.tier]
        times, window = customer.times, self._window
        frequency = len(times) - customer.low
        if frequency < min_frequency or customer.monetary < min_monetary:
            return customer.time
        falls = []
        if max_recency != _NO_LIMIT:
            falls.append(times[-1] + max_recency if frequency else customer.time)
        if min_frequency:
            falls.append(times[-min_frequency] + window)
        if min_monetary:
            falls.append(times[self._oldest_needed(customer, min_monetary)] + window)
        return max(customer.time, min(falls)) if falls else None

    @staticmethod
    def _oldest_needed(customer: Customer, min_monetary: int) -> int:
        """The index of the order with whose leaving the rest is below ``min_monetary``."""
        index = len(customer.times)
        held = 0
        counted = customer.counted
        while held < min_monetary:
            index -= 1
            order = counted[index]
            held += order.paid - order.refunded
        return index
