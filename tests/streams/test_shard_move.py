"""A shard whose program has changed: who is moved when, and by what."""

from collections import Counter
from typing import Any

import pytest

from loyalty import Packing
from schemas.program import Program
from streams.metrics import Metrics
from streams.program_rules import rules_of
from streams.protocols import FatalError, ShardState, UnavailableError
from streams.shard import Shard, move_field
from tests.loyalty.worlds import DAY
from tests.streams.shard_world import (
    NOON,
    WINDOW,
    MemoryStore,
    MemoryWriter,
    bought,
    commanded,
    contacts,
    here,
    make_shard,
    program,
    publish,
)

#: The instant of the change.
AT = NOON + 10 * DAY
FOUR = here(4)
LOW, HIGH, NONE, TOUCHED = FOUR


@pytest.fixture(scope="module")
def before() -> Program:
    return program()


@pytest.fixture(scope="module")
def after() -> Program:
    """Silver takes 200 instead of 100."""
    return program(('min_monetary = "100.00"', 'min_monetary = "200.00"'))


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def writer() -> MemoryWriter:
    return MemoryWriter()


async def lived(before: Program, memory: MemoryStore, writer: MemoryWriter) -> None:
    """Two of silver, one of whom would not enter it anew, a member, and one who only was written to."""
    shard = make_shard(before, memory, writer)
    lines = [(LOW, NOON, "150.00"), (HIGH, NOON, "250.00"), (NONE, NOON, "1.00")]
    await shard.process(bought(0, *lines))
    await shard.process(contacts(0, TOUCHED))
    await publish(shard)


def changed(
    memory: MemoryStore, before: Program, at: int = AT, protect: int | None = None, listed: bool = True
) -> None:
    """What `kizuna program apply` does to the store."""
    memory.hash |= {
        "generation": str(memory.state.generation + 1),
        "program:before": before.text,
        "program:at": str(at),
        "program:protect": "" if protect is None else str(protect),
    }
    if listed:
        memory.left = set(memory.heads)


def taken(program: Program, memory: MemoryStore, writer: MemoryWriter, **given: Any) -> Shard:
    pending = [raw for _, raw in sorted(memory.outbox.items())]
    return make_shard(program, memory, writer, state=memory.state, pending=pending, **given)


def tally(memory: MemoryStore, generation: int = 1) -> Counter[tuple[str, str]]:
    prefix, _, _ = move_field(generation, "", "").partition("\x1f")
    moves = {field: int(count) for field, count in memory.hash.items() if field.startswith(prefix)}
    parts = {field: field.removeprefix(prefix).partition("\x1f") for field in moves}
    return Counter({(parts[field][0], parts[field][2]): count for field, count in moves.items()})


def generation(memory: MemoryStore, program: Program, customer: str) -> int:
    packing = Packing(rules_of(program, memory.state))
    return packing.unpack(customer, memory.heads[customer], {}).generation


async def test_everybody_is_moved_once_and_who_does_not_meet_the_new_thresholds_falls(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    metrics = Metrics()
    shard = taken(after, memory, writer, metrics=metrics)
    assert await shard.move(AT, 3) == 3
    assert await shard.move(AT, 3) == 1
    assert await shard.move(AT, 3) == 0
    assert {generation(memory, after, customer) for customer in FOUR} == {1}
    assert memory.left == set()
    assert tally(memory) == {("silver", "member"): 1, ("silver", "silver"): 1, ("member", "member"): 2}
    assert metrics.registry.get_sample_value("kizuna_program_moves_total") == 4
    await publish(shard)
    assert writer.brief(LOW)[1:] == [(2, "silver", "member", "program_change")]
    assert writer.told(LOW)[1]["effective_at"] == "2017-01-11T12:00:00.000Z"
    assert writer.told(LOW)[1]["program"]["version"] == after.version
    assert [len(writer.told(customer)) for customer in (HIGH, NONE, TOUCHED)] == [1, 0, 0]
    assert memory.readable[LOW]["tier"] == "member"


async def test_before_the_clock_has_reached_the_instant_nobody_is_moved(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    shard = taken(after, memory, writer)
    commits = len(memory.commits)
    assert await shard.move(AT - 1, 100) == 0
    assert len(memory.commits) == commits
    assert await shard.move(AT, 100) == 4


async def test_while_the_outbox_is_full_nobody_is_moved(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    shard = taken(after, memory, writer, bound=1)
    await shard.process(bought(3, (NONE, NOON + DAY, "500.00")))
    assert await shard.move(AT, 100) == 0
    assert len(memory.left) == 4
    await publish(shard)
    assert await shard.move(AT, 100) == 4


async def test_a_shard_that_is_not_moving_moves_nobody(
    before: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    memory.left = set(FOUR)
    assert await taken(before, memory, writer).move(AT, 100) == 0
    changed(memory, before)
    memory.hash["moved"] = "1"
    assert await taken(before, memory, writer).move(AT, 100) == 0


async def test_an_event_moves_its_customer_who_is_not_moved_again(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    shard = taken(after, memory, writer)
    await shard.process(bought(3, (LOW, AT, "1.00")))
    assert memory.left == {HIGH, NONE, TOUCHED}
    assert memory.commits[-1].moved == [LOW]
    assert tally(memory) == {("silver", "member"): 1}
    memory.left.add(LOW)  # the list may be made after the event
    assert await shard.move(AT, 100) == 4
    assert {write.customer_id for write in memory.commits[-1].customers} == {HIGH, NONE, TOUCHED}
    assert memory.left == set()
    assert tally(memory)["silver", "member"] == 1
    await publish(shard)
    assert writer.brief(LOW)[1:] == [(2, "silver", "member", "program_change")]


async def test_an_event_before_the_instant_goes_by_the_program_before(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    shard = taken(after, memory, writer)
    await shard.process(bought(3, (NONE, AT - 1, "150.00")))
    assert generation(memory, after, NONE) == 0
    assert NONE in memory.left
    await shard.move(AT, 100)
    await publish(shard)
    assert writer.brief(NONE) == [
        (1, "member", "silver", "purchase"),
        (2, "silver", "member", "program_change"),
    ]


async def test_a_command_and_a_sweep_move_customers_too(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    shard = taken(after, memory, writer)
    await shard.process(commanded(0, (LOW, AT + 1, "gold", AT + DAY)))
    await shard.sweep(NOON + WINDOW + 1, NOON + WINDOW + 1)
    assert memory.left == {NONE, TOUCHED}
    assert tally(memory) == {("silver", "member"): 1, ("silver", "silver"): 1}
    await publish(shard)
    assert writer.brief(LOW)[1:] == [
        (2, "silver", "member", "program_change"),
        (3, "member", "gold", "override"),
        (4, "gold", "member", "override"),
    ]
    assert writer.brief(HIGH)[1:] == [(2, "silver", "member", "window_expiry")]


async def test_a_touchpoint_moves_nobody(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    shard = taken(after, memory, writer)
    await shard.process(contacts(1, LOW))
    assert memory.commits[-1].moved == []
    assert generation(memory, after, LOW) == 0


async def test_who_comes_after_the_change_is_on_the_new_program(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    shard = taken(after, memory, writer)
    late = here(5)[4]
    await shard.process(bought(3, (late, AT - DAY, "150.00")))
    assert generation(memory, after, late) == 1
    assert memory.commits[-1].moved == []
    await publish(shard)
    assert writer.brief(late) == [], "150 are not enough by the new program"
    memory.left.add(late)  # the list is made of all who are there
    assert await shard.move(AT, 100) == 5
    assert sum(tally(memory).values()) == 4


async def test_a_protected_customer_keeps_the_tier_until_the_end(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before, protect=AT + DAY)
    shard = taken(after, memory, writer)
    await shard.move(AT, 100)
    await shard.sweep(AT + DAY, AT + DAY)
    await publish(shard)
    assert len(writer.told(LOW)) == 1
    await shard.sweep(AT + DAY + 1, AT + DAY + 1)
    await publish(shard)
    assert writer.brief(LOW)[1:] == [(2, "silver", "member", "program_change")]


async def test_a_move_whose_commit_failed_is_made_by_the_next_owner(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    memory.refusals = [UnavailableError("no memory")]
    metrics = Metrics()
    shard = taken(after, memory, writer, metrics=metrics)
    with pytest.raises(UnavailableError):
        await shard.move(AT, 100)
    assert (len(memory.left), tally(memory)) == (4, {})
    assert metrics.registry.get_sample_value("kizuna_program_moves_total") == 0
    shard = taken(after, memory, writer)
    assert await shard.move(AT, 100) == 4
    await publish(shard)
    assert writer.brief(LOW)[1:] == [(2, "silver", "member", "program_change")]


async def test_who_is_not_moved_yet_comes_back_from_the_store_as_before(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    shard = taken(after, memory, writer)
    await shard.process(contacts(1, LOW))
    shard = taken(after, memory, writer)
    await shard.move(AT, 100)
    await publish(shard)
    assert writer.brief(LOW)[1:] == [(2, "silver", "member", "program_change")]


async def test_a_program_may_change_and_change_back(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    await taken(after, memory, writer).move(AT, 100)
    memory.hash["moved"] = "1"
    changed(memory, after, AT + DAY)
    shard = taken(before, memory, writer)
    assert await shard.move(AT + DAY, 100) == 4
    await publish(shard)
    assert writer.brief(LOW)[1:] == [
        (2, "silver", "member", "program_change"),
        (3, "member", "silver", "program_change"),
    ]
    assert tally(memory, 2) == {("member", "silver"): 1, ("silver", "silver"): 1, ("member", "member"): 2}


async def test_falls_by_a_changed_program_are_counted_and_can_be_dropped(
    before: Program, after: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    changed(memory, before)
    shard = taken(after, memory, writer, falls_limit=0.2)
    await shard.move(AT, 100)
    assert memory.state.held == 2
    memory.hash["decision"] = f"drop {AT + DAY}"
    await shard.sweep(0, AT)
    await publish(shard)
    assert writer.brief(LOW)[1:] == [(2, "silver", "silver", "override")]


async def test_a_fall_from_a_tier_that_the_program_does_not_have_any_more_is_not_dropped(
    before: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await lived(before, memory, writer)
    shard = taken(before, memory, writer, falls_limit=0.1)
    await shard.sweep(NOON + WINDOW + 1, NOON + WINDOW + 1)
    assert memory.state.held == 2
    other = program(('name = "silver"', 'name = "bronze"'))
    changed(memory, before, NOON + WINDOW + DAY)
    shard = taken(other, memory, writer, falls_limit=0.1)
    await shard.move(NOON + WINDOW + DAY, 100)
    memory.hash["decision"] = f"drop {NOON + 2 * WINDOW}"
    await shard.sweep(0, 0)
    await publish(shard)
    assert writer.brief(LOW)[1:] == [(2, "silver", "member", "window_expiry")]


def test_a_program_before_that_cannot_be_read_is_fatal(after: Program) -> None:
    state = ShardState(generation=1, program_before="[program]")
    with pytest.raises(FatalError, match="the program before, as the store holds it, cannot be read"):
        rules_of(after, state)
