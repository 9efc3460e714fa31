"""Nurturing scenarios: what each watches for, its runs, and the triggers of their steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from loyalty.bond import BondChange, Run, Watch
from loyalty.contact_policy import ALLOWED, Policy
from loyalty.customer import Customer
from loyalty.holdout import Draw
from loyalty.segments import NEVER, Axes
from loyalty.subscriptions import Subscriptions
from schemas.bond_records import HoldoutDraw, TriggerStatus
from schemas.program import Program
from schemas.program_bonds import Bonds, Scenario


class Condition(ABC):
    """What a scenario watches. Instants are bond times, epoch milliseconds."""

    asks_subscriptions = False
    """Whether it is false of everybody who has no subscription."""

    @abstractmethod
    def holds(self, customer: Customer, at: int) -> bool:
        """Whether it is true at an instant that is not before anything that was read."""

    def turn(self, customer: Customer, after: int) -> int:
        """The first instant after one at which it may turn, if nothing more arrives and nothing else is told."""
        return NEVER


@dataclass(frozen=True)
class Made:
    """A trigger that an evaluation made, before it is numbered."""

    scenario: Scenario
    run: int
    step: int
    status: TriggerStatus
    reason: str | None
    started: int
    draw: HoldoutDraw | None


class _Watched:
    """A scenario and what it watches."""

    def __init__(self, scenario: Scenario, condition: Condition) -> None:
        self.name = scenario.name
        self.scenario = scenario
        self.condition = condition
        self.asks_subscriptions = condition.asks_subscriptions


Tell = Callable[[Customer, int, Made], BondChange]
"""Numbers a trigger at an instant, and takes a place under the caps for it."""


class Scenarios:
    """One program's scenarios, evaluated in the file's order."""

    def __init__(
        self, program: Program, bonds: Bonds, axes: Axes, subscriptions: Subscriptions, tell: Tell
    ) -> None:
        self._watched = [
            _Watched(scenario, _condition(scenario, program, axes, subscriptions))
            for scenario in bonds.scenarios
        ]
        self._axes = axes
        self._tell = tell
        self._draw = None if bonds.holdout is None else Draw(bonds.holdout, bonds.scenarios)
        self.policy = None if bonds.contact_policy is None else Policy(bonds.contact_policy, program.timezone)

    def evaluate(self, customer: Customer, at: int, out: list[BondChange] | None) -> bool:
        """Begin, go on with and end runs; whether anything of that happened. Triggers are added to ``out``; None where
        conditions are only to be watched."""
        watches, subscribes = customer.bond.watches, bool(customer.bond.subscriptions)
        turned = False
        for watched in self._watched:
            watch = watches.get(watched.name)
            if watched.asks_subscriptions and not subscribes and watch is None:
                continue
            holds = watched.condition.holds(customer, at)
            if watch is None:
                if not holds:
                    continue
                watch = watches[watched.name] = Watch()
            elif watch.run is None and watch.on == holds:
                continue
            if self._goes_on(watched.scenario, watch, holds, customer, at, out):
                turned = True
        return turned

    def _goes_on(
        self,
        scenario: Scenario,
        watch: Watch,
        holds: bool,
        customer: Customer,
        at: int,
        out: list[BondChange] | None,
    ) -> bool:
        """One scenario's part of an evaluation; whether anything turned."""
        turned = watch.on != holds
        run = watch.run
        if run is not None and self._is_met(scenario, run, customer, holds, at):
            watch.run = run = None
            turned = True
        begins = holds and not watch.on and run is None and out is not None
        watch.on = holds
        if begins and _is_cool(scenario, watch, at):
            first = at + scenario.steps[0].wait
            watch.runs += 1
            watch.last_started = at
            watch.run = run = Run(at, 0, first, first)
        while out is not None and run is not None and run.due <= at:
            turned = True
            trigger = self._step(scenario, watch, run, customer, at)
            if trigger is not None:
                out.append(self._tell(customer, at, trigger))
            run = watch.run
        return turned

    def baseline(self, customer: Customer, at: int, known: frozenset[str]) -> None:
        """Take the conditions of scenarios that are not among the ``known`` as they are; stop to watch those that are
        gone. Their runs stay counted: should one come back, none of its triggers may bear an id that was told."""
        watches = customer.bond.watches
        names = {watched.name for watched in self._watched}
        for gone in watches.keys() - names:
            watches[gone].on, watches[gone].run = False, None
        for watched in self._watched:
            name = watched.name
            if name not in known and watched.condition.holds(customer, at):
                watches.setdefault(name, Watch()).on = True
                continue
            run = watch.run if (watch := watches.get(name)) else None
            if watch is not None and run is not None and run.step >= len(watched.scenario.steps):
                watch.run = None

    def next_turn(self, customer: Customer, after: int, before: int) -> int:
        """The next instant after one at which a step is due or a condition may turn, if nothing more arrives;
        ``before`` where that is not before it."""
        turn = before
        for watch in customer.bond.watches.values():
            run = watch.run
            if run is not None and after < run.due < turn:
                turn = run.due
        for watched in self._watched:
            turn = min(turn, watched.condition.turn(customer, after))
        return turn

    def went_on(self, scenario_name: str, watch: Watch, started: int, step: int, at: int) -> None:
        """Let a run stand as its published trigger says: ``step`` of them are out, the last at ``at``."""
        steps = next((w.scenario.steps for w in self._watched if w.name == scenario_name), ())
        watch.run = None
        if step < len(steps):
            due = at + steps[step].wait
            watch.run = Run(started, step, due, due)

    def _step(self, scenario: Scenario, watch: Watch, run: Run, customer: Customer, at: int) -> Made | None:
        """The run's next step, which then is the one after it; None where it is put off."""
        step = scenario.steps[run.step]
        draw = None if self._draw is None else self._draw.stamp(scenario.name, customer.customer_id)
        status: TriggerStatus = "sent"
        reason = None
        if draw is not None and (draw.overall or draw.scenario):
            status, reason = "held_out", "holdout: overall" if draw.overall else "holdout: scenario"
        else:
            permission = (
                ALLOWED if self.policy is None else self.policy.permission(customer, step.channel, None, at)
            )
            if permission.decision != "allow":
                until = permission.until
                if until is not None and until <= run.planned + scenario.patience:
                    run.due = until
                    return None
                status, reason = "suppressed", permission.reason
        made = Made(scenario, watch.runs, run.step, status, reason, run.started, draw)
        if run.step + 1 == len(scenario.steps):
            watch.run = None
        else:
            run.step += 1
            run.planned = run.due = at + scenario.steps[run.step].wait
        return made

    def _is_met(self, scenario: Scenario, run: Run, customer: Customer, holds: bool, at: int) -> bool:
        if scenario.goal == "order":
            last = self._axes.last(customer, at)
            return last is not None and last > run.started
        if scenario.goal == "visit":
            return customer.bond.visited_at > run.started
        return scenario.goal == "condition" and not holds


def _is_cool(scenario: Scenario, watch: Watch, at: int) -> bool:
    return watch.last_started is None or at >= watch.last_started + scenario.cool_down


def _condition(scenario: Scenario, program: Program, axes: Axes, subscriptions: Subscriptions) -> Condition:
    when = scenario.when
    if when == "segment":
        return _InSegment(scenario.segment)
    if when == "first_order":
        return _SinceFirst(scenario.after)
    if when == "last_order":
        return _SinceLast(scenario.after, axes)
    if when == "near_tier":
        return _NearTier(scenario, program, axes)
    if when == "tier_at_risk":
        return _AtRisk()
    if when == "benefit_unused":
        return _BenefitUnused(scenario, program)
    return (
        _Renewal(scenario.before, subscriptions)
        if when == "subscription_renewal"
        else _Cancelled(subscriptions)
    )


class _InSegment(Condition):
    """The segments say when it turns."""

    def __init__(self, segment: str) -> None:
        self._segment = segment

    def holds(self, customer: Customer, at: int) -> bool:
        return customer.bond.segment == self._segment


class _SinceFirst(Condition):
    def __init__(self, after: int) -> None:
        self._after = after

    def holds(self, customer: Customer, at: int) -> bool:
        first = customer.bond.first_at
        return first is not None and at - first >= self._after

    def turn(self, customer: Customer, after: int) -> int:
        first = customer.bond.first_at
        return NEVER if first is None else _if_after(first + self._after, after)


class _SinceLast(Condition):
    def __init__(self, after: int, axes: Axes) -> None:
        self._after = after
        self._axes = axes

    def holds(self, customer: Customer, at: int) -> bool:
        last = self._axes.last(customer, at)
        return last is not None and at - last >= self._after

    def turn(self, customer: Customer, after: int) -> int:
        last = self._axes.last(customer, after)
        if last is None:
            return NEVER
        begins, ends = last + self._after, last + self._axes.window
        return min(_if_after(begins, after), _if_after(ends, after))


class _AtRisk(Condition):
    """The tiers say when it turns."""

    def holds(self, customer: Customer, at: int) -> bool:
        return customer.at_risk is not None


class _NearTier(Condition):
    def __init__(self, scenario: Scenario, program: Program, axes: Axes) -> None:
        self._axes = axes
        # What it takes to be near each tier: orders, money, and the recency that the tier asks for.
        self._takes = [
            (
                max(0, tier.min_frequency - scenario.orders),
                max(0, tier.min_monetary - scenario.amount),
                NEVER if tier.max_recency is None else tier.max_recency,
            )
            for tier in program.tiers
        ]

    def holds(self, customer: Customer, at: int) -> bool:
        if customer.tier + 1 >= len(self._takes):
            return False
        orders, money, recency = self._takes[customer.tier + 1]
        if len(customer.times) - customer.low < orders or customer.monetary < money:
            return False  # at the customer's own time, and then nothing is gained
        count, monetary = self._axes.counted(customer, at)
        if count < orders or monetary < money:
            return False
        last = self._axes.last(customer, at)
        return recency == NEVER or (last is not None and at - last < recency)

    def turn(self, customer: Customer, after: int) -> int:
        if not self.holds(customer, after):
            return NEVER  # time alone brings nobody nearer
        orders, money, recency = self._takes[customer.tier + 1]
        turn = NEVER
        if orders or money:
            lost = self._axes.falls_below(customer, orders, money)
            if lost is not None:
                turn = _if_after(lost, after)
        last = self._axes.last(customer, after)
        if recency != NEVER and last is not None:
            turn = min(turn, _if_after(last + recency, after))
        return turn


class _BenefitUnused(Condition):
    def __init__(self, scenario: Scenario, program: Program) -> None:
        self._benefit = scenario.benefit
        self._after = scenario.after
        self._named = [scenario.benefit in tier.benefits for tier in program.tiers]

    def holds(self, customer: Customer, at: int) -> bool:
        if not self._named[customer.tier]:
            return False
        bond = customer.bond
        return at - bond.tier_since >= self._after and bond.redeemed.get(self._benefit, -1) < bond.tier_since

    def turn(self, customer: Customer, after: int) -> int:
        if not self._named[customer.tier]:
            return NEVER
        return _if_after(customer.bond.tier_since + self._after, after)


class _Renewal(Condition):
    asks_subscriptions = True

    def __init__(self, before: int, subscriptions: Subscriptions) -> None:
        self._before = before
        self._subscriptions = subscriptions

    def holds(self, customer: Customer, at: int) -> bool:
        return self._subscriptions.renews(customer.bond, self._before, at)

    def turn(self, customer: Customer, after: int) -> int:
        turn = NEVER
        if customer.bond.subscriptions:
            for at in self._subscriptions.renewals_near(customer.bond, self._before, after):
                turn = min(turn, _if_after(at, after))
        return turn


class _Cancelled(Condition):
    """Only a touchpoint turns it."""

    asks_subscriptions = True

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    def holds(self, customer: Customer, at: int) -> bool:
        return self._subscriptions.any_in(customer.bond, "cancelled", at)


def _if_after(at: int, after: int) -> int:
    return at if at > after else NEVER
