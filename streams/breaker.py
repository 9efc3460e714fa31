"""The circuit breaker: where too large a share of a shard's customers falls within an hour, publishing pauses.

A wrong threshold or a shop whose events fail to come lets thousands fall at once, and who acts on money cannot take
that back. So the falls stay in the outbox until somebody decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from loyalty.views import Change
from schemas.tier_change import decode
from streams.outbox import Entry
from streams.topics import TIER_CHANGES

_MINUTE = 60_000
_HOUR_IN_MINUTES = 60


class Breaker:
    """Counts one shard's falls by the minute of their `effective_at`, over the 60 minutes up to the newest."""

    def __init__(self, share: float, falls: dict[int, int]) -> None:
        """`share`: of a shard's customers; 0 for no limit. `falls`: what has been counted, by epoch minute."""
        self._share = share
        self._falls = falls

    @property
    def is_on(self) -> bool:
        """Whether a limit is set."""
        return self._share > 0

    def count(self, changes: Iterable[Change]) -> str:
        """Count the falls among changes, forget those of earlier hours; what the shard's hash is to hold."""
        for change in changes:
            if change.direction == "downgrade":
                minute = change.effective_at // _MINUTE
                self._falls[minute] = self._falls.get(minute, 0) + 1
        oldest = max(self._falls, default=0) - _HOUR_IN_MINUTES
        self._falls = {minute: count for minute, count in self._falls.items() if minute > oldest}
        return " ".join(f"{minute}={count}" for minute, count in sorted(self._falls.items()))

    def trips(self, customers: int) -> bool:
        """Whether more have fallen than the share that is allowed of so many customers."""
        return self.is_on and sum(self._falls.values()) > self._share * customers

    def forget(self) -> str:
        """Count anew; what the shard's hash is to hold."""
        self._falls = {}
        return ""


@dataclass(slots=True)
class Held:
    """What is held of one customer who fell: how it stood in what was published last, and the entries' numbers."""

    tier: str
    tier_seq: int
    numbers: list[int] = field(default_factory=list)


def fallen(behind: Iterable[tuple[int, Entry]]) -> dict[str, Held]:
    """Of entries that are held, with their numbers: the customers with a fall among them."""
    held: dict[str, Held] = {}
    falls: set[str] = set()
    for number, entry in behind:
        if entry.topic != TIER_CHANGES or entry.value is None:
            continue
        told = decode(entry.value)
        if told.customer_id not in held:
            held[told.customer_id] = Held(told.previous_tier, told.tier_seq - 1)
        held[told.customer_id].numbers.append(number)
        if told.direction == "downgrade":
            falls.add(told.customer_id)
    return {customer_id: one for customer_id, one in held.items() if customer_id in falls}
