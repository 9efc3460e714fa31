"""Where too many customers of a shard fall: publishing pauses, and an operator releases or drops what is held."""

from dataclasses import replace

import pytest

from schemas.program import Program
from streams.healing import Healing, read_all
from streams.metrics import Metrics
from streams.protocols import INPUTS, TOUCHPOINTS, Batch, Published, UnavailableError
from streams.shard import Shard
from tests.loyalty.worlds import DAY
from tests.streams.conftest import HandMadeRecord
from tests.streams.shard_world import (
    NOON,
    PARTITION,
    WINDOW,
    MemoryStore,
    MemoryWriter,
    bought,
    contacts,
    here,
    make_shard,
    paused,
    program,
    publish,
)

LIMIT = 0.25
TEN = here(10)
#: When those who bought at noon fall, and a moment after it.
FALL = NOON + WINDOW
AFTER = FALL + 1
UNTIL = FALL + 30 * DAY


@pytest.fixture(scope="module")
def rules() -> Program:
    return program()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def writer() -> MemoryWriter:
    return MemoryWriter()


@pytest.fixture
def shard(rules: Program, memory: MemoryStore, writer: MemoryWriter, metrics: Metrics) -> Shard:
    return make_shard(rules, memory, writer, falls_limit=LIMIT, metrics=metrics)


def again(rules: Program, memory: MemoryStore, writer: MemoryWriter, metrics: Metrics | None = None) -> Shard:
    """The shard as the next worker takes it over."""
    pending = [raw for _, raw in sorted(memory.outbox.items())]
    return make_shard(
        rules, memory, writer, state=memory.state, pending=pending, falls_limit=LIMIT, metrics=metrics
    )


async def rise(shard: Shard, fall_late: int = 0) -> None:
    """Ten customers become silver, and are published; the last `fall_late` of them keep it a day longer."""
    lines = [(customer, NOON, "150.00") for customer in TEN]
    lines += [(customer, NOON + DAY, "150.00") for customer in TEN[len(TEN) - fall_late :]]
    await shard.process(bought(0, *lines))
    await publish(shard)


def letter(start: int) -> Batch:
    return Batch(TOUCHPOINTS, PARTITION, start, start + 1, [HandMadeRecord(start, b"900", b"no JSON")])


# -- pausing -------------------------------------------------------------------------------------------------------


async def test_too_many_falls_hold_everything_from_their_commit_on(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter, metrics: Metrics
) -> None:
    await rise(shard)
    assert paused(metrics) == 0
    published = len(writer.records)
    await shard.process(letter(0))
    await shard.sweep(AFTER, AFTER)
    await shard.process(letter(1))
    await shard.process(bought(10, (TEN[0], AFTER, "100.00")))
    await publish(shard)
    assert [record.topic for record in writer.records[published:]] == ["dead-letters"]
    assert paused(metrics) == 1
    assert (shard.state.held, memory.state.held) == (11, 11)
    assert len(shard.outbox) == 10 + 1 + 1


async def test_further_falls_leave_the_hold_where_it_is(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await rise(shard, fall_late=5)
    await shard.sweep(AFTER, AFTER)
    await shard.sweep(AFTER + DAY, AFTER + DAY)
    assert (shard.state.held, memory.state.held) == (10, 10)
    await publish(shard)
    assert {told["direction"] for told in writer.told()} == {"upgrade"}


async def test_as_many_falls_as_are_allowed_hold_nothing(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter, metrics: Metrics
) -> None:
    lines = [(customer, NOON, "50.00") for customer in here(12)[2:]]
    await shard.process(bought(0, *lines, (TEN[0], NOON, "100.00"), (TEN[1], NOON, "100.00")))
    await shard.sweep(AFTER, AFTER)
    await publish(shard)
    assert [told["direction"] for told in writer.told()] == ["upgrade"] * 2 + ["downgrade"] * 2
    assert (memory.state.held, memory.state.customers, paused(metrics)) == (None, 12, 0)
    assert sum(memory.state.falls.values()) == 2


async def test_without_a_limit_nothing_is_held_and_nothing_counted(
    rules: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    shard = make_shard(rules, memory, writer)
    await rise(shard)
    await shard.sweep(AFTER, AFTER)
    await publish(shard)
    assert len(writer.told()) == 20
    assert {"falls", "held"} & set(memory.hash) == set()


async def test_falls_of_several_commits_within_an_hour_add_up(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter
) -> None:
    lines = [(customer, NOON + n * 1_200_000, "150.00") for n, customer in enumerate(TEN)]
    await shard.process(bought(0, *lines))
    for n in range(2):
        await shard.sweep(AFTER + n * 1_200_000, AFTER)
        assert memory.state.held is None
    await shard.sweep(AFTER + 2 * 1_200_000, AFTER)
    assert memory.state.held == 12
    await publish(shard)
    assert [told["direction"] for told in writer.told()].count("downgrade") == 2


async def test_falls_that_lie_more_than_an_hour_apart_do_not_add_up(
    shard: Shard, memory: MemoryStore
) -> None:
    lines = [(customer, NOON + n * DAY, "150.00") for n, customer in enumerate(TEN)]
    await shard.process(bought(0, *lines))
    for n in range(len(TEN)):
        await shard.sweep(AFTER + n * DAY, AFTER)
    assert memory.state.held is None
    assert len(memory.state.falls) == 1


async def test_customers_of_the_same_commit_count_among_those_who_are_there(
    shard: Shard, memory: MemoryStore
) -> None:
    # The first of four falls by its own later purchase: one in four is the share that is allowed.
    first, *others = TEN[:4]
    lines = [(first, NOON, "150.00"), *((c, NOON, "1.00") for c in others), (first, AFTER, "1.00")]
    await shard.process(bought(0, *lines))
    assert sum(memory.state.falls.values()) == 1
    assert (memory.state.held, memory.state.customers) == (None, 4)


async def test_a_customer_is_counted_once_whatever_comes_of_it(
    shard: Shard, rules: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await shard.process(contacts(0, TEN[0]))
    await shard.process(bought(0, (TEN[0], NOON, "1.00"), (TEN[1], NOON, "1.00")))
    await shard.process(bought(2, (TEN[1], NOON, "1.00")))
    assert (shard.state.customers, memory.state.customers) == (2, 2)
    later = again(rules, memory, writer)
    await later.process(bought(3, (TEN[0], NOON + 1, "1.00"), (TEN[2], NOON, "1.00")))
    assert (later.state.customers, memory.state.customers) == (3, 3)


async def test_a_hold_whose_commit_failed_is_none(
    shard: Shard, memory: MemoryStore, metrics: Metrics
) -> None:
    await rise(shard)
    memory.refusals = [UnavailableError("no memory")]
    with pytest.raises(UnavailableError):
        await shard.sweep(AFTER, AFTER)
    assert (shard.state.held, memory.state.held, paused(metrics)) == (None, None, 0)


async def test_the_next_owner_holds_what_was_held(
    shard: Shard, rules: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await rise(shard)
    await shard.process(letter(0))
    await shard.sweep(AFTER, AFTER)
    metrics = Metrics()
    later = again(rules, memory, writer, metrics)
    assert paused(metrics) == 1
    published = len(writer.records)
    await publish(later)
    assert [record.topic for record in writer.records[published:]] == ["dead-letters"]
    memory.hash["decision"] = "release"
    await later.sweep(AFTER, AFTER)
    await publish(later)
    assert len(writer.told()) == 20


async def test_the_next_owner_counts_on(
    shard: Shard, rules: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    lines = [(customer, NOON + n * 1_200_000, "150.00") for n, customer in enumerate(TEN)]
    await shard.process(bought(0, *lines))
    await shard.sweep(AFTER + 1_200_000, AFTER)
    later = again(rules, memory, writer)
    await later.sweep(AFTER + 2 * 1_200_000, AFTER)
    assert memory.state.held == 12


# -- deciding ------------------------------------------------------------------------------------------------------


async def held(shard: Shard) -> None:
    """Ten falls are held, a neighbour's two rises, and a dead letter."""
    await rise(shard)
    await shard.sweep(AFTER, AFTER)
    neighbour = here(11)[10]
    await shard.process(bought(10, (neighbour, AFTER, "100.00")))
    await shard.process(letter(0))
    await shard.process(bought(11, (neighbour, AFTER + 1, "500.00")))


async def decide(shard: Shard, memory: MemoryStore, decision: str, until: int = 0) -> None:
    memory.hash["decision"] = decision
    await shard.sweep(until, until)
    assert memory.hash["decision"] == ""


async def test_a_release_publishes_what_was_held(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter, metrics: Metrics
) -> None:
    await held(shard)
    await decide(shard, memory, "release")
    await publish(shard)
    for customer in TEN:
        assert writer.brief(customer) == [
            (1, "member", "silver", "purchase"),
            (2, "silver", "member", "window_expiry"),
        ]
    assert [told["tier"] for told in writer.told(here(11)[10])] == ["silver", "gold"]
    assert (shard.state.held, memory.state.held, paused(metrics)) == (None, None, 0)
    assert memory.state.falls == {}


async def test_after_a_release_falls_are_counted_anew(shard: Shard, memory: MemoryStore) -> None:
    await rise(shard, fall_late=3)
    await shard.sweep(AFTER, AFTER)
    assert memory.state.held == 10
    await decide(shard, memory, "release")
    await shard.sweep(AFTER + DAY, AFTER + DAY)
    assert memory.state.held == 17, "three of ten are too many again"


async def test_falls_before_a_release_do_not_count_after_it(shard: Shard, memory: MemoryStore) -> None:
    lines = [(customer, NOON, "150.00") for customer in TEN]
    await shard.process(
        bought(0, *lines, *((customer, NOON + n + 1, "150.00") for n, customer in enumerate(TEN[3:])))
    )
    await shard.sweep(AFTER, AFTER)
    assert memory.state.held == 10
    await decide(shard, memory, "release")
    await shard.sweep(AFTER + 2, AFTER + 2)
    assert (memory.state.held, sum(memory.state.falls.values())) == (None, 2)
    await shard.sweep(AFTER + 3, AFTER + 3)
    assert memory.state.held == 10 + 3 + 2


async def test_dropped_falls_are_never_told_and_the_customers_are_told_to_be_where_they_were(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter, metrics: Metrics
) -> None:
    await held(shard)
    await decide(shard, memory, f"drop {UNTIL}")
    await publish(shard)
    for customer in TEN:
        assert writer.brief(customer) == [
            (1, "member", "silver", "purchase"),
            (2, "silver", "silver", "override"),
        ]
        assert "direction" not in writer.told(customer)[1]
        assert memory.readable[customer]["tier"] == "silver"
        assert memory.readable[customer]["tier_seq"] == "2"
    assert (shard.state.held, memory.state.held, paused(metrics)) == (None, None, 0)
    assert memory.state.falls == {}
    assert writer.upto.number == shard.outbox.last == 10 + 10 + 3 + 10


async def test_neighbours_and_dead_letters_go_out_unchanged_when_falls_are_dropped(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await held(shard)
    neighbour = here(11)[10]
    before = {number: memory.outbox[number] for number in (21, 22, 23)}
    await decide(shard, memory, f"drop {UNTIL}")
    assert {number: memory.outbox[number] for number in before} == before
    await publish(shard)
    assert [record.topic for record in writer.records].count("dead-letters") == 1
    assert writer.brief(neighbour) == [
        (1, "member", "silver", "purchase"),
        (2, "silver", "gold", "purchase"),
    ]


async def test_who_was_protected_falls_at_the_end_of_the_protection(
    shard: Shard, rules: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await held(shard)
    await decide(shard, memory, f"drop {UNTIL}")
    assert {memory.dues[customer] for customer in TEN} == {UNTIL}
    later = again(rules, memory, writer)
    await later.sweep(UNTIL, UNTIL)
    await publish(later)
    assert {len(writer.told(customer)) for customer in TEN} == {2}
    # Ten at once are too many again: somebody has to see it.
    await later.sweep(UNTIL + 1, UNTIL + 1)
    await decide(later, memory, "release")
    await publish(later)
    for customer in TEN:
        assert writer.brief(customer)[2:] == [(3, "silver", "member", "override")]
        assert writer.told(customer)[2]["direction"] == "downgrade"


async def test_who_earns_the_tier_again_before_the_end_of_the_protection_keeps_it(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await held(shard)
    await decide(shard, memory, f"drop {UNTIL}")
    await shard.process(bought(12, (TEN[0], UNTIL - 1, "150.00")))
    await shard.sweep(UNTIL + 1, UNTIL + 1)
    await decide(shard, memory, "release")
    await publish(shard)
    assert {len(writer.told(customer)) for customer in TEN[1:]} == {3}
    assert len(writer.told(TEN[0])) == 2


async def test_who_fell_and_rose_while_it_was_held_is_told_only_what_holds(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await held(shard)
    back, higher = TEN[:2]
    await shard.process(bought(12, (back, AFTER + 5, "150.00"), (higher, AFTER + 5, "600.00")))
    await decide(shard, memory, f"drop {UNTIL}")
    await publish(shard)
    assert writer.brief(back) == [(1, "member", "silver", "purchase"), (2, "silver", "silver", "override")]
    assert writer.brief(higher) == [
        (1, "member", "silver", "purchase"),
        (2, "silver", "silver", "override"),
        (3, "silver", "gold", "override"),
    ]


async def test_falls_are_dropped_where_the_customers_are_no_longer_in_the_cache(
    shard: Shard, rules: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await held(shard)
    later = again(rules, memory, writer)
    await decide(later, memory, f"drop {UNTIL}")
    await publish(later)
    assert {tuple(writer.brief(customer)[1:]) for customer in TEN} == {((2, "silver", "silver", "override"),)}


async def test_a_drop_after_what_is_due_is_carried_out_before_it(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter
) -> None:
    # Seven fall, and while that is held, the sweep that reads the decision finds the other three due.
    await rise(shard, fall_late=3)
    await shard.sweep(AFTER, AFTER)
    await decide(shard, memory, f"drop {UNTIL}", AFTER + DAY)
    await publish(shard)
    assert {tuple(writer.brief(customer)[1:]) for customer in TEN[:7]} == {
        ((2, "silver", "silver", "override"),)
    }
    assert memory.state.held == 10 + 7 + 7, "three of ten are too many again"
    await decide(shard, memory, "release")
    await publish(shard)
    assert {told["direction"] for customer in TEN[7:] for told in writer.told(customer)[1:]} == {"downgrade"}


@pytest.mark.parametrize("decision", ["release", f"drop {UNTIL}"])
async def test_a_decision_is_seen_even_where_the_outbox_has_no_room(
    rules: Program, memory: MemoryStore, writer: MemoryWriter, decision: str
) -> None:
    shard = make_shard(rules, memory, writer, falls_limit=LIMIT, bound=10)
    await rise(shard)
    await shard.sweep(AFTER, AFTER)
    await publish(shard)
    assert not shard.outbox.has_room
    await decide(shard, memory, decision, AFTER)
    await publish(shard)
    assert {len(writer.told(customer)) for customer in TEN} == {2}
    assert shard.outbox.has_room


async def test_a_decision_is_carried_out_while_the_store_is_being_healed(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter, metrics: Metrics
) -> None:
    """Where the outbox is full of what is held nothing is read, and so nothing healed: the decision must not wait."""
    await rise(shard)
    await shard.sweep(AFTER, AFTER)
    assert paused(metrics) == 1
    told = [
        Published(n, r.value, r.headers) for n, r in enumerate(writer.records) if r.topic == "tier-changes"
    ]
    ahead = replace(next(iter(read_all(PARTITION, told).values())), read_up_to=dict.fromkeys(INPUTS, 99))
    shard.healing = Healing({"somebody-else": ahead})
    memory.hash["decision"] = "release"
    await shard.sweep(AFTER, AFTER)
    assert paused(metrics) == 0
    assert shard.healing


async def test_a_decision_about_nothing_that_is_held_changes_no_customer(
    shard: Shard, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await rise(shard)
    await decide(shard, memory, f"drop {UNTIL}")
    assert memory.commits[-1].customers == []
    assert memory.commits[-1].replaced == {}


async def test_a_decision_whose_commit_failed_is_carried_out_by_the_next_owner(
    shard: Shard, rules: Program, memory: MemoryStore, writer: MemoryWriter
) -> None:
    await held(shard)
    memory.hash["decision"] = f"drop {UNTIL}"
    memory.refusals = [UnavailableError("no memory")]
    with pytest.raises(UnavailableError):
        await shard.sweep(AFTER, AFTER)
    later = again(rules, memory, writer)
    await later.sweep(AFTER, AFTER)
    await publish(later)
    assert {tuple(writer.brief(customer)[1:]) for customer in TEN} == {((2, "silver", "silver", "override"),)}
