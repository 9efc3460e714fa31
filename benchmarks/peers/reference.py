"""What must come out, in plain Python: at every event the customer's orders are looked through and summed anew.

It reads the records themselves and shares nothing with Kizuna or with any peer.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class Told(NamedTuple):
    """A tier change as it was published; money in cents, times in epoch ms."""

    order_id: str
    previous_tier: str
    tier: str
    effective_at: int
    recency_seconds: int | None
    frequency: int
    monetary: int


class WrongError(Exception):
    """Outputs are not what they must be; the message says where."""


class Reference:
    """The tiers of everybody after every event of an input, which is read record by record.

    `window_ms` is in ms, `tiers` are name, least monetary (cents) and least frequency, the lowest first.
    """

    def __init__(self, window_ms: int, tiers: Sequence[tuple[str, int, int]]) -> None:
        self._window = window_ms
        self._tiers = list(tiers)
        self._orders: dict[str, dict[str, tuple[int, int]]] = {}
        self._times: dict[str, int] = {}
        # Of every event that is no duplicate: the customer's time, and its tier then.
        self._at: dict[str, array[int]] = {}
        self._tier: dict[str, array[int]] = {}
        #: By customer, what a peer must publish, in this order.
        self.changes: dict[str, list[Told]] = {}
        self.events = 0
        #: Sum of all amounts, in cents.
        self.amount = 0

    @property
    def changed(self) -> int:
        """How many records a peer must publish."""
        return sum(map(len, self.changes.values()))

    @property
    def customers(self) -> int:
        """How many there are."""
        return len(self._times)

    def final(self) -> dict[str, int]:
        """How many customers end in each tier."""
        ends = [self._tiers[tiers[-1]][0] for tiers in self._tier.values()]
        return {name: ends.count(name) for name, _, _ in self._tiers}

    def read(self, value: bytes) -> str | None:
        """The next record, in the order of its partition; the id of its order, where it brings a change."""
        body = json.loads(value)
        customer, order = body["customer_id"], body["order_id"]
        at = (datetime.fromisoformat(body["occurred_at"]) - _EPOCH) // _MS
        amount = cents(body["amount"])
        self.events += 1
        self.amount += amount
        time = max(at, self._times.get(customer, at))
        start = time - self._window
        orders = self._orders.setdefault(customer, {})
        if at <= start or (order in orders and orders[order][0] > start):
            return None
        for left in [known for known, (bought, _) in orders.items() if bought <= start]:
            del orders[left]
        orders[order] = at, amount
        self._times[customer] = time
        tier = self._tier_of(orders, start)
        tiers = self._tier.setdefault(customer, array("B"))
        before = tiers[-1] if tiers else 0
        tiers.append(tier)
        self._at.setdefault(customer, array("q")).append(time)
        if tier == before:
            return None
        recency = (time - max(bought for bought, _ in orders.values())) // 1000
        names = self._tiers[before][0], self._tiers[tier][0]
        monetary = sum(amount for _, amount in orders.values())
        told = Told(order, *names, time, recency, len(orders), monetary)
        self.changes.setdefault(customer, []).append(told)
        return told.order_id

    def check(self, published: Mapping[str, Sequence[Told]]) -> None:
        """Raise WrongError where a peer has published, by customer, anything else than `changes`."""
        if published == self.changes:
            return
        for customer in sorted({*published, *self.changes}):
            is_, must = list(published.get(customer, ())), self.changes.get(customer, [])
            if is_ != must:
                first = next(
                    (i for i, pair in enumerate(zip(is_, must, strict=False)) if pair[0] != pair[1]), -1
                )
                where = (
                    f"{is_[first]}, not {must[first]}"
                    if first >= 0
                    else f"{len(is_)} changes, not {len(must)}"
                )
                raise WrongError(f"customer {customer}: {where}")

    def check_in_force(self, published: Mapping[str, Sequence[Told]]) -> None:
        """The same for one who also tells of what time brings, with an empty order_id, by the clock of the event times.

        At each of a customer's own events the last tier by then must be the reference's (of several at one instant, the
        last one's), and in the end the one that is left when all has fallen that falls before the newest time of all. A
        change at an event that changed the tier must say the same. Raises WrongError.
        """
        unknown = published.keys() - self._at.keys()
        if unknown:
            raise WrongError(f"customer {min(unknown)} was never in the input")
        clock = max(self._times.values(), default=0)
        for customer, times in self._at.items():
            told = published.get(customer, ())
            before = self._tiers[0][0]
            for change in told:
                if change.previous_tier != before:
                    raise WrongError(f"customer {customer}: {change} follows {before}")
                before = change.tier
            must = self._tiers[self._tier_of(self._orders[customer], clock - self._window - 1)][0]
            if before != must:
                raise WrongError(f"customer {customer}: {before} in the end, not {must}")
            self._check_at_events(customer, times, told)

    def _check_at_events(self, customer: str, times: "array[int]", told: Sequence[Told]) -> None:
        tiers, last, end = self._tier[customer], len(times) - 1, len(told)
        tier, next_ = self._tiers[0][0], 0
        for index, at in enumerate(times):
            while next_ < end and told[next_].effective_at <= at:
                tier = told[next_].tier
                next_ += 1
            if index < last and times[index + 1] == at:
                continue
            must = self._tiers[tiers[index]][0]
            if tier != must:
                raise WrongError(f"customer {customer}: {tier} at {at}, not {must}")
        by_order = {change.order_id: change for change in told}
        for must_be in self.changes.get(customer, ()):
            is_ = by_order.get(must_be.order_id)
            if is_ is not None and is_[2:] != must_be[2:]:
                raise WrongError(f"customer {customer}: {is_}, not {must_be}")

    def _tier_of(self, orders: Mapping[str, tuple[int, int]], start: int) -> int:
        """The highest tier that the orders after an instant hold."""
        amounts = [amount for at, amount in orders.values() if at > start]
        monetary, frequency = sum(amounts), len(amounts)
        holding = 0
        for index, (_, least_monetary, least_frequency) in enumerate(self._tiers):
            if monetary >= least_monetary and frequency >= least_frequency:
                holding = index
        return holding


def cents(amount: str) -> int:
    """An amount's text in cents."""
    whole, _, part = amount.partition(".")
    return int(whole) * 100 + int(part.ljust(2, "0"))


def told_by_peer(values: Iterable[bytes]) -> Iterator[tuple[str, Told]]:
    """A peer's records, read. Raises WrongError."""
    for value in values:
        try:
            body: dict[str, Any] = json.loads(value)
            rfm = body["rfm"]
            yield (
                body["customer_id"],
                Told(
                    body["order_id"],
                    body["previous_tier"],
                    body["tier"],
                    epoch_ms(body["effective_at"]),
                    rfm["recency_seconds"],
                    rfm["frequency"],
                    cents(rfm["monetary"]),
                ),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise WrongError(f"not a tier change: {error!r}: {value!r}") from error


def epoch_ms(text: str) -> int:
    """Epoch ms of RFC 3339."""
    return (datetime.fromisoformat(text) - _EPOCH) // _MS
