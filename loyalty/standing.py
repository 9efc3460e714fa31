"""How a customer stands in one program: the tier that is earned, what holds it, and what is shown of both.

The rules are those of docs/tiers.md. The fold says when to evaluate, and has slid the window to that instant.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from loyalty.beneath import Protection
from loyalty.contacts import ContactWindow
from loyalty.customer import Customer
from loyalty.scores import score
from loyalty.tiers import Ladder
from loyalty.views import Beneath, Change
from schemas.program import Program
from schemas.tier_change import ChangeReason, Direction, Kind, TierEvent
from schemas.times import parse_rfc3339


class Standing:
    """Evaluates customers by one program's tiers. Times are epoch milliseconds, money is minor units."""

    def __init__(
        self,
        program: Program,
        contacts: ContactWindow,
        segment_at: Callable[[Customer, int], str | None] | None = None,
    ) -> None:
        """``segment_at`` is there where the program has segments."""
        self.program = program
        self._segment_at = segment_at
        self.ladder = Ladder(program)
        self._contacts = contacts
        self._grace = tuple(tier.grace_period for tier in program.tiers)
        self._names_benefits = any(tier.benefits for tier in program.tiers)
        self._plain = all(
            tier.stays_at == (tier.min_monetary, tier.min_frequency)
            and not tier.grace_period
            and tier.downgrade == "requalify"
            for tier in program.tiers
        )

    def is_settled(self, customer: Customer, at: int) -> bool:
        """Whether nothing could have changed up to ``at`` but by a purchase: time alone only takes away."""
        return (
            customer.grace is None
            and customer.override is None
            and customer.protection is None
            and self.ladder.holds(customer, at)
        )

    def is_plain(self, customer: Customer) -> bool:
        """Whether the tier follows from the metrics alone: no tier is kept, and nothing holds this customer."""
        return self._plain and customer.override is None and customer.protection is None

    def next_due(self, customer: Customer) -> int | None:
        """The next instant at which time alone changes something; None where it never will."""
        time = customer.time
        if time is None:
            return None
        if customer.grace is not None:
            due: int | None = max(customer.grace, time)
        else:
            due = self.ladder.next_loss(customer)
        for hold in (customer.override, customer.protection):
            if hold is not None and time < hold.until and (due is None or hold.until < due):
                due = hold.until
        return due

    def reason_at(self, customer: Customer, due: int, leaves: bool) -> ChangeReason:
        """Why time changes something at ``due``, which the customer has not reached yet. ``leaves``: whether
        a counted order leaves the window at it."""
        time = customer.time
        assert time is not None  # without one nothing falls due
        if customer.override is not None and time < customer.override.until == due:
            return "override"
        if customer.protection is not None and time < customer.protection.until == due:
            return customer.protection.reason
        return "window_expiry" if leaves else "inactivity"

    def evaluate(
        self,
        customer: Customer,
        at: int,
        reason: ChangeReason,
        source: str | None = None,
        event_id: str | None = None,
        lowered: bool = False,
    ) -> list[Change]:
        """One evaluation: what is earned, then what is shown; the changes to publish.

        ``lowered``: a refund made what counts less.
        """
        self._earn(customer, at, raises=reason == "purchase", lowered=lowered)
        return self._show(customer, at, reason, source, event_id)

    def carry_over(self, customer: Customer, before: Standing, protect_until: int | None) -> list[Change]:
        """Move a customer from the program before to this one, at the customer's time; the changes."""
        at = customer.time
        assert at is not None  # who has no time has no standing to carry over
        index = self.ladder.index
        tier, names = customer.tier, before.ladder.names
        told, told_seq = before.program.tiers[tier].benefits, customer.tier_seq
        earned = index.get(names[customer.earned])
        if (override := customer.override) is not None and override.mode != "clear":
            held = index.get(names[override.tier])
            customer.override = override.cleared() if held is None else replace(override, tier=held)
        customer.protection = self._protection(customer.protection, earned or 0, names, at, protect_until)
        if earned is None:
            customer.earned, customer.grace = 0, None
        else:
            customer.earned = earned
        self._earn(customer, at, raises=True, lowered=False)
        customer.tier = index.get(names[tier], -1)
        changes = self._show(customer, at, "program_change", None, None, (names[tier], tier))
        if customer.tier_seq == told_seq > 0 and self.program.tiers[customer.tier].benefits != told:
            kind: Kind = "retained" if customer.at_risk is None else "at-risk"
            changes += self._tell(customer, kind, names[tier], None, at, "program_change", None, None)
        return changes

    def adopt(self, customer: Customer, told: TierEvent, beneath: Beneath | None) -> None:
        """Stand as a published record says. Raises ``ValueError`` for a tier that the program does not have."""
        at_risk = (
            None if isinstance(told.at_risk_until, msgspec.UnsetType) else parse_rfc3339(told.at_risk_until)
        )
        names = [told.tier] if beneath is None else [told.tier, beneath.earned]
        if beneath is not None and beneath.protection is not None:
            names.append(beneath.protection[0])
        for name in names:
            if name not in self.ladder.index:
                raise ValueError(f"the program has no tier {name!r}")
        index = self.ladder.index
        customer.tier, customer.tier_seq, customer.at_risk = index[told.tier], told.tier_seq, at_risk
        customer.earned, customer.grace, customer.protection = customer.tier, at_risk, None
        if beneath is not None:
            customer.earned, customer.grace = index[beneath.earned], beneath.grace
            if beneath.protection is not None:
                name, until, reason = beneath.protection
                customer.protection = Protection(index[name], until, reason)

    def withdraw(self, customer: Customer, tier: str, tier_seq: int, until: int) -> list[Change]:
        """Put a customer back to what was published last: its ``tier``, under its ``tier_seq``.

        A protection keeps it there until ``until``; what is earned stays. The changes begin with a record that
        tells the tier is retained, as the last published one may have told of a risk.
        """
        index, at = self.ladder.index.get(tier), customer.time
        assert at is not None  # who has no time has no changes to withdraw
        customer.since = None
        if index is None:
            return []
        customer.tier, customer.tier_seq, customer.at_risk = index, tier_seq, None
        customer.protection = Protection(index, until, "override")
        told = self._tell(customer, "retained", tier, None, at, "override", None, None)
        return told + self._show(customer, at, "override", None, None)

    def _protection(
        self, held: Protection | None, earned: int, names: tuple[str, ...], at: int, protect_until: int | None
    ) -> Protection | None:
        """What protects after a change of program: what did before, by name, and the tier that was earned."""
        if held is not None:
            tier = self.ladder.index.get(names[held.tier], 0)
            held = Protection(tier, held.until, held.reason) if tier and at < held.until else None
        if protect_until is None or protect_until <= at:
            return held
        if held is not None:
            earned, protect_until = max(earned, held.tier), max(protect_until, held.until)
        return Protection(earned, protect_until, "program_change") if earned else None

    def _earn(self, customer: Customer, at: int, *, raises: bool, lowered: bool) -> None:
        ladder = self.ladder
        if raises:
            tier = ladder.enterable(customer, at)
            if tier > customer.earned:
                customer.earned, customer.grace = tier, None
                return
        if ladder.holds(customer, at):
            customer.grace = None
            return
        rules = self.program.tiers[customer.earned]
        at_once = lowered and rules.refund_policy == "reverse"
        if customer.grace is not None:
            if at >= customer.grace or at_once:
                self._fall(customer, at)
        elif rules.grace_period and not at_once:
            customer.grace = at + rules.grace_period
        else:
            self._fall(customer, at)

    def _fall(self, customer: Customer, at: int) -> None:
        downgrade = self.program.tiers[customer.earned].downgrade
        customer.grace = None
        if downgrade == "requalify":
            customer.earned = self.ladder.requalified(customer, at)
        elif downgrade == "base":
            customer.earned = 0
        else:
            customer.earned -= 1
            if not self.ladder.holds(customer, at):
                customer.grace = at + (self._grace[customer.earned] or self.program.window)

    def _shown(self, customer: Customer, at: int) -> tuple[int, int | None]:
        """The tier that is shown, and until when it is at risk."""
        floor = -1
        override, protection = customer.override, customer.protection
        if override is not None and at < override.until:
            if override.mode == "pin":
                return override.tier, None
            floor = override.tier
        if protection is not None:
            if at < protection.until:
                floor = max(floor, protection.tier)
            else:
                customer.protection = None
        return (floor, None) if floor >= customer.earned else (customer.earned, customer.grace)

    def _show(
        self,
        customer: Customer,
        at: int,
        reason: ChangeReason,
        source: str | None,
        event_id: str | None,
        before: tuple[str, int] | None = None,
    ) -> list[Change]:
        """Compare what is shown with what was, and tell the difference.

        ``before``: name and index of the tier in another program, where the customer comes from there.
        """
        names = self.ladder.names
        name, index = (names[customer.tier], customer.tier) if before is None else before
        was_at_risk = customer.at_risk
        tier, at_risk = self._shown(customer, at)
        # A tier that is gone: its place in the ladder before is compared, and the same place is no fall.
        rises = tier > customer.tier if customer.tier >= 0 else tier >= index
        customer.tier, customer.at_risk = tier, at_risk
        if names[tier] != name:
            direction: Direction = "upgrade" if rises else "downgrade"
            changes = self._tell(customer, "changed", name, direction, at, reason, source, event_id)
            if at_risk is not None:
                changes += self._tell(customer, "at-risk", names[tier], None, at, reason, source, event_id)
            return changes
        if at_risk == was_at_risk:
            return []
        kind: Kind = "retained" if at_risk is None else "at-risk"
        return self._tell(customer, kind, name, None, at, reason, source, event_id)

    def _tell(
        self,
        customer: Customer,
        kind: Kind,
        previous_tier: str,
        direction: Direction | None,
        at: int,
        reason: ChangeReason,
        source: str | None,
        event_id: str | None,
    ) -> list[Change]:
        """Number one record; none before ``publish_from``."""
        program = self.program
        if program.publish_from is not None and at < program.publish_from:
            return []
        customer.tier_seq += 1
        last = customer.last_purchase_at
        recency = None if last is None else at - last
        r, f, m = score(program.scores, recency, customer.frequency, customer.monetary)
        at_risk = kind == "at-risk"
        return [
            Change(
                customer_id=customer.customer_id,
                tier_seq=customer.tier_seq,
                kind=kind,
                previous_tier=previous_tier,
                tier=self.ladder.names[customer.tier],
                direction=direction,
                reason=reason,
                cause_source=source,
                cause_event_id=event_id,
                effective_at=at,
                version=program.version,
                recency=recency,
                frequency=customer.frequency,
                monetary=customer.monetary,
                r=r,
                f=f,
                m=m,
                contacts=self._contacts.counts(customer, at),
                benefits=program.tiers[customer.tier].benefits if self._names_benefits else msgspec.UNSET,
                at_risk_until=customer.at_risk if at_risk else None,
                needed=self.ladder.missing(customer, at, customer.earned) if at_risk else None,
                beneath=self.beneath(customer),
                segment=msgspec.UNSET if self._segment_at is None else self._segment_at(customer, at),
            )
        ]

    def beneath(self, customer: Customer) -> Beneath | None:
        """What a record does not show of the standing; None where it shows all."""
        protection = customer.protection
        if customer.earned == customer.tier and customer.grace == customer.at_risk and protection is None:
            return None
        names = self.ladder.names
        return Beneath(
            names[customer.earned],
            customer.grace,
            None if protection is None else (names[protection.tier], protection.until, protection.reason),
        )
