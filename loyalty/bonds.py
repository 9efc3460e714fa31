"""Bonds: facts are noted as events come, decisions are made at evaluations. docs/bonds.md has the rules.

Customers are changed in place, as by the fold, which calls this. Times are epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from loyalty.attachment import Attachment
from loyalty.attribution import Attributions
from loyalty.bond import BondChange, BondMark, Bought, Named, Permission, Placed, Watch, digest_of
from loyalty.customer import STALE, Customer
from loyalty.entries import Order, Touch
from loyalty.scenarios import Made, Scenarios
from loyalty.segments import NEVER, Axes, Segments
from loyalty.subscriptions import SAYING, Subscriptions
from schemas.bond_records import (
    AttributionEvent,
    BondEvent,
    SegmentEvent,
    SegmentReason,
    TriggerEvent,
    encode,
    reservation_id,
    segment_event_id,
    trigger_id,
)
from schemas.event_key import event_key
from schemas.events import PurchaseMade, TouchpointMade
from schemas.program import Program
from schemas.program_bonds import Bonds as Sections
from schemas.tier_change import ProgramRef
from schemas.times import format_ms, parse_rfc3339

REDEEM = "redeem"
"""Action of the touch with which a benefit, named as its ``campaign_id``, is used."""

_OFFLINE = ("store",)


class Bonds:
    """One program's rules for bonds."""

    def __init__(self, program: Program, sections: Sections) -> None:
        """Raises ``ValueError`` where the tzdata package lacks the program's time zone."""
        self._program = program
        self._ref = ProgramRef(program.id, program.version)
        self._tiers = tuple(tier.name for tier in program.tiers)
        axes = self._axes = Axes(program)
        self._attachment = Attachment(sections.attachment, program.window)
        subscriptions = self._subscriptions = Subscriptions(sections.subscriptions)
        self._segments = (
            Segments(sections, axes, self._attachment, subscriptions) if sections.segments else None
        )
        self._scenarios = Scenarios(program, sections, axes, subscriptions, self._trigger)
        self.policy = self._scenarios.policy
        self._attributions = None if sections.attribution is None else Attributions(program)
        self._offline = _OFFLINE if sections.attribution is None else sections.attribution.offline
        points, policy = sections.attachment.points, sections.contact_policy
        # What nobody asks for is not kept, so nobody can fill a customer's state with it.
        self._actions = frozenset(
            (*(worth.action for worth in points), *(() if policy is None else policy.transactional))
        )
        self._lapse = None if policy is None else policy.lapse
        self._benefits = frozenset(s.benefit for s in sections.scenarios if s.benefit)
        self.scenario_names = frozenset(s.name for s in sections.scenarios)
        policy_reach = 0 if self.policy is None else self.policy.reach
        self.touches_reach = max(sections.attachment.window, policy_reach)
        """How long before the newest touch touches are needed, whatever the ledger."""
        self.touches_before_orders = None if self._attributions is None else self._attributions.reach
        """How long before the oldest order that may still come touches are needed; None where they are not."""

    @property
    def has_segments(self) -> bool:
        """Whether customers are in segments."""
        return self._segments is not None

    # -- facts -----------------------------------------------------------------------------------------------------

    def bought(self, customer: Customer, event: PurchaseMade, key: int, order: Order) -> None:
        """Note a purchase, by the key of its id, which its order has taken in."""
        bond, at = customer.bond, event.occurred_at
        if bond.first_at is None or at < bond.first_at:
            bond.first_at = at
        if event.subscription_id is not None:
            self._subscriptions.bought(bond, event.subscription_id, at)
        if order.key == key:
            bought = None
            attributions = self._attributions
            converts = attributions is not None and attributions.is_in_store(event.channel, event.store_id)
            # An order that was told of and is no conversion any more is withdrawn as what it is.
            if converts or event.subscription_id is not None or order.told is not None:
                bought = Bought(event.channel, event.store_id, event.campaign_id, event.subscription_id)
            order.bought = bought

    def touched(self, customer: Customer, event: TouchpointMade, touch: Touch) -> None:
        """Note a touch before the customer takes it in: what of it the bond asks for."""
        bond, at, action = customer.bond, event.occurred_at, event.action
        if action is not None:
            if action in self._actions:
                touch.action = _index(customer.actions, action)
            if action in SAYING:
                self._subscriptions.said(bond, event.subscription_id, at, action)
            elif action == REDEEM and event.campaign_id in self._benefits and event.direction == "inbound":
                bond.redeemed[event.campaign_id] = max(at, bond.redeemed.get(event.campaign_id, -1))
        if event.direction == "inbound":
            if (event.channel in self._offline or event.store_id is not None) and at > bond.visited_at:
                bond.visited_at = at
        elif event.trigger_id is not None:
            touch.trigger = event_key("", event.trigger_id)
        if event.timezone is not None and (at, event.timezone) > (bond.zone_at, bond.zone or ""):
            bond.zone, bond.zone_at = event.timezone, at
        attributions = self._attributions
        if attributions is not None and (
            attributions.is_online(event.channel) or attributions.is_visit(event)
        ):
            touch.named = Named(
                event.event_id,
                event.source,
                event.channel,
                event.action,
                event.store_id,
                event.campaign_id,
            )

    @staticmethod
    def seen(customer: Customer, at: int) -> None:
        """Note that an event of any input came: what is due has to be worked out anew."""
        customer.bond_due = STALE
        customer.bond.seen = max(customer.bond.seen, at)

    # -- decisions -------------------------------------------------------------------------------------------------

    def time(self, customer: Customer) -> int | None:
        """The bond time: of the newest event and of the last evaluation; None before the first event."""
        bond, own = customer.bond, customer.time
        at = bond.seen
        if bond.time is not None and bond.time > at:
            at = bond.time
        if own is not None and own > at:
            at = own
        return None if at < 0 else at

    def evaluate(
        self,
        customer: Customer,
        at: int,
        reason: SegmentReason,
        source: str | None = None,
        event_id: str | None = None,
        changed: Order | Touch | None = None,
        *,
        anew: bool = False,
    ) -> list[BondChange]:
        """One evaluation, at the later of ``at`` and the bond time; the records to publish.

        ``changed`` is the order or the touch that an event has changed or brought; ``anew`` asks all conversions.
        """
        out: list[BondChange] = []
        self._evaluate(customer, at, reason, source, event_id, changed, anew, out)
        return out

    def _evaluate(
        self,
        customer: Customer,
        at: int,
        reason: SegmentReason,
        source: str | None,
        event_id: str | None,
        changed: Order | Touch | None,
        anew: bool,
        out: list[BondChange],
    ) -> bool:
        """See ``evaluate``: whether it changed anything but the bond time."""
        if customer.bond_held:
            # What was worked out does not follow the events that come meanwhile.
            customer.tally = None
            return False
        bond = customer.bond
        before = bond.segment
        at = max(at, self.time(customer) or 0)
        bond.time, bond.looked = at, -1
        customer.bond_due = STALE
        tally = customer.tally
        if changed is not None and tally is not None:
            tally.exact.clear()
            if isinstance(changed, Order) and not _is_newest(customer, changed):
                # Something may count less now, or for less long.
                tally.lost.clear()
        tier = self._tiers[customer.tier]
        if tier != bond.tier:
            bond.tier, bond.tier_since = tier, at
        if self._segments is not None:
            self._enter_segment(customer, at, reason, source, event_id, out)
        if self._attributions is not None:
            if anew:
                out += self._attributions.after_adoption(customer, at)
            elif isinstance(changed, Order):
                out += self._attributions.after_order(customer, changed, at)
            elif changed is not None:
                out += self._attributions.after_touch(customer, changed, at)
        turned = self._scenarios.evaluate(customer, at, out if self._publishes(at) else None)
        return turned or bool(out) or bond.segment != before

    def fall_due(self, customer: Customer, due: int) -> list[BondChange]:
        """The evaluation at an instant of ``next_due``. Where nothing turns there, bond time is left as it was: which
        such instants are looked at depends on what is remembered of the tests, and nothing told may."""
        bond, time = customer.bond, customer.bond.time
        out: list[BondChange] = []
        if not self._evaluate(customer, due, "time", None, None, None, False, out):
            bond.time, bond.looked = time, due
        return out

    def next_due(self, customer: Customer) -> int | None:
        """When time alone may next bring a decision; None where it never will. Never later than it does, and always
        after the bond time."""
        if customer.bond_due == STALE:
            due = self._turn_before(customer, NEVER)
            customer.bond_due = None if due == NEVER else due
        return customer.bond_due

    def due_before(self, customer: Customer, at: int) -> int | None:
        """``next_due`` where it lies before an instant. Nothing is asked about the past."""
        time = customer.bond.time
        if time is None or at <= time:
            return None
        due = customer.bond_due
        if due == STALE:
            # All that matters is whether it is before: what is not need not be worked out.
            due = self._turn_before(customer, at)
            if due < at:
                customer.bond_due = due
        return due if due is not None and due < at else None

    def carry_over(self, customer: Customer, before: Bonds | None, at: int) -> list[BondChange]:
        """Move a customer from the program before to this one, at ``at`` or the bond time; the records to publish.

        What only this program asks for of orders and touches is not known of those that were read before.
        """
        customer.tally, customer.bond_due = None, STALE
        if before is None:
            self._begin(customer)
        if customer.time is None and not customer.touches:
            return []
        bond = customer.bond
        at = max(at, self.time(customer) or 0)
        out: list[BondChange] = []
        if self._segments is None:
            bond.segment = None
        elif not customer.bond_held:
            # Before the scenarios' conditions, which may ask for it.
            bond.time = at
            self._enter_segment(customer, at, "program_change", None, None, out)
        if bond.tier is None:
            bond.tier, bond.tier_since = self._tiers[customer.tier], at
        self._scenarios.baseline(customer, at, frozenset() if before is None else before.scenario_names)
        return out + self.evaluate(customer, at, "program_change")

    # -- permission ------------------------------------------------------------------------------------------------

    def permission(self, customer: Customer, channel: str, action: str | None, at: int) -> Permission:
        """Whether the customer may be contacted. Raises ``ValueError`` where the program has no contact policy."""
        if self.policy is None:
            raise ValueError("the program has no [contact_policy]")
        return self.policy.permission(customer, channel, action, max(at, self.time(customer) or 0))

    def reserve(
        self, customer: Customer, channel: str, action: str | None, at: int
    ) -> tuple[Permission, list[BondChange]]:
        """Ask, and take a place where it is allowed; the record to publish. What is transactional needs none, and
        before ``publish_from`` there is none to be had. Raises as ``permission`` does."""
        permission = self.permission(customer, channel, action, at)
        at = max(at, self.time(customer) or 0)
        free = self.policy is not None and self.policy.exempts(action)
        if permission.decision != "allow" or free or customer.bond_held or not self._publishes(at):
            return permission, []
        bond = customer.bond
        bond.reservations += 1
        told = self._trigger_event(
            customer, at, reservation_id(self._program.id, customer.customer_id, bond.reservations)
        )
        self._take_place(customer, told.event_id, at, channel)
        told.status, told.channel, told.expires_at = "reserved", channel, self._expires(at)
        return permission, [bond.tell(customer.customer_id, told)]

    # -- what was published ----------------------------------------------------------------------------------------

    def agrees(self, customer: Customer, mark: BondMark, body: BondEvent) -> bool:
        """Whether the decisions that are known end with a published record."""
        return customer.bond.mark() == mark and customer.bond.digest == digest_of(encode(body))

    def adopt(self, customer: Customer, told: Sequence[tuple[BondMark, BondEvent]]) -> list[BondChange]:
        """Take over what was published, in the order of ``seq``: nothing else was, from the first of them on. Then
        decide what is still to be decided."""
        bond, first = customer.bond, told[0][0].seq
        customer.bond_held = False
        bond.placed = [placed for placed in bond.placed if placed.seq < first]
        if self._attributions is not None:
            self._attributions.void(customer, first)
        latest = 0
        for mark, body in told:
            at = parse_rfc3339(body.effective_at)
            latest = max(latest, at)
            if isinstance(body, TriggerEvent):
                self._adopt_trigger(customer, body, mark.seq, at)
            elif isinstance(body, AttributionEvent) and self._attributions is not None:
                self._attributions.adopt(customer, body, mark.seq)
        mark, body = told[-1]
        bond.seq, bond.segment, bond.segment_seq = mark.seq, mark.segment, mark.segment_seq
        bond.attribution_seq, bond.reservations = mark.attribution_seq, mark.reservations
        bond.digest = digest_of(encode(body))
        bond.time = max(latest, bond.time or 0)
        return self.catch_up(customer)

    def catch_up(self, customer: Customer) -> list[BondChange]:
        """Decide what could not be decided while the customer was held."""
        customer.bond_held = False
        at = self.time(customer)
        return [] if at is None else self.evaluate(customer, at, "time", anew=True)

    # -- views -----------------------------------------------------------------------------------------------------

    def segment_at(self, customer: Customer, at: int) -> str | None:
        """The segment that the facts give at any instant of or after the customer's time; None before the first
        event, and where there are no segments. Leaves no trace."""
        if self._segments is None or self.time(customer) is None:
            return None
        value, attachment = self._axes.value(customer, at), self._attachment.before(customer, at)
        return self._segments.names[self._segments.at(customer, at, value, attachment)]

    def attachment_at(self, customer: Customer, at: int) -> int:
        """The attachment at any instant. Leaves no trace."""
        return self._attachment.before(customer, at)

    def value_at(self, customer: Customer, at: int) -> int:
        """The value at an instant that is not before the customer's time."""
        return self._axes.value(customer, at)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _publishes(self, at: int) -> bool:
        since = self._program.publish_from
        return since is None or at >= since

    def _enter_segment(
        self,
        customer: Customer,
        at: int,
        reason: SegmentReason,
        source: str | None,
        event_id: str | None,
        out: list[BondChange],
    ) -> None:
        assert self._segments is not None
        bond = customer.bond
        measured = self._segments.measure(customer, at)
        value, attachment = measured.value, measured.attachment
        segment = self._segments.names[self._segments.at(customer, at, value, attachment)]
        if segment == bond.segment:
            return
        before, bond.segment = bond.segment, segment
        if not self._publishes(at):
            return
        bond.segment_seq += 1
        body = SegmentEvent(
            event_id=segment_event_id(self._program.id, customer.customer_id, bond.segment_seq),
            customer_id=customer.customer_id,
            segment_seq=bond.segment_seq,
            previous_segment=before,
            segment=segment,
            reason=reason,
            cause_source=source,
            cause_event_id=event_id,
            effective_at=format_ms(at),
            program=self._ref,
            value=value,
            attachment=attachment,
            tier=self._tiers[customer.tier],
        )
        out.append(bond.tell(customer.customer_id, body))

    def _trigger(self, customer: Customer, at: int, made: Made) -> BondChange:
        told = self._trigger_event(
            customer,
            at,
            trigger_id(self._program.id, customer.customer_id, made.scenario.name, made.run, made.step + 1),
        )
        step = made.scenario.steps[made.step]
        told.scenario, told.run, told.step, told.steps = (
            made.scenario.name,
            made.run,
            made.step + 1,
            len(made.scenario.steps),
        )
        told.status, told.reason, told.holdout = made.status, made.reason, made.draw
        told.channel, told.content = step.channel, step.content
        told.run_started_at = format_ms(made.started)
        if made.status == "sent":
            told.expires_at = self._expires(at)
            self._take_place(customer, told.event_id, at, step.channel)
        return customer.bond.tell(customer.customer_id, told)

    def _trigger_event(self, customer: Customer, at: int, event_id: str) -> TriggerEvent:
        return TriggerEvent(
            event_id=event_id,
            customer_id=customer.customer_id,
            scenario=None,
            run=0,
            step=0,
            steps=0,
            status="sent",
            reason=None,
            channel="",
            content=None,
            effective_at=format_ms(at),
            run_started_at=None,
            expires_at=None,
            holdout=None,
            segment=customer.bond.segment,
            tier=self._tiers[customer.tier],
            program=self._ref,
        )

    def _take_place(self, customer: Customer, event_id: str, at: int, channel: str) -> None:
        if self.policy is not None:
            placed = Placed(event_key("", event_id), at, channel, customer.bond.seq + 1)
            customer.bond.placed.append(placed)

    def _expires(self, at: int) -> str | None:
        return None if self._lapse is None else format_ms(at + self._lapse)

    def _turn_before(self, customer: Customer, before: int) -> int:
        """When anything may turn next; ``before`` where that is not before it."""
        bond = customer.bond
        after = bond.time
        if customer.bond_held or after is None:
            return before
        after = max(after, bond.looked)
        turn = before
        if self._segments is not None:
            turn = self._segments.next_turn(customer, after, turn)
        return self._scenarios.next_turn(customer, after, turn)

    def _begin(self, customer: Customer) -> None:
        """What is known of a customer for whom no bond was kept so far: the orders that are."""
        times = [order.time for order in customer.orders.values() if order.time is not None] + customer.times
        if times and customer.bond.first_at is None:
            customer.bond.first_at = min(times)

    def _adopt_trigger(self, customer: Customer, body: TriggerEvent, seq: int, at: int) -> None:
        bond = customer.bond
        if body.status in ("sent", "reserved") and self.policy is not None:
            bond.placed.append(Placed(event_key("", body.event_id), at, body.channel, seq))
        if body.scenario is None or body.run_started_at is None:
            return
        watch = bond.watches.setdefault(body.scenario, Watch())
        watch.on, watch.runs = True, body.run
        watch.last_started = parse_rfc3339(body.run_started_at)
        self._scenarios.went_on(body.scenario, watch, watch.last_started, body.step, at)


def _is_newest(customer: Customer, order: Order) -> bool:
    """Whether an order has only added to what counts: it is the newest, of one part, and nothing was refunded."""
    counted = customer.counted
    return bool(counted) and counted[-1] is order and order.more is None


def _index(names: list[str], name: str) -> int:
    if name not in names:
        names.append(name)
    return names.index(name)
