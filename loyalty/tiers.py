"""Tiers: which one a customer's metrics earn, and when time alone will take it away."""

from __future__ import annotations

from typing import Final

from loyalty.customer import Customer
from schemas.program import Program

# Where no order counts, recency is longer than any limit, and shorter than "no limit".
_NO_LIMIT: Final = 1 << 60
_NEVER_BOUGHT: Final = _NO_LIMIT - 1


class Ladder:
    """A program's tiers, the lowest first, each at least as strict to enter as the one below (the program is
    checked), and at least as strict to enter as to be retained.

    So who may enter a tier may enter all those below, and a search goes up or down from where the customer is.
    Every instant given is one to which the customer's window has slid.
    """

    def __init__(self, program: Program) -> None:
        self.names = tuple(tier.name for tier in program.tiers)
        self.index = {name: index for index, name in enumerate(self.names)}
        self._window = program.window
        self._enter = tuple(
            (
                tier.min_monetary,
                tier.min_frequency,
                _NO_LIMIT if tier.max_recency is None else tier.max_recency,
            )
            for tier in program.tiers
        )
        self._stay = tuple(
            (*tier.stays_at, limit) for tier, (_, _, limit) in zip(program.tiers, self._enter, strict=True)
        )

    def holds(self, customer: Customer, at: int) -> bool:
        """Whether the earned tier's thresholds to be retained hold at ``at``."""
        if not customer.earned:
            return True
        least_monetary, least_frequency, max_recency = self._stay[customer.earned]
        times = customer.times
        frequency = len(times) - customer.low
        recency = at - times[-1] if frequency else _NEVER_BOUGHT
        return customer.monetary >= least_monetary and frequency >= least_frequency and recency < max_recency

    def enterable(self, customer: Customer, at: int) -> int:
        """The highest tier above the earned one that can be entered at ``at``, else the earned one."""
        tier = customer.earned
        enter = self._enter
        highest = len(enter) - 1
        if tier == highest:
            return tier
        times = customer.times
        monetary = customer.monetary
        frequency = len(times) - customer.low
        recency = at - times[-1] if frequency else _NEVER_BOUGHT
        while tier < highest:
            min_monetary, min_frequency, max_recency = enter[tier + 1]
            if monetary < min_monetary or frequency < min_frequency or recency >= max_recency:
                break
            tier += 1
        return tier

    def requalified(self, customer: Customer, at: int) -> int:
        """The highest tier below the earned one that can be entered at ``at``."""
        times = customer.times
        frequency = len(times) - customer.low
        recency = at - times[-1] if frequency else _NEVER_BOUGHT
        for tier in range(customer.earned - 1, 0, -1):
            min_monetary, min_frequency, max_recency = self._enter[tier]
            if customer.monetary >= min_monetary and frequency >= min_frequency and recency < max_recency:
                return tier
        return 0

    def next_loss(self, customer: Customer) -> int | None:
        """The first instant at which the earned tier's thresholds to be retained no longer hold, if nothing
        more arrives.

        As time passes recency grows, frequency and monetary shrink, and nothing gets better. The work is
        bounded by the tier's thresholds, not by the history. A tier that does not hold even now is lost at the
        customer's time.
        """
        if not customer.earned or customer.time is None:
            return None
        least_monetary, least_frequency, max_recency = self._stay[customer.earned]
        times, window = customer.times, self._window
        frequency = len(times) - customer.low
        if frequency < least_frequency or customer.monetary < least_monetary:
            return customer.time
        losses = []
        if max_recency != _NO_LIMIT:
            losses.append(times[-1] + max_recency if frequency else customer.time)
        if least_frequency:
            losses.append(times[-least_frequency] + window)
        if least_monetary:
            losses.append(times[self._oldest_needed(customer, least_monetary)] + window)
        return max(customer.time, min(losses)) if losses else None

    def missing(
        self, customer: Customer, at: int, tier: int, *, to_enter: bool = False
    ) -> tuple[int, int, int | None]:
        """What a tier's thresholds lack at ``at``: money in minor units, orders, and the milliseconds within
        which the newest order would have to lie, None where it does."""
        monetary, frequency, max_recency = (self._enter if to_enter else self._stay)[tier]
        counted = customer.frequency
        recency = at - customer.times[-1] if counted else _NEVER_BOUGHT
        return (
            max(0, monetary - customer.monetary),
            max(0, frequency - counted),
            max_recency if recency >= max_recency else None,
        )

    @staticmethod
    def _oldest_needed(customer: Customer, least_monetary: int) -> int:
        """The index of the order with whose leaving the rest is below ``least_monetary``."""
        index = len(customer.times)
        held = 0
        nets = customer.nets
        while held < least_monetary:
            index -= 1
            held += nets[index]
        return index
