"""Subscriptions: what purchases and touchpoints say of them, and the state that follows."""

from __future__ import annotations

from collections.abc import Iterator

from loyalty.bond import SUBSCRIPTIONS_KEPT_APART, Bond, Subscription
from schemas.program_bonds import Subscriptions as Rule
from schemas.program_bonds import SubscriptionState

_RANK = {"": -1, "resume": 0, "pause": 1, "cancel": 2}
SAYING = frozenset(("pause", "resume", "cancel"))
"""Actions of touchpoints that say something of a subscription."""


class Subscriptions:
    """One program's rules for them. Times are epoch milliseconds."""

    def __init__(self, rule: Rule) -> None:
        self._period = rule.period
        self._kept = rule.period + rule.grace

    def bought(self, bond: Bond, subscription_id: str, at: int) -> None:
        """Note a purchase."""
        held = _held(bond, subscription_id)
        if held is None:
            return
        if held.first_at is None or at < held.first_at:
            held.first_at = at
        if held.last_at is None or at > held.last_at:
            held.last_at = at

    def said(self, bond: Bond, subscription_id: str | None, at: int, action: str) -> None:
        """Note a touchpoint whose action is one of ``SAYING``; without an id it means all that are known."""
        if subscription_id is None:
            told: list[Subscription] = list(bond.subscriptions.values())
        else:
            held = _held(bond, subscription_id)
            told = [] if held is None else [held]
        for held in told:
            if (at, _RANK[action]) > (held.said_at, _RANK[held.said]):
                held.said_at, held.said = at, action

    def state(self, held: Subscription, at: int) -> SubscriptionState:
        """The state as of an instant that is not before anything that was read of it."""
        if held.said and held.said_at >= _or_never(held.last_at):
            if held.said == "cancel":
                return "cancelled"
            if held.said == "pause":
                return "paused"
        return "lapsed" if self._lapses_at(held) <= at else "active"

    def any_in(self, bond: Bond, state: str, at: int) -> bool:
        """Whether the customer has one in a state."""
        if not bond.subscriptions:
            return False
        return any(self.state(held, at) == state for held in bond.subscriptions.values())

    def lapses(self, bond: Bond, after: int) -> Iterator[int]:
        """The instants after one at which active subscriptions lapse."""
        for held in bond.subscriptions.values():
            if self.state(held, after) == "active":
                yield self._lapses_at(held)

    def renews(self, bond: Bond, before: int, at: int) -> bool:
        """Whether an active one renews at most ``before`` milliseconds from ``at``, or should have."""
        if not bond.subscriptions:
            return False
        return any(
            held.last_at is not None
            and at >= held.last_at + self._period - before
            and self.state(held, at) == "active"
            for held in bond.subscriptions.values()
        )

    def renewals_near(self, bond: Bond, before: int, after: int) -> Iterator[int]:
        """The instants after one at which ``renews`` may change."""
        for held in bond.subscriptions.values():
            if held.last_at is not None and (near := held.last_at + self._period - before) > after:
                yield near
        yield from self.lapses(bond, after)

    def _lapses_at(self, held: Subscription) -> int:
        resumed = held.said_at if held.said == "resume" else -1
        return max(_or_never(held.last_at), resumed) + self._kept


def is_renewal(bond: Bond, subscription_id: str, at: int) -> bool:
    """Whether an order of a subscription is a later one than its first purchase."""
    held = bond.subscriptions.get(subscription_id)
    return held is not None and held.first_at is not None and at > held.first_at


def _held(bond: Bond, subscription_id: str) -> Subscription | None:
    subscriptions = bond.subscriptions
    held = subscriptions.get(subscription_id)
    if held is None and len(subscriptions) < SUBSCRIPTIONS_KEPT_APART:
        held = subscriptions[subscription_id] = Subscription(None, None)
    return held


def _or_never(at: int | None) -> int:
    return -1 if at is None else at
