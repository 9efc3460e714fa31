"""The batch computation's conditions and goals of scenarios: docs/bonds.md a second time, from all facts."""

from __future__ import annotations

from typing import NamedTuple

from loyalty.batch_facts import BatchFacts
from schemas.program import Program
from schemas.program_bonds import Bonds, Scenario


class Stand(NamedTuple):
    """What the tiers show when the bond is evaluated: the tier's index, and until when it is at risk."""

    program: Program
    tier: int
    at_risk: int | None

    @property
    def bonds(self) -> Bonds:
        """The program's, which has some."""
        assert self.program.bonds is not None
        return self.program.bonds


def holds(stand: Stand, facts: BatchFacts, scenario: Scenario, tier_since: int, at: int) -> bool:
    """Whether a scenario's condition is true at an instant. The tier is the one that is shown ``tier_since``."""
    program = stand.program
    counted = facts.counted(program, at)
    match scenario.when:
        case "segment":
            return facts.segment(program, at) == scenario.segment
        case "first_order":
            first = facts.first_at()
            return first is not None and at >= first + scenario.after
        case "last_order":
            return bool(counted) and at >= counted[-1][0] + scenario.after
        case "near_tier":
            return _is_near(stand, facts, scenario, at)
        case "tier_at_risk":
            return stand.at_risk is not None
        case "subscription_renewal" | "subscription_cancelled":
            return _is_of_subscription(stand, facts, scenario, at)
    if scenario.benefit not in program.tiers[stand.tier].benefits or at < tier_since + scenario.after:
        return False
    redeemed = [
        touch.occurred_at
        for touch in facts.touches
        if (touch.direction, touch.action, touch.campaign_id) == ("inbound", "redeem", scenario.benefit)
    ]
    return not any(time >= tier_since for time in redeemed)


def _is_near(stand: Stand, facts: BatchFacts, scenario: Scenario, at: int) -> bool:
    """By the thresholds to enter the next tier, its recency as it is."""
    if stand.tier + 1 == len(stand.program.tiers):
        return False
    counted, above = facts.counted(stand.program, at), stand.program.tiers[stand.tier + 1]
    if above.max_recency is not None and not (counted and at - counted[-1][0] < above.max_recency):
        return False
    lacks = above.min_monetary - sum(order.net for _, order in counted)
    return lacks <= scenario.amount and above.min_frequency - len(counted) <= scenario.orders


def _is_of_subscription(stand: Stand, facts: BatchFacts, scenario: Scenario, at: int) -> bool:
    states = {name: facts.state(stand.program, name, at) for name in facts.subscriptions()}
    if scenario.when == "subscription_cancelled":
        return "cancelled" in states.values()
    period = stand.bonds.subscriptions.period
    paid = [facts.paid(name)[-1] for name, state in states.items() if state == "active" and facts.paid(name)]
    return any(at >= last + period - scenario.before for last in paid)


def is_met(stand: Stand, facts: BatchFacts, scenario: Scenario, started: int, on: bool, at: int) -> bool:
    """Whether the goal of a run that began at ``started`` is met. ``on`` is the condition."""
    if scenario.goal == "order":
        return any(time > started for time, _ in facts.counted(stand.program, at))
    if scenario.goal == "visit":
        return any(
            touch.occurred_at > started
            for touch in facts.touches
            if touch.direction == "inbound" and facts.in_store(stand.bonds.attribution, touch)
        )
    return scenario.goal == "condition" and not on
