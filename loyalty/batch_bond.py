"""One customer's bond in the batch computation: segment, triggers and attributions, from docs/bonds.md.

Naive on purpose, see ``loyalty.batch``: every evaluation asks all facts anew, and what time brings is found by trying
every instant at which anything could happen. What was read is in ``loyalty.batch_facts``.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

from loyalty.batch_contact import BatchPermission, Place, contacts, draw, permission
from loyalty.batch_facts import BatchFacts, Converted
from loyalty.batch_scenarios import Stand, holds, is_met
from schemas.bond_records import (
    AttributionEvent,
    BondEvent,
    Conversion,
    HoldoutDraw,
    SegmentEvent,
    SegmentReason,
    Touched,
    TriggerEvent,
    TriggerStatus,
    attribution_id,
    segment_event_id,
    trigger_id,
)
from schemas.events import OverrideCommanded, PurchaseMade, RefundMade, TouchpointMade
from schemas.money import format_minor
from schemas.program import Program
from schemas.program_bonds import Bonds, Scenario
from schemas.tier_change import ProgramRef
from schemas.times import DAY, format_ms, parse_rfc3339

Cause = PurchaseMade | RefundMade | TouchpointMade | OverrideCommanded


class _Run(NamedTuple):
    started: int
    step: int
    planned: int
    due: int


class _Watch(NamedTuple):
    """``on`` is None where the program has lost the scenario: only the count of runs is left, and the last begin."""

    on: bool | None = False
    runs: int = 0
    last_started: int | None = None
    run: _Run | None = None


class _Told(NamedTuple):
    """What was told last of a conversion; ``touch`` is the touch's source, id and time, None where withdrawn."""

    touch: tuple[str, str, int] | None
    at: int
    amount: int
    store: str | None
    revision: int


class BatchBond:
    """``records`` in the order decided, and the state that they led to. ``time`` is the bond's own."""

    def __init__(self, customer_id: str) -> None:
        self.customer_id = customer_id
        self.facts = BatchFacts()
        self.time: int | None = None
        self.records: list[BondEvent] = []
        self.segment: str | None = None
        self.segment_seq = 0
        self.attribution_seq = 0
        self.tier: str | None = None
        self.tier_since = 0
        self.places: list[Place] = []
        self._watches: dict[str, _Watch] = {}
        self._told: dict[object, _Told] = {}

    def copy(self) -> BatchBond:
        """The same as far as time alone goes on from here; records are not taken along."""
        other = copy(self)
        other.records = []
        other.places = list(self.places)
        other._watches, other._told = dict(self._watches), dict(self._told)
        return other

    # Asked as of an instant

    def segment_at(self, program: Program, at: int) -> str | None:
        """The segment by what was read; None where there are no segments."""
        return None if program.bonds is None else self.facts.segment(program, at)

    def permission(self, program: Program, channel: str, action: str | None, at: int) -> BatchPermission:
        """Whether the customer may be contacted."""
        return permission(program, self.facts.told_apart, self.places, channel, action, at)

    def contacts(self, program: Program, at: int) -> list[tuple[int, str]]:
        """What counts under the caps, by time."""
        policy = None if program.bonds is None else program.bonds.contact_policy
        return [] if policy is None else sorted(contacts(policy, self.facts.told_apart, self.places, at))

    def attributions(self, program: Program) -> list[Converted]:
        """The conversions that a touch brought, by facts alone, in the order of time."""
        section = None if program.bonds is None else program.bonds.attribution
        found = [] if section is None else self.facts.conversions(section)
        return [conversion for conversion in found if conversion.touch is not None]

    def reserve(self, record: TriggerEvent) -> None:
        """Take over a reserved place: it was decided outside, and is told as it is."""
        self.records.append(record)
        self.places.append(Place(record.event_id, parse_rfc3339(record.effective_at), record.channel))

    # Evaluation

    def evaluate(
        self, stand: Stand, at: int, reason: SegmentReason, cause: Cause | None, *, new: bool = True
    ) -> None:
        """Decide at bond time: the later of ``at`` and the last evaluation. ``new`` is whether a scenario that was
        never watched starts with its condition as not yet true."""
        bonds = stand.program.bonds
        if bonds is None:
            return
        self.time = at = at if self.time is None else max(self.time, at)
        if not bonds.segments:
            self.segment = None
        name = stand.program.tiers[stand.tier].name
        if name != self.tier:
            self.tier, self.tier_since = name, at
        self._tell_segment(stand, at, reason, cause)
        self._tell_attributions(stand, bonds, at)
        self._watch(stand, bonds, at, new)
        for scenario in bonds.scenarios:
            self._run(stand, scenario, at)

    def _watch(self, stand: Stand, bonds: Bonds, at: int, new: bool) -> None:
        """Watch the scenarios that the program has, and no others."""
        names = {scenario.name for scenario in bonds.scenarios}
        for name, watch in self._watches.items():
            if name not in names:
                self._watches[name] = watch._replace(on=None, run=None)
        for scenario in bonds.scenarios:
            watch = self._watches.get(scenario.name, _Watch(on=None))
            if watch.run is not None and watch.run.step >= len(scenario.steps):
                self._watches[scenario.name] = watch._replace(run=None)
            if watch.on is None:
                on = not new and holds(stand, self.facts, scenario, self.tier_since, at)
                self._watches[scenario.name] = watch._replace(on=on)

    def next_due(self, stand: Stand, before: int | None = None) -> int | None:
        """The first instant after bond time, and before one where given, at which time alone changes something."""
        if self.time is None or stand.program.bonds is None:
            return None
        time = self.time
        later = {at for at in self._instants(stand) if at > time and (before is None or at < before)}
        return next((at for at in sorted(later) if self._changes(stand, at)), None)

    def _changes(self, stand: Stand, at: int) -> bool:
        bonds = stand.bonds
        segment = self.facts.segment(stand.program, at)
        if bonds.segments and segment != self.segment:
            return True
        for scenario in bonds.scenarios:
            watch = self._watches[scenario.name]
            if watch.on != holds(stand, self.facts, scenario, self.tier_since, at):
                return True
            if watch.run is not None and watch.run.due <= at:
                return True
        return False

    def _instants(self, stand: Stand) -> Iterator[int]:
        """Every instant at which anything could happen."""
        program, bonds, facts = stand.program, stand.bonds, self.facts
        afters = {program.window, bonds.attachment.window}
        afters |= {segment.min_silence for segment in bonds.segments if segment.min_silence is not None}
        afters |= {tier.max_recency for tier in program.tiers if tier.max_recency is not None}
        afters |= {scenario.after for scenario in bonds.scenarios}
        ordered = sorted(order.time for order in facts.orders if order.time is not None)
        for time in ordered:
            yield from (time + after for after in afters)
        for touch in facts.touches:
            yield touch.occurred_at + bonds.attachment.window
        first = facts.first_at()
        if first is not None:
            yield from (first + years * 365 * DAY for years in range(1, bonds.attachment.tenure_years + 1))
        for factor in {segment.min_gaps for segment in bonds.segments if segment.min_gaps is not None}:
            gaps = {two - one for one in ordered for two in ordered if two >= one}
            yield from {newest + factor * gap // 1000 + 1 for newest in ordered for gap in gaps}
        held = bonds.subscriptions.period + bonds.subscriptions.grace
        for subscription in facts.subscriptions():
            said = facts.said(subscription)
            yield from (time + held for time in facts.paid(subscription))
            yield from () if said is None else (said[0] + held,)
            for scenario in bonds.scenarios:
                period = bonds.subscriptions.period
                yield from (time + period - scenario.before for time in facts.paid(subscription))
        for scenario in bonds.scenarios:
            yield self.tier_since + scenario.after
            run = self._watches[scenario.name].run
            if run is not None:
                yield run.due

    # Segments

    def _tell_segment(self, stand: Stand, at: int, reason: SegmentReason, cause: Cause | None) -> None:
        program, previous = stand.program, self.segment
        segment = self.segment_at(program, at)
        if segment is None or segment == previous:
            return
        self.segment = segment
        if not _is_told(program, at):
            return
        self.segment_seq += 1
        self.records.append(
            SegmentEvent(
                event_id=segment_event_id(program.id, self.customer_id, self.segment_seq),
                customer_id=self.customer_id,
                segment_seq=self.segment_seq,
                previous_segment=previous,
                segment=segment,
                reason=reason,
                cause_source=None if cause is None else cause.source,
                cause_event_id=None if cause is None else cause.event_id,
                effective_at=format_ms(at),
                program=ProgramRef(program.id, program.version),
                value=self.facts.value(program, at),
                attachment=self.facts.attachment(program, at),
                tier=program.tiers[stand.tier].name,
            )
        )

    # Attributions

    def _tell_attributions(self, stand: Stand, bonds: Bonds, at: int) -> None:
        if bonds.attribution is None:
            return
        for conversion in self.facts.conversions(bonds.attribution):
            key = conversion.order or (conversion.event.source, conversion.event.event_id)
            told, touch = self._told.get(key), conversion.touch
            if touch is None and (told is None or told.touch is None):
                continue
            now = _Told(
                touch=None if touch is None else (touch.source, touch.event_id, touch.occurred_at),
                at=conversion.event.occurred_at,
                amount=0 if touch is None or conversion.order is None else conversion.order.net,
                store=conversion.event.store_id,
                revision=0 if told is None else told.revision,
            )
            if now == told:
                continue
            if _is_told(stand.program, at):
                now = now._replace(revision=now.revision + 1)
                self._tell_attribution(stand.program, conversion, now, at)
            self._told[key] = now

    def _tell_attribution(self, program: Program, conversion: Converted, told: _Told, at: int) -> None:
        event, order, touch = conversion.event, conversion.order, conversion.touch
        self.attribution_seq += 1
        self.records.append(
            AttributionEvent(
                event_id=attribution_id(program.id, self.customer_id, self.attribution_seq),
                customer_id=self.customer_id,
                attribution_seq=self.attribution_seq,
                revision=told.revision,
                status="withdrawn" if touch is None else "attributed",
                conversion=Conversion(
                    kind="visit" if order is None else "purchase",
                    order_id=None if order is None else order.order_id,
                    event_id=event.event_id if order is None else None,
                    source=event.source if order is None else None,
                    occurred_at=format_ms(event.occurred_at),
                    channel=event.channel,
                    store_id=event.store_id,
                    campaign_id=event.campaign_id,
                ),
                touch=None
                if touch is None
                else Touched(
                    event_id=touch.event_id,
                    source=touch.source,
                    channel=touch.channel,
                    direction="inbound" if touch.direction == "inbound" else "outbound",
                    action=touch.action,
                    campaign_id=touch.campaign_id,
                    occurred_at=format_ms(touch.occurred_at),
                ),
                match=conversion.match,
                lag_seconds=None if touch is None else (event.occurred_at - touch.occurred_at) // 1000,
                amount=None if order is None else format_minor(told.amount, program.decimals),
                currency=program.currency,
                effective_at=format_ms(at),
                program=ProgramRef(program.id, program.version),
            )
        )

    # Scenarios

    def _run(self, stand: Stand, scenario: Scenario, at: int) -> None:
        """End a run whose goal is met, compare the condition, begin a run, and take what steps are due."""
        watch = self._watches[scenario.name]
        on, told = holds(stand, self.facts, scenario, self.tier_since, at), _is_told(stand.program, at)
        if watch.run is not None and is_met(stand, self.facts, scenario, watch.run.started, on, at):
            watch = watch._replace(run=None)
        cool = watch.last_started is None or watch.last_started + scenario.cool_down <= at
        if told and on and not watch.on and watch.run is None and cool:
            due = at + scenario.steps[0].wait
            watch = watch._replace(runs=watch.runs + 1, last_started=at, run=_Run(at, 0, due, due))
        watch = watch._replace(on=on)
        while told and watch.run is not None and watch.run.due <= at:
            watch = watch._replace(run=self._step(stand, scenario, watch.runs, watch.run, at))
        self._watches[scenario.name] = watch

    def _step(self, stand: Stand, scenario: Scenario, number: int, run: _Run, at: int) -> _Run | None:
        """Take a step that is due: the run then, None where it is over."""
        step = scenario.steps[run.step]
        drawn = draw(stand.bonds.holdout, scenario, self.customer_id)
        if drawn is not None and (drawn.overall or drawn.scenario):
            status: TriggerStatus = "held_out"
            reason: str | None = "holdout: overall" if drawn.overall else "holdout: scenario"
        else:
            asked = self.permission(stand.program, step.channel, None, at)
            if asked.until is not None and asked.until <= run.planned + scenario.patience:
                return run._replace(due=asked.until)
            status, reason = ("sent", None) if asked.verdict == "allow" else ("suppressed", asked.reason)
        self._tell_trigger(stand, scenario, number, run, status, reason, drawn, at)
        if run.step + 1 == len(scenario.steps):
            return None
        planned = at + scenario.steps[run.step + 1].wait
        return _Run(run.started, run.step + 1, planned, planned)

    def _tell_trigger(
        self,
        stand: Stand,
        scenario: Scenario,
        number: int,
        run: _Run,
        status: TriggerStatus,
        reason: str | None,
        drawn: HoldoutDraw | None,
        at: int,
    ) -> None:
        program, step = stand.program, scenario.steps[run.step]
        policy = stand.bonds.contact_policy
        identity = trigger_id(program.id, self.customer_id, scenario.name, number, run.step + 1)
        if status == "sent" and policy is not None:
            self.places.append(Place(identity, at, step.channel))
        self.records.append(
            TriggerEvent(
                event_id=identity,
                customer_id=self.customer_id,
                scenario=scenario.name,
                run=number,
                step=run.step + 1,
                steps=len(scenario.steps),
                status=status,
                reason=reason,
                channel=step.channel,
                content=step.content,
                effective_at=format_ms(at),
                run_started_at=format_ms(run.started),
                expires_at=format_ms(at + policy.lapse) if policy is not None and status == "sent" else None,
                holdout=drawn,
                segment=self.segment,
                tier=program.tiers[stand.tier].name,
                program=ProgramRef(program.id, program.version),
            )
        )


def _is_told(program: Program, at: int) -> bool:
    return program.publish_from is None or at >= program.publish_from
