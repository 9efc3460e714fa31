"""A shard of folded customers held against the batch computation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec

from loyalty import Customer
from loyalty.batch import Batch, BatchCustomer
from schemas.program import Program
from schemas.times import parse_rfc3339
from tests.loyalty.worlds import START, UNIT, Event, Shard, allowed, content, named


class Pair:
    """A shard and the batch computation, taken through the same steps and compared after each."""

    def __init__(self, program: Program) -> None:
        self.shard, self.reference = Shard(program), Batch(program)
        self._programs = 0

    def take(self, step: Any) -> None:
        """An event, or a tuple whose first says what is done: ``sweep``, ``save``, ``view``, ``move`` or
        ``change``."""
        shard, reference = self.shard, self.reference
        if not isinstance(step, tuple):
            self.read(step)
        elif step[0] == "sweep":
            shard.sweep(step[1])
            reference.let_fall(before=step[1])
        elif step[0] == "save":
            save_and_load(shard, step[1])
        elif step[0] == "move":
            shard.move(step[1])
            if step[1] in reference.customers:
                reference.customers[step[1]].move()
        elif step[0] == "change":
            self.change_program(*step[1:])
        else:
            compare_views(shard, reference, step[1])
        compare_states(shard, reference)

    def read(self, event: Event) -> None:
        event = named(event, self.shard.program)
        assert self.shard.read(event) == self.reference.read(event)

    def change_program(self, other: Program, at: int, only_benefits: bool) -> None:
        """Another program, as far as it is allowed."""
        self._programs += 1
        old = self.shard.program
        program = allowed(old, other, at, only_benefits, f"v{self._programs}")
        if program.window > old.window:
            # Orders are kept for the ledger before the newest event: from that on a longer window finds them.
            at = max(at, self.shard.purchases_newest or at)
        self.shard.change_program(program, at)
        self.reference.change_program(program, at)


def save_and_load(shard: Shard, customer_id: str) -> None:
    """A reload gives exactly the customer that was saved, and saving that again the same bytes."""
    if customer_id not in shard.customers:
        return
    shard.save(customer_id)
    saved = content(shard, customer_id)
    first = shard.stored[customer_id]
    shard.load(customer_id)
    assert content(shard, customer_id) == saved
    shard.save(customer_id)
    assert shard.stored[customer_id] == first
    shard.load(customer_id)


def compare_states(shard: Shard, reference: Batch) -> None:
    assert sorted(shard.customers) == sorted(reference.customers)
    for customer_id, expected in reference.customers.items():
        customer = shard.customers[customer_id]
        assert standing(customer) == standing(expected), (standing(customer), standing(expected))
        compare_changes(shard, expected)
        assert shard.rules.next_due(customer) == expected.next_due()
        check_published(shard, customer_id)
        if expected.time is not None:
            metrics = expected.metrics(expected.time)
            assert customer.frequency == metrics.frequency
            assert customer.monetary == metrics.monetary
            assert customer.last_purchase_at == metrics.last_purchase_at


def standing(customer: Customer | BatchCustomer) -> dict[str, Any]:
    names = ("time", "tier", "tier_seq", "earned", "grace", "at_risk")
    return {name: getattr(customer, name) for name in names}


def compare_changes(shard: Shard, expected: BatchCustomer) -> None:
    published = shard.bodies(expected.customer_id)
    assert len(published) == len(expected.changes)
    for ours, theirs in zip(published, expected.changes, strict=True):
        if parse_rfc3339(ours.effective_at) < (shard.touchpoints_newest or 0):
            # Touches older than their own topic's horizon may be gone: contacts promise nothing there.
            ours = msgspec.structs.replace(ours, contacts=theirs.contacts)  # noqa: PLW2901
        assert ours == theirs


def check_published(shard: Shard, customer_id: str) -> None:
    """What is published is one unbroken chain, and all that a reader needs who knows nothing else."""
    customer, bodies = shard.customers[customer_id], shard.bodies(customer_id)
    assert [body.tier_seq for body in bodies] == list(range(1, customer.tier_seq + 1))
    for before, after in pairwise(bodies):
        assert after.previous_tier == before.tier
        assert after.effective_at >= before.effective_at
    for body in bodies:
        assert (body.kind == "changed") == (body.previous_tier != body.tier)
        assert (body.at_risk_until is msgspec.UNSET) == (body.needed is msgspec.UNSET)
    if bodies and shard.program.publish_from is None:
        last = bodies[-1]
        program = shard.rules.program_of(customer.generation)
        assert program is not None
        tier = program.tiers[customer.tier]
        assert (last.tier, last.benefits or ()) == (tier.name, tier.benefits)
        until = None if last.at_risk_until is msgspec.UNSET else parse_rfc3339(last.at_risk_until)
        assert until == customer.at_risk


def compare_views(shard: Shard, reference: Batch, units: int) -> None:
    """As of an instant that is not before anything read or swept, and without a trace in the customer."""
    at = latest(shard) + units * UNIT
    before = {customer_id: content(shard, customer_id) for customer_id in shard.customers}
    assert lines(shard, at) == reference.lines(at)
    assert {customer_id: content(shard, customer_id) for customer_id in shard.customers} == before


def latest(shard: Shard) -> int:
    """The newest instant of anything that was read or fell due."""
    read = [shard.purchases_newest, shard.touchpoints_newest, shard.commands_newest]
    return max(
        [START, *(at for at in (*read, *(c.time for c in shard.customers.values())) if at is not None)]
    )


def lines(shard: Shard, at: int) -> list[dict[str, Any]]:
    return [shard.line(customer_id, at) for customer_id in sorted(shard.customers)]
