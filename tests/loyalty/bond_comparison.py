"""A shard of folded bonds held against the batch computation."""

from __future__ import annotations

from typing import Any

import msgspec

from loyalty.batch import Batch, BatchCustomer
from schemas.bond_records import BondEvent, TriggerEvent
from schemas.program import Program
from tests.loyalty.bond_worlds import BondShard, allowed_bonds, told
from tests.loyalty.comparison import check_published, latest, save_and_load, standing
from tests.loyalty.worlds import UNIT, Event, allowed, content


class BondPair:
    """A shard and the batch computation, taken through the same steps and compared after each."""

    def __init__(self, program: Program) -> None:
        self.shard, self.reference = BondShard(program), Batch(program)
        self._programs = 0

    def take(self, step: Any) -> None:
        """An event, or a tuple whose first says what is done."""
        if not isinstance(step, tuple):
            self.read(step)
        else:
            getattr(self, step[0])(*step[1:])
        self.compare()

    def read(self, event: Event) -> None:
        event = told(event, self.shard.program, self.shard.records(event.customer_id))
        assert self.shard.read(event) == self.reference.read(event)

    def sweep(self, until: int) -> None:
        self.shard.sweep(until)
        self.reference.let_fall(before=until)

    def move(self, customer_id: str) -> None:
        self.shard.move(customer_id)
        if customer_id in self.reference.customers:
            self.reference.customers[customer_id].move()

    def change(self, other: Program, at: int, only_benefits: bool) -> None:
        """Another program, as far as it is allowed and what was kept is enough for it."""
        self._programs += 1
        old = self.shard.program
        program = msgspec.structs.replace(
            allowed(old, other, at, only_benefits, f"v{self._programs}"), bonds=allowed_bonds(old, other)
        )
        self.shard.change_program(program, at)
        self.reference.change_program(program, at)

    def save(self, customer_id: str) -> None:
        save_and_load(self.shard, customer_id)

    def view(self, units: int) -> None:
        """As of an instant that is not before anything read, and without a trace in the customer."""
        at = latest(self.shard) + units * UNIT
        before = {customer_id: content(self.shard, customer_id) for customer_id in self.shard.customers}
        lines = [self.shard.line(customer_id, at) for customer_id in sorted(self.shard.customers)]
        assert lines == self.reference.lines(at)
        assert {
            customer_id: content(self.shard, customer_id) for customer_id in self.shard.customers
        } == before

    def ask(self, channel: str, units: int) -> None:
        """The permission to contact, from bond time on."""
        for customer_id, expected in self.reference.customers.items():
            if not has_policy(expected):
                continue
            at = (expected.bond.time or 0) + units * UNIT
            for action in (None, "receipt"):
                given = self.shard.rules.permission(self.shard.customers[customer_id], channel, action, at)
                asked = expected.permission(channel, action, at)
                assert (given.decision, given.until, given.reason) == asked

    def reserve(self, customer_id: str, channel: str) -> None:
        """A place that somebody reserves comes from outside: to the batch computation it is told."""
        expected = self.reference.customers.get(customer_id)
        if expected is None or not has_policy(expected):
            return
        at = expected.bond.time or 0
        asked = expected.bond.permission(expected.program, channel, None, at)
        made = self.shard.reserve(customer_id, channel, at)
        since = expected.program.publish_from
        assert bool(made) == (asked.verdict == "allow" and (since is None or at >= since))
        for record in made:
            assert isinstance(record, TriggerEvent)
            expected.bond.reserve(record)

    def compare(self) -> None:
        """What the two hold of all customers."""
        shard, reference = self.shard, self.reference
        assert sorted(shard.customers) == sorted(reference.customers)
        for customer_id, expected in reference.customers.items():
            customer = shard.customers[customer_id]
            assert standing(customer) == standing(expected), (standing(customer), standing(expected))
            compare_changes(shard, expected)
            check_published(shard, customer_id)
            compare_records(shard.records(customer_id), expected.bond.records)
            assert customer.bond.segment == expected.bond.segment
            check_marks(shard, customer_id)

    def compare_due(self) -> None:
        """The fold may look at an instant at which nothing changes, but never overlooks one."""
        for customer_id, expected in self.reference.customers.items():
            exact, due = expected.next_due(), self.shard.rules.next_due(self.shard.customers[customer_id])
            assert exact is None or (due is not None and due <= exact), (customer_id, due, exact)


def has_policy(customer: BatchCustomer) -> bool:
    """Whether there is something to ask: a program with a contact policy, and a bond."""
    bonds = customer.program.bonds
    return bonds is not None and bonds.contact_policy is not None and customer.bond.time is not None


def compare_records(ours: list[BondEvent], theirs: list[BondEvent]) -> None:
    for one, other in zip(ours, theirs, strict=False):
        assert one == other
    assert len(ours) == len(theirs), (ours[len(theirs) :], theirs[len(ours) :])


def compare_changes(shard: BondShard, expected: BatchCustomer) -> None:
    """Tier changes: contacts and the segment in them are what had been read, and promise nothing."""
    published = shard.bodies(expected.customer_id)
    assert len(published) == len(expected.changes)
    for ours, theirs in zip(published, expected.changes, strict=True):
        assert (ours.segment is msgspec.UNSET) == (theirs.segment is msgspec.UNSET)
        assert msgspec.structs.replace(ours, contacts=theirs.contacts, segment=theirs.segment) == theirs


def check_marks(shard: BondShard, customer_id: str) -> None:
    """The records of a customer are numbered without holes, all three kinds together."""
    changes = shard.bonds.get(customer_id, [])
    assert [change.mark.seq for change in changes] == list(range(1, len(changes) + 1))
    if changes:
        assert changes[-1].mark.seq == shard.customers[customer_id].bond.seq
