"""The fold, event by event with its shortcuts, against the batch computation from the definitions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from loyalty.batch import Batch, BatchCustomer
from schemas.events import PurchaseMade, RefundMade
from schemas.program import Program
from tests.loyalty.comparison import Pair, compare_states, compare_views, save_and_load, standing
from tests.loyalty.worlds import (
    START,
    UNIT,
    Event,
    Shard,
    commands,
    events,
    program_changes,
    programs,
    small_pages,
    times,
)

LATEST = START + 161 * UNIT


def logs(entries: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Short ones, which shrink well, and long ones: left to itself Hypothesis makes lists of five."""
    return st.one_of(st.lists(entries, max_size=12), st.lists(entries, min_size=25, max_size=90))


steps = logs(
    st.one_of(
        *[events()] * 6,
        *[commands()] * 2,
        st.tuples(st.just("sweep"), times),
        st.tuples(st.just("save"), st.sampled_from("ab")),
        st.tuples(st.just("view"), st.integers(0, 80)),
        st.tuples(st.just("move"), st.sampled_from("ab")),
        program_changes(),
    )
)


@pytest.mark.parametrize("pages", [(2, 0), (3, 1), (64, 16)])
@given(programs(), steps, st.booleans())
@settings(max_examples=100, deadline=None)
def test_fold_and_batch_agree_after_every_step(
    pages: tuple[int, int], program: Program, steps: list[Any], in_order: bool
) -> None:
    """Late, doubled and split events, early refunds, commands, changes of program, sweeps and reloads
    anywhere: the same changes, the same state.

    The batch sweeps along, as a sweep in between decides which falls a late event still finds.
    """
    if in_order:
        steps = sorted(steps, key=_time_of_step)
    with small_pages(*pages):
        pair = Pair(program)
        for step in steps:
            note(f"{step}")
            pair.take(step)
        compare_views(pair.shard, pair.reference, 70)


@given(programs(), logs(st.one_of(*[events()] * 4, commands(), program_changes())))
@settings(max_examples=100, deadline=None)
def test_for_input_in_time_order_sweeps_change_nothing(program: Program, log: list[Any]) -> None:
    pair = Pair(program)
    shard, reference = pair.shard, pair.reference
    for step in sorted(log, key=_time_of_step):
        shard.sweep(_time_of_step(step))
        if isinstance(step, tuple):
            pair.change_program(*step[1:])
        else:
            pair.read(step)
    shard.sweep(LATEST + 200 * UNIT)
    reference.let_fall(LATEST + 200 * UNIT)
    compare_states(shard, reference)


@given(programs(), logs(st.one_of(*[events()] * 4, commands(), program_changes())), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_a_view_of_before_a_sweep_is_the_same_after_it(program: Program, log: list[Any], units: int) -> None:
    if program.ledger < program.window:
        program = msgspec.structs.replace(program, ledger=program.window)
    log.sort(key=_time_of_step)
    pair = Pair(program)
    shard, reference = pair.shard, pair.reference
    for step in log:
        if isinstance(step, tuple):
            pair.change_program(*step[1:])
        else:
            pair.read(step)
    at = max([START, *map(_time_of_step, log)]) + units * UNIT
    before = {customer_id: shard.line(customer_id, at) for customer_id in shard.customers}
    assert list(map(before.get, sorted(before))) == reference.lines(at)
    shard.sweep(LATEST + 300 * UNIT)
    for customer_id in list(shard.customers):
        save_and_load(shard, customer_id)
    assert {customer_id: shard.line(customer_id, at) for customer_id in shard.customers} == before


@given(
    programs(short_ledgers=False),
    logs(events(fresh_ids=True)),
    st.randoms(use_true_random=False),
    st.integers(0, 70),
)
@settings(max_examples=150, deadline=None)
def test_metrics_are_a_function_of_the_set_of_events(
    program: Program, log: list[Event], random: Any, later: int
) -> None:
    """Shuffled, doubled, with other bodies under ids that were read: within the ledger the order is nothing,
    and neither is it to the tier where that follows from metrics alone."""
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
        again = event.but()
        if event.event_id in seen and isinstance(again, PurchaseMade | RefundMade):
            again.amount += 7
        seen.add(event.event_id)
        shuffled.read(again)
        if random.random() < 0.2:
            save_and_load(shuffled, again.customer_id)
    at = LATEST + later * UNIT
    assert sorted(straight.customers) == sorted(shuffled.customers)
    for customer_id in straight.customers:
        one, two = straight.line(customer_id, at), shuffled.line(customer_id, at)
        for name in ("tier_seq",) if is_plain(program) else ("tier", "tier_seq"):
            del one[name], two[name]
        assert one == two


@given(programs(plain=True), logs(events()))
@settings(max_examples=150, deadline=None)
def test_next_due_of_a_plain_program_is_the_first_instant_at_which_the_tier_is_another(
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
            assert shard.rules.next_due(customer) is None
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
        assert shard.rules.next_due(customer) == expected
        if expected is not None:
            assert tier_by_definition(reference.customers[customer_id], expected - 1) == customer.tier


@given(programs(), logs(st.one_of(*[events()] * 4, commands(), program_changes())))
@settings(max_examples=100, deadline=None)
def test_nothing_changes_before_next_due_and_something_is_done_at_it(
    program: Program, log: list[Any]
) -> None:
    pair = Pair(program)
    for step in log:
        pair.take(step)
    for customer_id, customer in pair.shard.customers.items():
        for _ in range(40):
            due = pair.shard.rules.next_due(customer)
            if due is None:
                break
            before = standing(customer)
            if due > before["time"]:  # not so only where a change of program waits for who is beyond it
                assert pair.shard.rules.advance(customer, due) == []
                assert standing(customer) == before
            else:
                assert not pair.shard.rules.is_moved(customer)
            pair.shard.rules.advance(customer, due + 1)
            assert customer.time == due
        else:
            raise AssertionError(f"{customer_id} never comes to rest")


def tier_by_definition(customer: BatchCustomer, at: int) -> int:
    metrics = customer.metrics(at)
    return max(
        index
        for index, tier in enumerate(customer.program.tiers)
        if metrics.monetary >= tier.min_monetary
        and metrics.frequency >= tier.min_frequency
        and (tier.max_recency is None or (metrics.recency is not None and metrics.recency < tier.max_recency))
    )


def is_plain(program: Program) -> bool:
    return all(
        tier.downgrade == "requalify"
        and not tier.grace_period
        and tier.stays_at == (tier.min_monetary, tier.min_frequency)
        for tier in program.tiers
    )


def _time_of_step(step: Any) -> int:
    if isinstance(step, tuple):
        return {"sweep": step[1], "change": step[-2]}.get(step[0], START + 80 * UNIT)
    time: int = step.occurred_at
    return time
