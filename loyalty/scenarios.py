"""Nurturing scenarios: what each watches for, its runs, and the triggers of their steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from loyalty.bond import Run, Watch
from loyalty.contact_policy import ALLOWED, Policy
from loyalty.customer import Customer
from loyalty.holdout import Draw
from loyalty.segments import Axes
from loyalty.subscriptions import Subscriptions
from schemas.bond_records import HoldoutDraw, TriggerStatus
from schemas.program import Program
from schemas.program_bonds import Bonds, Scenario

_NEVER = 1 << 62


class Condition(Protocol):
    """What a scenario watches. Instants are bond times, epoch milliseconds."""

    def holds(self, customer: Customer, at: int) -> bool:
        """Whether it is true at an instant that is not before anything that was read."""
        ...

    def turns(self, customer: Customer, after: int) -> Sequence[int]:
        """When it may turn, if nothing more arrives: instants, some of which may lie before ``after``."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """A trigger that an evaluation made, before it is numbered."""

    scenario: Scenario
    run: int
    step: int
    status: TriggerStatus
    reason: str | None
    started: int
    draw: HoldoutDraw | None


class Scenarios:
    """One program's scenarios, evaluated in the file's order."""

    def __init__(self, program: Program, bonds: Bonds, axes: Axes, subscriptions: Subscriptions) -> None:
        self._scenarios = [
            (scenario, _condition(scenario, program, axes, subscriptions)) for scenario in bonds.scenarios
        ]
        self._axes = axes
        self._asked = [(scenario.name, scenario, condition.holds) for scenario, condition in self._scenarios]
        self._asked_of_most = [
            (scenario.name, scenario, condition.holds)
            for scenario, condition in self._scenarios
            if not isinstance(condition, _OF_SUBSCRIPTIONS)
        ]
        self._of_subscriptions = frozenset(
            scenario.name
            for scenario, condition in self._scenarios
            if isinstance(condition, _OF_SUBSCRIPTIONS)
        )
        self._turning = [condition for _, condition in self._scenarios if not isinstance(condition, _TOLD)]
        self._draw = None if bonds.holdout is None else Draw(bonds.holdout, bonds.scenarios)
        self.policy = None if bonds.contact_policy is None else Policy(bonds.contact_policy, program.timezone)

    def evaluate(self, customer: Customer, at: int, publish: Callable[[Made], None] | None) -> None:
        """Begin, go on with and end runs. ``publish`` numbers a trigger, and takes a place under the caps for it; None
        where conditions are only to be watched."""
        watches = customer.bond.watches
        # Who has no subscription never was in one's conditions; a run may be left of another program's under the name.
        is_of_most = not customer.bond.subscriptions and self._of_subscriptions.isdisjoint(watches)
        for name, scenario, asked in self._asked_of_most if is_of_most else self._asked:
            watch = watches.get(name)
            holds = asked(customer, at)
            if watch is None:
                if not holds:
                    continue
                watch = watches[name] = Watch()
            elif watch.run is None and watch.on == holds:
                continue
            if watch.run is not None and self._is_met(scenario, watch.run, customer, holds, at):
                watch.run = None
            begins = holds and not watch.on and watch.run is None and publish is not None
            if begins and _is_cool(scenario, watch, at):
                first = at + scenario.steps[0].wait
                watch.runs += 1
                watch.last_started = at
                watch.run = Run(at, 0, first, first)
            watch.on = holds
            while publish is not None and watch.run is not None and watch.run.due <= at:
                self._step(scenario, watch, watch.run, customer, at, publish)

    def baseline(self, customer: Customer, at: int, known: frozenset[str]) -> None:
        """Take the conditions of scenarios that are not among the ``known`` as they are; stop to watch those that are
        gone. Their runs stay counted: should one come back, none of its triggers may bear an id that was told."""
        watches = customer.bond.watches
        names = {scenario.name for scenario, _ in self._scenarios}
        for gone in watches.keys() - names:
            watches[gone].on, watches[gone].run = False, None
        for scenario, condition in self._scenarios:
            if scenario.name not in known and condition.holds(customer, at):
                watches.setdefault(scenario.name, Watch()).on = True
                continue
            run = watch.run if (watch := watches.get(scenario.name)) else None
            if watch is not None and run is not None and run.step >= len(scenario.steps):
                watch.run = None

    def standing(self, customer: Customer) -> list[tuple[bool, int, int | None, int | None]]:
        """What an evaluation may change, to be compared."""
        return [
            (watch.on, watch.runs, *((None, None) if watch.run is None else (watch.run.step, watch.run.due)))
            for watch in customer.bond.watches.values()
        ]

    def next_turn(self, customer: Customer, after: int) -> int | None:
        """The next instant after one at which a step is due or a condition may turn, if nothing more arrives."""
        turn = _NEVER
        for watch in customer.bond.watches.values():
            if watch.run is not None and after < watch.run.due < turn:
                turn = watch.run.due
        for condition in self._turning:
            for at in condition.turns(customer, after):
                if after < at < turn:
                    turn = at
        return None if turn == _NEVER else turn

    def went_on(self, scenario_name: str, watch: Watch, started: int, step: int, at: int) -> None:
        """Let a run stand as its published trigger says: ``step`` of them are out, the last at ``at``."""
        steps = next((s.steps for s, _ in self._scenarios if s.name == scenario_name), ())
        watch.run = None
        if step < len(steps):
            due = at + steps[step].wait
            watch.run = Run(started, step, due, due)

    def _step(
        self,
        scenario: Scenario,
        watch: Watch,
        run: Run,
        customer: Customer,
        at: int,
        publish: Callable[[Made], None],
    ) -> None:
        """Publish the run's next step, or put it off."""
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
                    return
                status, reason = "suppressed", permission.reason
        publish(Made(scenario, watch.runs, run.step, status, reason, run.started, draw))
        if run.step + 1 == len(scenario.steps):
            watch.run = None
            return
        run.step += 1
        run.planned = run.due = at + scenario.steps[run.step].wait

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


@dataclass(frozen=True, slots=True)
class _InSegment:
    segment: str

    def holds(self, customer: Customer, at: int) -> bool:
        return customer.bond.segment == self.segment

    def turns(self, customer: Customer, after: int) -> Sequence[int]:
        return ()  # the segments say it


@dataclass(frozen=True, slots=True)
class _SinceFirst:
    after: int

    def holds(self, customer: Customer, at: int) -> bool:
        first = customer.bond.first_at
        return first is not None and at - first >= self.after

    def turns(self, customer: Customer, after: int) -> Sequence[int]:
        first = customer.bond.first_at
        return () if first is None else (first + self.after,)


@dataclass(frozen=True, slots=True)
class _SinceLast:
    after: int
    axes: Axes

    def holds(self, customer: Customer, at: int) -> bool:
        last = self.axes.last(customer, at)
        return last is not None and at - last >= self.after

    def turns(self, customer: Customer, after: int) -> Sequence[int]:
        last = self.axes.last(customer, after)
        return () if last is None else (last + self.after, last + self.axes.window)


@dataclass(frozen=True, slots=True)
class _AtRisk:
    def holds(self, customer: Customer, at: int) -> bool:
        return customer.at_risk is not None

    def turns(self, customer: Customer, after: int) -> Sequence[int]:
        return ()  # the tiers say it


class _NearTier:
    def __init__(self, scenario: Scenario, program: Program, axes: Axes) -> None:
        self._axes = axes
        # What it takes to be near each tier: orders, money, and the recency that the tier asks for.
        self._takes = [
            (
                max(0, tier.min_frequency - scenario.orders),
                max(0, tier.min_monetary - scenario.amount),
                tier.max_recency,
            )
            for tier in program.tiers
        ]

    def holds(self, customer: Customer, at: int) -> bool:
        if customer.tier + 1 >= len(self._takes):
            return False
        orders, money, recency = self._takes[customer.tier + 1]
        count, monetary = self._axes.counted(customer, at)
        if count < orders or monetary < money:
            return False
        last = self._axes.last(customer, at)
        return recency is None or (last is not None and at - last < recency)

    def turns(self, customer: Customer, after: int) -> Sequence[int]:
        if not self.holds(customer, after):
            return ()  # time alone brings nobody nearer
        orders, money, recency = self._takes[customer.tier + 1]
        turns = []
        if (orders or money) and (lost := self._axes.falls_below(customer, orders, money)) is not None:
            turns.append(lost)
        if recency is not None and (last := self._axes.last(customer, after)) is not None:
            turns.append(last + recency)
        return turns


class _BenefitUnused:
    def __init__(self, scenario: Scenario, program: Program) -> None:
        self._benefit = scenario.benefit
        self._after = scenario.after
        self._named = [scenario.benefit in tier.benefits for tier in program.tiers]

    def holds(self, customer: Customer, at: int) -> bool:
        bond = customer.bond
        return (
            self._named[customer.tier]
            and at - bond.tier_since >= self._after
            and bond.redeemed.get(self._benefit, -1) < bond.tier_since
        )

    def turns(self, customer: Customer, after: int) -> Sequence[int]:
        return (customer.bond.tier_since + self._after,) if self._named[customer.tier] else ()


@dataclass(frozen=True, slots=True)
class _Renewal:
    before: int
    subscriptions: Subscriptions

    def holds(self, customer: Customer, at: int) -> bool:
        return self.subscriptions.renews(customer.bond, self.before, at)

    def turns(self, customer: Customer, after: int) -> Sequence[int]:
        if not customer.bond.subscriptions:
            return ()
        return [*self.subscriptions.renewals_near(customer.bond, self.before, after)]


@dataclass(frozen=True, slots=True)
class _Cancelled:
    subscriptions: Subscriptions

    def holds(self, customer: Customer, at: int) -> bool:
        return self.subscriptions.any_in(customer.bond, "cancelled", at)

    def turns(self, customer: Customer, after: int) -> Sequence[int]:
        return ()  # only a touchpoint says it


_OF_SUBSCRIPTIONS = (_Renewal, _Cancelled)

_TOLD = (_InSegment, _AtRisk, _Cancelled)
"""Conditions that no time of their own turns."""
