"""A store that has lost its last writes is healed from what was published."""

import asyncio
from collections.abc import Iterable
from copy import deepcopy
from typing import Any, cast

import pytest

from schemas.program import Program
from streams.healing import Healing, read_all, told_of, unpublished
from streams.intake import Intake
from streams.metrics import Metrics
from streams.outbox import WATERMARKS_HEADER, Entry, watermarks
from streams.protocols import (
    COMMANDS,
    INPUTS,
    PURCHASES,
    TOUCHPOINTS,
    Batch,
    FatalError,
    Published,
    RefusedError,
    Stop,
)
from streams.settings import Settings
from streams.shard import Domain
from streams.shards import Shards, cut
from streams.topics import TIER_CHANGES
from tests.loyalty.worlds import DAY
from tests.streams.conftest import BINDING, HandMadeRecord
from tests.streams.shard_world import (
    NOON,
    PARTITION,
    PARTITIONS,
    MemoryStore,
    MemoryWriter,
    changes,
    commanded,
    contacts,
    here,
    make_shard,
    program,
    publish,
    purchases,
)

ONE, TWO = here(2)


@pytest.fixture(scope="module")
def rules() -> Program:
    return program()


class World:
    """A worker that takes a shard over from a store which knows less than what was published."""

    def __init__(self, rules: Program) -> None:
        self.rules = rules
        self.failures: list[BaseException] = []
        self.done: list[Batch] = []

    async def fold(self, *batches: Batch) -> list[Published]:
        """What a worker publishes that reads these."""
        writer = MemoryWriter()
        shard = make_shard(self.rules, MemoryStore(), writer)
        for batch in batches:
            await shard.process(batch)
            await publish(shard)
        return [
            Published(n, r.value, r.headers)
            for n, r in enumerate(writer.records)
            if r.topic == "tier-changes"
        ]

    def begin(self, published: Iterable[Published], store: MemoryStore | None = None) -> None:
        """A worker takes the shard over from a store that knows nothing, and what was published is this."""
        self.store, self.writer = store or MemoryStore(), MemoryWriter()
        self.shard = make_shard(self.rules, self.store, self.writer, state=self.store.state)
        self.shard.healing = Healing(read_all(PARTITION, published))
        domain = Domain(self.rules, Intake(Settings(), self.rules, PARTITIONS))
        unused = cast(Any, None)
        self.shards = Shards(Settings(), domain, unused, unused, Metrics(), self.fail, BINDING)
        self.shards._held = {PARTITION: self.shard}

    async def fail(self, error: BaseException) -> None:
        self.failures.append(error)

    async def hand(self, *batches: Batch) -> None:
        for batch in batches:
            self.shards.reading(batch)
            self.shards.hand(batch, lambda batch=batch: self.done.append(batch))  # type: ignore[misc]
        for _ in range(100):
            await asyncio.sleep(0)
        assert self.failures == []

    def told(self, customer: str) -> tuple[str, str]:
        """What any client of Redis reads of a customer."""
        readable = self.store.readable[customer]
        return readable["tier"], readable["tier_seq"]


@pytest.fixture
def world(rules: Program) -> World:
    return World(rules)


async def test_what_was_published_is_not_published_again_and_what_comes_after_is(world: World) -> None:
    # silver with the second purchase, gold with the ninth
    before, after = purchases(0, 1, 2, 3, customer=ONE), purchases(3, 4, 5, 6, 7, 8, 9, customer=ONE)
    world.begin(await world.fold(before))
    await world.hand(before)
    assert changes(world.store) == []
    assert world.told(ONE) == ("silver", "1")
    await world.hand(after)
    assert [c["event_id"] for c in changes(world.store)] == [f"grocery/{ONE}/2"]
    assert world.told(ONE) == ("gold", "2")


async def test_a_customer_of_whom_nothing_was_published_is_not_held(world: World) -> None:
    mine, others = purchases(0, 1, 2, customer=ONE), purchases(2, 1, 2, customer=TWO)
    world.begin(await world.fold(mine))
    await world.hand(mine, others)
    assert [c["customer_id"] for c in changes(world.store)] == [TWO]


async def test_a_batch_is_cut_where_the_record_was_decided_and_what_is_behind_waits_for_all_inputs(
    world: World,
) -> None:
    published = await world.fold(contacts(0, ONE), purchases(0, 1, 2, customer=ONE))
    world.begin(published)
    whole = purchases(0, 1, 2, 3, 4, customer=ONE)
    await world.hand(whole)
    # Two of four; the touchpoint that had been read is still unread.
    assert world.shard.state.offsets[PURCHASES] == 2
    assert world.done == []
    await world.hand(contacts(0, ONE))
    assert world.shard.state.offsets[PURCHASES] == 4
    assert world.done[-1] is whole
    assert not world.shard.healing


async def test_where_the_store_loses_again_what_it_was_healed_of_no_position_is_stored(world: World) -> None:
    """A trim tells up to where the state knows what was published. That rests on commits without any entry, and so it
    must be refused where they are lost, though the entry that is trimmed was there before them."""
    broken = Batch(TOUCHPOINTS, PARTITION, 0, 1, [HandMadeRecord(0, b"x", b"broken")])
    bought = purchases(0, 1, 2, customer=ONE)
    world.begin(await world.fold(broken, bought))
    await world.hand(broken)
    store = deepcopy(vars(world.store))
    await world.hand(bought)
    assert len(store["outbox"]) == len(world.store.outbox) == 1
    assert not world.shard.healing
    vars(world.store).update(store)
    with pytest.raises(RefusedError, match="version"):
        await asyncio.wait_for(world.shard.publish(), 5)
    assert world.store.trimmed == []


async def test_what_time_brought_and_was_published_is_taken_over_before_a_late_purchase_is_read(
    world: World,
) -> None:
    """The fold alone would never fall: the purchase that came after the fall saves the tier."""
    writer = MemoryWriter()
    store = MemoryStore()
    first = make_shard(world.rules, store, writer)
    bought = purchases(0, 1, 2, customer=ONE)
    await first.process(bought)
    due = store.dues[ONE]
    await first.sweep(due + 1, due + 1)
    await publish(first)
    assert [c["reason"] for c in changes(store)] == ["purchase", "window_expiry"]

    world.begin(
        [Published(n, r.value, r.headers) for n, r in enumerate(writer.records) if r.topic == "tier-changes"]
    )
    late = purchases(2, 100, customer=ONE)
    await world.hand(bought, late)
    assert [(c["tier_seq"], c["previous_tier"], c["tier"]) for c in changes(world.store)] == [
        (3, "member", "silver")
    ]
    assert world.told(ONE) == ("silver", "3")


async def test_while_something_is_pending_nothing_is_swept_and_the_output_is_found_again(
    world: World,
) -> None:
    others, mine = purchases(0, 1, 2, customer=TWO), purchases(2, 3, 4, customer=ONE)
    published = await world.fold(others, mine)
    world.begin(published[1:])
    await world.hand(others)
    due = world.store.dues[TWO]
    await world.shard.sweep(due + 1, due + 1)
    await publish(world.shard)
    assert [c["reason"] for c in changes(world.store)] == ["purchase"]
    assert world.store.trimmed == [(1, {})]
    await world.hand(mine)
    await world.shard.sweep(due + 1, due + 1)
    await publish(world.shard)
    assert [c["reason"] for c in changes(world.store)] == ["purchase", "window_expiry"]
    assert world.store.trimmed[-1] == (2, {TIER_CHANGES: 2})


async def test_after_the_adoption_the_state_shows_what_was_published_also_where_the_fold_says_otherwise(
    world: World,
) -> None:
    [gold] = await world.fold(purchases(0, 1, customer=ONE, amount="500.00"))
    # As if it had been decided from other events: the store's fold makes silver of these.
    assert gold.value is not None
    world.begin([record(ONE, 1, {PURCHASES: 2}, gold.value)])
    await world.hand(purchases(0, 1, 2, customer=ONE))
    assert changes(world.store) == []
    assert world.told(ONE) == ("gold", "1")


def record(customer: str, seq: int, read: dict[str, int], value: bytes) -> Published:
    body = value.replace(b'"tier_seq":1', b'"tier_seq":%d' % seq)
    body = body.replace(b'"customer_id":"%s"' % ONE.encode(), b'"customer_id":"%s"' % customer.encode())
    return Published(0, body, [(WATERMARKS_HEADER, watermarks(dict.fromkeys(INPUTS, 0) | read))])


@pytest.fixture
async def body(world: World) -> bytes:
    [published] = await world.fold(purchases(0, 1, 2, customer=ONE))
    assert published.value is not None
    return published.value


async def test_of_several_records_of_a_customer_the_last_one_counts(body: bytes) -> None:
    healing = Healing(
        read_all(0, [record(ONE, 1, {PURCHASES: 2}, body), record(ONE, 2, {PURCHASES: 5}, body)])
    )
    assert len(healing) == 1
    assert healing.limit(PURCHASES) == 5
    assert healing.tiers.reached({PURCHASES: 4, TOUCHPOINTS: 9, COMMANDS: 9}, 10) == {}
    reached = healing.tiers.reached({PURCHASES: 5, TOUCHPOINTS: 0, COMMANDS: 0}, 10)
    assert reached[ONE].body.tier_seq == 2


async def test_the_earliest_record_says_how_far_to_read(body: bytes) -> None:
    healing = Healing(
        read_all(0, [record(ONE, 1, {PURCHASES: 7}, body), record(TWO, 1, {PURCHASES: 3}, body)])
    )
    assert healing.limit(PURCHASES) == 3
    healing.tiers.settle(healing.tiers.reached(dict.fromkeys(INPUTS, 3), 10))
    assert not healing.holds(TWO)
    assert healing.limit(PURCHASES) == 7
    healing.tiers.settle(healing.tiers.reached(dict.fromkeys(INPUTS, 7), 10))
    assert not healing
    assert healing.limit(PURCHASES) is None


async def test_what_stands_in_the_outbox_of_a_customer_is_newer_than_what_is_out(body: bytes) -> None:
    assert not Healing(read_all(0, [record(ONE, 1, {PURCHASES: 7}, body)]), {ONE})


async def test_records_that_are_none_of_ours_are_left_alone(
    body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ours = record(ONE, 1, {PURCHASES: 7}, body)
    others = [
        Published(0, None, ours.headers),
        Published(0, b"{}", ours.headers),
        Published(0, body, ()),
        Published(0, body, [(WATERMARKS_HEADER, b"purchases=1")]),
        Published(0, body, [(WATERMARKS_HEADER, b"\xff")]),
    ]
    assert len(Healing(read_all(0, [*others, ours]))) == 1
    assert caplog.text.count("none of ours") == len(others)


async def test_a_record_that_was_decided_from_more_than_the_log_holds_stops_the_worker(body: bytes) -> None:
    healing = Healing(read_all(3, [record(ONE, 1, {PURCHASES: 7}, body)]))
    healing.check(3, {(topic, 3): 7 for topic in INPUTS})
    with pytest.raises(FatalError, match="read up to 7, and the log ends at 6") as stopped:
        healing.check(3, {(topic, 3): 6 for topic in INPUTS})
    assert stopped.value.stop is Stop.PUBLISHED_UNREAD


async def test_a_published_tier_that_the_program_does_not_have_stops_the_worker(
    world: World, body: bytes
) -> None:
    world.begin([record(ONE, 1, {}, body.replace(b'"tier":"silver"', b'"tier":"platinum"'))])
    with pytest.raises(FatalError, match="'platinum'") as stopped:
        await world.shard.heal()
    assert stopped.value.stop is Stop.PUBLISHED_UNKNOWN
    assert ONE not in str(stopped.value)


async def test_a_record_tells_what_it_was_decided_from(world: World) -> None:
    [published] = await world.fold(contacts(0, ONE), purchases(0, 1, 2, customer=ONE))
    told = told_of(published)
    assert told.read_up_to == {PURCHASES: 2, TOUCHPOINTS: 1, COMMANDS: 0}
    assert told.body.customer_id == ONE


def test_a_batch_is_cut_between_its_records_or_where_there_are_none() -> None:
    batch = purchases(10, 1, 2, 3)
    before, behind = cut(batch, 12)
    assert before is not None
    assert behind is not None
    assert (before.start, before.end, [r.offset for r in before.records]) == (10, 12, [10, 11])
    assert (behind.start, behind.end, [r.offset for r in behind.records]) == (12, 13, [12])
    assert (before.epoch, behind.epoch) == (batch.epoch, batch.epoch)
    assert cut(batch, None) == (batch, None)
    assert cut(batch, 13) == (batch, None)
    assert cut(batch, 10) == (None, batch)
    holes = Batch(PURCHASES, 0, 10, 20, [])
    assert cut(holes, 15) == (Batch(PURCHASES, 0, 10, 15, []), Batch(PURCHASES, 0, 15, 20, []))


async def test_commands_do_not_wait_for_purchases_that_wait_for_them(world: World) -> None:
    """A batch of commands goes up to where the record was decided, though purchases behind it are unread."""
    bought = purchases(0, 1, customer=ONE)
    pin = commanded(0, (ONE, NOON + 2 * DAY, "gold", NOON + 9 * DAY))
    published = await world.fold(bought, pin)
    world.begin(published)

    class Ends:
        async def ends(self, partitions: Any) -> dict[tuple[str, int], int]:
            return {(topic, PARTITION): 50 for topic in INPUTS}

    world.shards._log = cast(Any, Ends())
    more = purchases(0, 1, 3, customer=ONE)
    # Appended before the command, and read behind it the first time.
    more.records = [record._replace(timestamp=1) for record in more.records]  # type: ignore[attr-defined]
    await world.hand(more, pin)
    assert world.done == [pin, more]
    assert world.told(ONE) == ("gold", "1")


# -- what is in the outbox and what is out -------------------------------------------------------------------------


def entry(customer: str, seq: int, body: bytes, **given: Any) -> Entry:
    published = record(customer, seq, {}, body)
    return Entry(TIER_CHANGES, PARTITION, customer.encode(), published.value, (), **given)


async def test_what_is_out_is_known_by_customer_and_sequence(body: bytes) -> None:
    told = read_all(0, [record(ONE, 2, {}, body)])
    letter = Entry("dead-letters", None, None, b"x", ())
    entries = [entry(ONE, 1, body), entry(ONE, 2, body), letter, entry(ONE, 3, body), entry(TWO, 1, body)]
    assert unpublished(entries, told) == entries[2:]
    assert unpublished(entries, {}) == entries


async def test_where_the_same_id_is_out_with_another_body_what_follows_from_it_does_not_go_out(
    body: bytes,
) -> None:
    told = read_all(0, [record(ONE, 2, {}, body.replace(b'"tier":"silver"', b'"tier":"gold"'))])
    assert unpublished([entry(ONE, 2, body), entry(ONE, 3, body)], told) == []


async def test_contacts_make_no_other_body(body: bytes) -> None:
    other = body.replace(b'"contacts":{}', b'"contacts":{"email":{"inbound":1,"outbound":0}}')
    assert other != body
    told = read_all(0, [record(ONE, 2, {}, other)])
    later = entry(ONE, 3, body)
    assert unpublished([entry(ONE, 2, body), later], told) == [later]
