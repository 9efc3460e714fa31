"""The rules that hold for a shard: one program's, and, while customers are moved from another to it, both.

A change of program is an instant in each customer's time (docs/tiers.md, "A new program"): what comes before it
goes by the program before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy, deepcopy
from typing import Any

import msgspec

from loyalty.bond import NONE, Bond, BondMark, Permission
from loyalty.bonds import Bonds
from loyalty.customer import STALE, Customer
from loyalty.fold import Fold
from loyalty.program_change import Previous
from loyalty.tiers import Ladder
from loyalty.views import Beneath, Change, CustomerView, Decision, Readable, change_body, dump_line
from schemas.bond_records import BondEvent
from schemas.events import OverrideCommanded, PurchaseMade, RefundMade, TouchpointMade
from schemas.program import Program
from schemas.tier_change import TierEvent
from schemas.times import parse_rfc3339

Moved = Callable[[str, str, str], None]
"""Told of each customer that is moved: customer_id, the tier before by the program before, and the tier then."""


class Rules:
    """What the streams ask: customers of this program's ``generation``, and those still on the one before.

    Every method takes a customer of either. Generations count the programs of a store, from 0.
    """

    def __init__(
        self,
        program: Program,
        generation: int = 0,
        previous: Previous | None = None,
        moved: Moved | None = None,
    ) -> None:
        """Raises ``ValueError`` where the tzdata package lacks a program's time zone."""
        self.program = program
        self.generation = generation
        self.previous = previous
        self._moved = moved
        self._fold = Fold(program)
        # How long things are remembered changes for all at once, when the first worker of the new program reads.
        self._old: Fold | None = None
        if previous is not None:
            self._old = Fold(msgspec.structs.replace(previous.program, ledger=program.ledger))
        #: Whether any of the programs that customers are on keeps bonds.
        self.keeps_bonds = any(bonds is not None for bonds in self.bonds)

    @property
    def bonds(self) -> list[Bonds | None]:
        """The rules for bonds of the programs that customers are on."""
        return [fold.bonds for fold in (self._fold, self._old) if fold is not None]

    def new_customer(self, customer_id: str) -> Customer:
        """A customer of whom nothing is known: the first tier, ``tier_seq`` 0, no time."""
        customer = Customer(customer_id, self.generation)
        if self.keeps_bonds:
            customer.bond = Bond()
        return customer

    def is_moved(self, customer: Customer) -> bool:
        """Whether the customer is on the present program."""
        return customer.generation == self.generation

    def apply(
        self, customer: Customer, event: PurchaseMade | RefundMade, newest: int | None
    ) -> list[Decision] | None:
        """See ``Fold.apply``."""
        if customer.generation == self.generation:
            return self._fold.apply(customer, event, newest)
        previous, old = self._before()
        if _is_before(previous, customer, event.occurred_at):
            return old.apply(customer, event, newest)
        if self._fold.is_duplicate(customer, event, newest):
            return None
        return self.move(customer) + (self._fold.apply(customer, event, newest) or [])

    def touch(self, customer: Customer, event: TouchpointMade, newest: int | None) -> list[Decision] | None:
        """See ``Fold.touch``; moves nobody."""
        return self._of(customer).touch(customer, event, newest)

    def command(
        self, customer: Customer, event: OverrideCommanded, newest: int | None
    ) -> list[Decision] | None:
        """See ``Fold.command``. One that names a tier which only the present program has finds the customer
        moved."""
        if customer.generation == self.generation:
            return self._fold.command(customer, event, newest)
        previous, old = self._before()
        known = event.mode == "clear" or event.tier in old.standing.ladder.index
        if known and _is_before(previous, customer, event.occurred_at):
            return old.command(customer, event, newest)
        if self._fold.is_duplicate(customer, event, newest):
            return None
        return self.move(customer) + (self._fold.command(customer, event, newest) or [])

    def advance(self, customer: Customer, until: int) -> list[Decision]:
        """See ``Fold.advance``; a customer for whom the change of program is due is moved on the way."""
        if customer.generation == self.generation:
            return self._fold.advance(customer, until)
        previous, old = self._before()
        if until <= previous.at:
            return old.advance(customer, until)
        return self.move(customer) + self._fold.advance(customer, until)

    def move(self, customer: Customer) -> list[Decision]:
        """Move a customer from the program before to the present one, now; nothing for one that is moved."""
        if customer.generation == self.generation:
            return []
        changes, before = self._move(customer)
        if self._moved is not None:
            self._moved(customer.customer_id, before, self._fold.standing.ladder.names[customer.tier])
        return changes

    def adopt(self, customer: Customer, told: TierEvent, beneath: Beneath | None) -> None:
        """Take over what a published record says of tier, sequence and what is beneath, where the store lost it.

        The later of the two times holds. Orders, and overrides by command, come again from the inputs. Who was
        told of the present program is on it. Raises ``ValueError`` for a tier that the program does not have.
        """
        if told.program.version == self.program.version:
            self.move(customer)
        self._of(customer).adopt(customer, told, parse_rfc3339(told.effective_at), beneath)

    def bond_agrees(self, customer: Customer, mark: BondMark, body: BondEvent) -> bool:
        """Whether what is known to be decided of the customer's bond ends with a published record."""
        bonds = self._of(customer).bonds
        return bonds is not None and bonds.agrees(customer, mark, body)

    def adopt_bond(self, customer: Customer, told: Sequence[tuple[BondMark, BondEvent]]) -> list[Decision]:
        """Take over what was published of the bond, in the order of ``seq``, where the store lost it; then decide what
        could not be decided while the customer was held, and hold it no longer.

        Nothing may be told where the bond was held for the tier's sake alone.
        """
        made: list[Decision] = []
        if told and told[-1][1].program.version == self.program.version:
            # The bond is still held, so this decides of the tier alone.
            made = self.move(customer)
        customer.bond_held = False
        bonds = self._of(customer).bonds
        if bonds is not None:
            made += bonds.adopt(customer, told) if told else bonds.catch_up(customer)
        return made

    def permission(self, customer: Customer, channel: str, action: str | None, at: int) -> Permission:
        """See ``Bonds.permission``; by the program that holds at ``at``."""
        if customer.generation != self.generation and at >= self._before()[0].at:
            customer = self._moved_copy(customer)
        return self._bonds(customer).permission(customer, channel, action, at)

    def reserve(
        self, customer: Customer, channel: str, action: str | None, at: int
    ) -> tuple[Permission, list[Decision]]:
        """See ``Bonds.reserve``."""
        permission, made = self._bonds(customer).reserve(customer, channel, action, at)
        return permission, [*made]

    def bond_time(self, customer: Customer) -> int | None:
        """See ``Bonds.time``; None also where the program keeps no bonds."""
        bonds = self._of(customer).bonds
        return None if bonds is None else bonds.time(customer)

    def shown(self, customer: Customer) -> tuple[str, int, int | None]:
        """What was told last of a customer: tier, ``tier_seq``, and until when the tier is at risk."""
        names = self._of(customer).standing.ladder.names
        return names[customer.tier], customer.tier_seq, customer.at_risk

    def beneath(self, customer: Customer) -> Beneath | None:
        """What stands beneath the tier that is shown; None where that is all."""
        return self._of(customer).standing.beneath(customer)

    def withdraw(self, customer: Customer, tier: str, tier_seq: int, until: int) -> list[Decision]:
        """Undo what was decided and not published since the customer was told to be in ``tier`` with
        ``tier_seq``: protected there until ``until``. A tier that the program lacks is left as it is.
        """
        customer.bond_due = STALE
        return [*self._of(customer).standing.withdraw(customer, tier, tier_seq, until)]

    def next_due(self, customer: Customer) -> int | None:
        """When time alone would next change the standing, or the program does; None where neither will."""
        if customer.generation == self.generation:
            return self._fold.next_due(customer)
        previous, old = self._before()
        due = old.next_due(customer)
        if customer.time is None and self.bond_time(customer) is None:
            return due
        at = max(customer.time or 0, previous.at)
        return at if due is None else min(at, due)

    def view(self, customer: Customer, at: int) -> CustomerView:
        """See ``Fold.view``."""
        if customer.generation == self.generation:
            return self._fold.view(customer, at)
        previous, old = self._before()
        if at < previous.at:
            return old.view(customer, at)
        return self._fold.view(self._moved_copy(customer), at)

    def advanced(self, customer: Customer, at: int) -> tuple[Program, Ladder, Customer]:
        """A copy of the customer as ``view`` has it at ``at``, with the program that holds then and its ladder.

        Raises ``ValueError`` as ``view`` does.
        """
        fold = self._fold
        if customer.generation != self.generation:
            previous, old = self._before()
            if at < previous.at:
                fold = old
            else:
                customer = self._moved_copy(customer)
        return fold.program, fold.standing.ladder, fold.as_of(customer, at)

    def readable(self, customer: Customer) -> Readable:
        """See ``Fold.readable``."""
        return self._of(customer).readable(customer)

    def dump_line(self, view: CustomerView) -> dict[str, Any]:
        """A line of ``state dump --json``."""
        return dump_line(self.program, view)

    def change_body(self, change: Change) -> TierEvent:
        """The wire's body of a change."""
        return change_body(self.program, change)

    def program_of(self, generation: int) -> Program | None:
        """The program that customers of a generation are on; None where these rules do not know it."""
        if generation == self.generation:
            return self.program
        return self.previous.program if self.previous and generation == self.generation - 1 else None

    def _move(self, customer: Customer) -> tuple[list[Decision], str]:
        """The changes, and the tier before them."""
        previous, old = self._before()
        names = old.standing.ladder.names
        customer.generation = self.generation
        made = old.advance(customer, previous.at)
        before = names[customer.tier]
        customer.since = None
        if customer.time is not None:
            customer.time = max(customer.time, previous.at)
            customer.arrange(customer.time - self.program.window)
            made += self._fold.standing.carry_over(customer, old.standing, previous.protect_until)
        bonds = self._fold.bonds
        if bonds is not None:
            made += bonds.carry_over(customer, old.bonds, previous.at)
        elif old.bonds is not None:
            customer.bond = NONE
        return made, before

    def _moved_copy(self, customer: Customer) -> Customer:
        """What the customer would be if it were moved now."""
        shown = copy(customer)
        shown.bond = deepcopy(customer.bond)
        self._move(shown)
        return shown

    def _before(self) -> tuple[Previous, Fold]:
        if self.previous is None or self._old is None:
            raise ValueError("a customer of another program, and these rules know no other")
        return self.previous, self._old

    def _bonds(self, customer: Customer) -> Bonds:
        bonds = self._of(customer).bonds
        if bonds is None:
            raise ValueError("the program has no [contact_policy]")
        return bonds

    def _of(self, customer: Customer) -> Fold:
        return self._fold if customer.generation == self.generation else self._before()[1]


def _is_before(previous: Previous, customer: Customer, at: int) -> bool:
    return at < previous.at and (customer.time is None or customer.time < previous.at)
