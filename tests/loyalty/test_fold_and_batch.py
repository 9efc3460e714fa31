"""The fold, event by event with its shortcuts, against the batch computation from the definitions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from loyalty.batch import Batch, BatchCustomer, batch
from schemas.events import TouchpointMade
from schemas.program import Program
from tests.loyalty.comparison import compare_changes, compare_states, compare_views, save_and_load
from tests.loyalty.worlds import START, UNIT, Event, Shard, events, programs, small_pages, times

LATEST = START + 161 * UNIT


def logs(entries: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Short ones, which shrink well, and long ones: left to itself Hypothesis makes lists of five."""
    return st.one_of(st.lists(entries, max_size=12), st.lists(entries, min_size=25, max_size=90))


steps = logs(
    st.one_of(
        events(),
        events(),
        events(),
        events(),
        events(),
        st.tuples(st.just("sweep"), times),
        st.tuples(st.just("save"), st.sampled_from("ab")),
        st.tuples(st.just("view"), st.integers(0, 80)),
    )
)


@pytest.mark.parametrize("pages", [(2, 0), (3, 1), (64, 16)])
@given(programs(), steps, st.booleans())
@settings(max_examples=300, deadline=None)
def test_fold_and_batch_agree_after_every_step(
    pages: tuple[int, int], program: Program, steps: list[Any], in_order: bool
) -> None:
    """Late, doubled and split events, early refunds, sweeps and reloads anywhere: the same changes, the same
    state.

    The batch sweeps along, as a sweep in between decides which falls a late event still finds.
    """
    if in_order:
        steps = sorted(steps, key=_time_of_step)
    with small_pages(*pages):
        shard, reference = Shard(program), Batch(program)
        for step in steps:
            note(f"{step}")
            if not isinstance(step, tuple):
                assert shard.read(step) == reference.read(step)
            elif step[0] == "sweep":
                shard.sweep(step[1])
                reference.let_fall(before=step[1])
            elif step[0] == "save":
                save_and_load(shard, step[1])
            else:
                compare_views(shard, reference, step[1])
            compare_states(shard, reference)
        compare_views(shard, reference, 70)


@given(programs(), logs(events()))
@settings(max_examples=300, deadline=None)
def test_for_input_in_time_order_sweeps_change_nothing(program: Program, log: list[Event]) -> None:
    log.sort(key=lambda event: event.occurred_at)
    shard = Shard(program)
    for event in log:
        shard.sweep(event.occurred_at)
        shard.read(event)
    shard.sweep(LATEST + 70 * UNIT)
    reference = batch(program, log, until=LATEST + 70 * UNIT)
    assert sorted(reference.customers) == sorted(shard.customers)
    for customer_id, expected in reference.customers.items():
        compare_changes(shard, expected)
        assert shard.customers[customer_id].tier_seq == len(expected.changes)


@given(programs(), logs(events()), st.integers(0, 60))
@settings(max_examples=200, deadline=None)
def test_a_view_of_before_a_sweep_is_the_same_after_it(
    program: Program, log: list[Event], units: int
) -> None:
    if program.ledger < program.window:
        program = msgspec.structs.replace(program, ledger=program.window)
    log.sort(key=lambda event: event.occurred_at)
    shard = Shard(program)
    for event in log:
        shard.read(event)
    at = max([shard.purchases_newest or 0, shard.touchpoints_newest or 0]) + units * UNIT
    before = {customer_id: shard.line(customer_id, at) for customer_id in shard.customers}
    shard.sweep(LATEST + 200 * UNIT)
    for customer_id in list(shard.customers):
        save_and_load(shard, customer_id)
    assert {customer_id: shard.line(customer_id, at) for customer_id in shard.customers} == before


@given(
    programs(short_ledgers=False),
    logs(events(fresh_ids=True)),
    st.randoms(use_true_random=False),
    st.integers(0, 70),
)
@settings(max_examples=300, deadline=None)
def test_metrics_are_a_function_of_the_set_of_events(
    program: Program, log: list[Event], random: Any, later: int
) -> None:
    """Shuffled, doubled, with other bodies under ids that were read: within the ledger the order is
    nothing."""
    program = msgspec.structs.replace(program, ledger=program.window + 200 * UNIT, publish_from=None)
    for number, event in enumerate(log):
        event.event_id = str(number)
    other = [event for event in log for _ in range(random.choice([1, 1, 2, 3]))]
    random.shuffle(other)
    straight, shuffled = Shard(program), Shard(program)
    for event in log:
        straight.read(event)
    seen = set()
    for event in other:
        again = msgspec.structs.replace(event)
        if event.event_id in seen and not isinstance(again, TouchpointMade):
            again.amount += 7
        seen.add(event.event_id)
        shuffled.read(again)
        if random.random() < 0.2:
            save_and_load(shuffled, again.customer_id)
    at = LATEST + later * UNIT
    assert sorted(straight.customers) == sorted(shuffled.customers)
    for customer_id in straight.customers:
        one, two = straight.line(customer_id, at), shuffled.line(customer_id, at)
        del one["tier_seq"], two["tier_seq"]
        assert one == two


@given(programs(), logs(events()))
@settings(max_examples=300, deadline=None)
def test_next_due_is_the_first_instant_at_which_the_tier_is_another(
    program: Program, log: list[Event]
) -> None:
    shard, reference = Shard(program), Batch(program)
    for event in log:
        shard.read(event)
        reference.read(event)
    instants = [
        event.occurred_at + limit
        for event in log
        for limit in (program.window, *(t.max_recency for t in program.tiers if t.max_recency))
    ]
    for customer_id, customer in shard.customers.items():
        if customer.time is None:
            assert shard.fold.next_due(customer) is None
            continue
        expected = next(
            (
                at
                for at in sorted(instants)
                if at > customer.time
                and tier_by_definition(reference.customers[customer_id], at) != customer.tier
            ),
            None,
        )
        assert shard.fold.next_due(customer) == expected
        if expected is not None:
            assert tier_by_definition(reference.customers[customer_id], expected - 1) == customer.tier


def tier_by_definition(customer: BatchCustomer, at: int) -> int:
    metrics = customer.metrics(at)
    return max(
        index
        for index, tier in enumerate(customer.program.tiers)
        if metrics.monetary >= tier.min_monetary
        and metrics.frequency >= tier.min_frequency
        and (tier.max_recency is None or (metrics.recency is not None and metrics.recency < tier.max_recency))
    )


def _time_of_step(step: Any) -> int:
    if isinstance(step, tuple):
        return step[1] if step[0] == "sweep" else START + 80 * UNIT
    time: int = step.occurred_at
    return time
