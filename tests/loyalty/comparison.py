"""A shard of folded customers held against the batch computation."""

from __future__ import annotations

import msgspec

from loyalty.batch import Batch, BatchCustomer
from schemas.times import parse_rfc3339
from tests.loyalty.worlds import START, UNIT, Shard, content


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
        assert (customer.time, customer.tier, customer.tier_seq) == (
            expected.time,
            expected.tier,
            expected.tier_seq,
        )
        compare_changes(shard, expected)
        if expected.time is not None:
            metrics = expected.metrics(expected.time)
            assert customer.frequency == metrics.frequency
            assert customer.monetary == metrics.monetary
            assert customer.last_purchase_at == metrics.last_purchase_at


def compare_changes(shard: Shard, expected: BatchCustomer) -> None:
    published = shard.bodies(expected.customer_id)
    assert len(published) == len(expected.changes)
    for ours, theirs in zip(published, expected.changes, strict=True):
        if parse_rfc3339(ours.effective_at) < (shard.touchpoints_newest or 0):
            # Touches older than their own topic's horizon may be gone: contacts promise nothing there.
            ours = msgspec.structs.replace(ours, contacts=theirs.contacts)  # noqa: PLW2901
        assert ours == theirs


def compare_views(shard: Shard, reference: Batch, units: int) -> None:
    """As of an instant that is not before anything read or swept, and without a trace in the customer."""
    at = max(
        [shard.purchases_newest or START, shard.touchpoints_newest or START]
        + [customer.time or START for customer in shard.customers.values()]
    )
    at += units * UNIT
    before = {customer_id: content(shard, customer_id) for customer_id in shard.customers}
    lines = [shard.line(customer_id, at) for customer_id in sorted(shard.customers)]
    assert lines == reference.lines(at)
    assert {customer_id: content(shard, customer_id) for customer_id in shard.customers} == before
