"""What is told of bonds leaves with the tier changes, and a store that lost it takes it over."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from loyalty.bond import BondMark
from schemas.bond_records import SegmentEvent, TriggerEvent, encode
from schemas.program import Program
from schemas.program_bonds import Bonds, Cap, ContactPolicy, Scenario, Segment, Step
from schemas.tier_change import ProgramRef
from streams.bonds_told import BondsTold, read_all_bonds, read_bond
from streams.healing import Healing, Told, read_all, unpublished
from streams.metrics import Metrics
from streams.outbox import BOND_HEADER, WATERMARKS_HEADER, Entry
from streams.protocols import COMMANDS, INPUTS, PURCHASES, TOUCHPOINTS, OutRecord, Published
from streams.topics import BOND_TOPICS, NURTURING_TRIGGERS, SEGMENT_CHANGES, TIER_CHANGES
from tests.loyalty.worlds import DAY
from tests.streams.shard_world import (
    NOON,
    PARTITION,
    MemoryStore,
    MemoryWriter,
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
    """Everybody is new, a buyer or a friend; who buys is written to at once, and once a year."""
    bonds = Bonds(
        segments=(Segment("buyer", min_orders=1), Segment("new")),
        contact_policy=ContactPolicy((Cap(1, "email", within=300 * DAY),)),
        scenarios=(
            Scenario(
                "welcome", "segment", (Step("email", "hello"),), segment="buyer", goal="none", cool_down=0
            ),
        ),
    )
    return msgspec.structs.replace(program(), bonds=bonds)


def topics(records: Sequence[OutRecord]) -> list[str]:
    return [record.topic for record in records]


def told_of(writer: MemoryWriter, wanted: Sequence[str]) -> list[Published]:
    """What stands in some topics."""
    return [Published(n, r.value, r.headers) for n, r in enumerate(writer.records) if r.topic in wanted]


async def folded(rules: Program, *batches: Any) -> MemoryWriter:
    """What a worker publishes that reads these."""
    writer = MemoryWriter()
    shard = make_shard(rules, MemoryStore(), writer)
    for batch in batches:
        await shard.process(batch)
    await publish(shard)
    return writer


async def test_what_is_decided_of_a_bond_leaves_in_the_order_in_which_it_was_decided(rules: Program) -> None:
    metrics = Metrics()
    writer = MemoryWriter()
    shard = make_shard(rules, MemoryStore(), writer, metrics=metrics)
    await shard.process(purchases(0, 1, 2, customer=ONE))
    await publish(shard)
    # Silver comes with the second purchase, behind what the first one brought.
    assert topics(writer.records) == [SEGMENT_CHANGES, NURTURING_TRIGGERS, TIER_CHANGES, "customer-tiers"]
    segment, trigger = writer.records[:2]
    assert (segment.key, segment.partition) == (ONE.encode(), PARTITION)
    header = dict(segment.headers)
    assert header["ce_type"] == b"loyalty.segment.changed.v1"
    assert header[WATERMARKS_HEADER] == b"purchases=2;touchpoints=0;customer-commands=0"
    assert json.loads(header[BOND_HEADER] or b"") == {
        "seq": 1,
        "segment": "buyer",
        "segment_seq": 1,
        "attribution_seq": 0,
        "reservations": 0,
    }
    sent = read_bond(Published(0, trigger.value, trigger.headers))
    assert isinstance(sent.body, TriggerEvent)
    assert (sent.mark.seq, sent.body.status, sent.body.scenario) == (2, "sent", "welcome")
    assert sent.read_up_to == {PURCHASES: 2, TOUCHPOINTS: 0, COMMANDS: 0}

    def count(kind: str, status: str) -> float | None:
        labels = {"kind": kind, "status": status}
        return metrics.registry.get_sample_value("kizuna_bond_records_total", labels)

    assert (count("segment", "changed"), count("trigger", "sent"), count("trigger", "suppressed")) == (
        1,
        1,
        0,
    )


async def test_a_touchpoint_may_decide_and_then_the_readable_hash_says_so(rules: Program) -> None:
    store, writer = MemoryStore(), MemoryWriter()
    shard = make_shard(rules, store, writer)
    await shard.process(contacts(0, ONE))
    await publish(shard)
    assert topics(writer.records) == [SEGMENT_CHANGES]
    assert (store.readable[ONE]["segment"], store.readable[ONE]["segment_seq"]) == ("new", "1")
    store.readable.clear()
    await shard.process(contacts(1, ONE))
    assert store.readable == {}, "nothing of it has changed"


async def test_every_trim_tells_all_positions_also_those_of_topics_in_which_nothing_was_published(
    rules: Program,
) -> None:
    store, writer = MemoryStore(), MemoryWriter()
    shard = make_shard(rules, store, writer)
    await shard.process(purchases(0, 1, customer=ONE))
    await publish(shard)
    await shard.process(contacts(0, TWO))
    await publish(shard)
    assert [outputs for _, outputs in store.trimmed] == [
        {SEGMENT_CHANGES: 1, NURTURING_TRIGGERS: 1},
        {SEGMENT_CHANGES: 2, NURTURING_TRIGGERS: 1},
    ]


async def test_a_record_with_another_body_is_not_what_the_state_decided(rules: Program) -> None:
    writer = MemoryWriter()
    shard = make_shard(rules, MemoryStore(), writer)
    await shard.process(purchases(0, 1, customer=ONE))
    await publish(shard)
    mark, body = read_all_bonds(PARTITION, told_of(writer, BOND_TOPICS))[ONE].records[-1]
    [customer] = (await shard._customers([ONE])).values()
    assert shard.rules.bond_agrees(customer, mark, body)
    assert isinstance(body, TriggerEvent)
    assert not shard.rules.bond_agrees(
        customer, mark, msgspec.structs.replace(body, status="suppressed", expires_at=None)
    )


# -- healing -------------------------------------------------------------------------------------------------------


def begin(rules: Program, writer: MemoryWriter) -> tuple[Any, MemoryStore, MemoryWriter]:
    """A shard whose store knows nothing of what was published."""
    store, after = MemoryStore(), MemoryWriter()
    shard = make_shard(rules, store, after)
    shard.healing = Healing(
        read_all(PARTITION, told_of(writer, [TIER_CHANGES])),
        (),
        read_all_bonds(PARTITION, told_of(writer, BOND_TOPICS)),
    )
    return shard, store, after


async def test_what_was_published_is_adopted_and_not_decided_again(rules: Program) -> None:
    bought = purchases(0, 1, 2, customer=ONE)
    before = await folded(rules, bought)
    shard, store, after = begin(rules, before)
    await shard.process(bought)
    assert not shard.healing
    assert store.readable[ONE]["segment"] == "buyer"
    await shard.process(purchases(2, 3, customer=ONE))
    await publish(shard)
    assert after.records == []
    assert shard._metrics.registry.get_sample_value("kizuna_adoptions_total") == 1, "its tier was right"


async def test_while_a_bond_is_held_facts_are_noted_and_its_place_under_the_cap_is_taken_over(
    rules: Program,
) -> None:
    bought = purchases(0, 1, customer=ONE)
    before = await folded(rules, bought, contacts(0, TWO))
    sent = json.loads(before.records[1].value or b"")
    assert (sent["status"], sent["scenario"]) == ("sent", "welcome")
    shard, _, after = begin(rules, before)
    # Touchpoints first: the other way about.
    await shard.process(contacts(0, TWO))
    assert ONE in shard.healing.bonds
    assert TWO in shard.healing.bonds
    await shard.process(bought)
    await publish(shard)
    assert after.records == []
    [customer] = (await shard._customers([ONE])).values()
    assert [placed.at for placed in customer.bond.placed] == [NOON + DAY]
    assert (customer.bond.seq, customer.bond_held) == (2, False)


async def test_what_follows_while_a_bond_is_held_for_its_tier_is_decided_once_that_is_known(
    rules: Program,
) -> None:
    """Nothing was published of the bond, as if the program had kept none then."""
    plain = msgspec.structs.replace(rules, bonds=None)
    bought = purchases(0, 1, 2, customer=ONE)
    before = await folded(plain, bought)
    assert topics(before.records) == [TIER_CHANGES, "customer-tiers"]
    shard, _, after = begin(rules, before)
    await shard.process(purchases(0, 1, customer=ONE))
    assert ONE in shard.healing.bonds
    await publish(shard)
    assert after.records == []
    rest = purchases(1, 2, customer=ONE)
    await shard.process(rest)
    await publish(shard)
    assert topics(after.records) == [SEGMENT_CHANGES, NURTURING_TRIGGERS]


def told(read_up_to: int, *seqs: int) -> BondsTold:
    marks = [BondMark(seq, "new", seq, 0, 0) for seq in seqs]
    return BondsTold([(mark, body(mark.seq)) for mark in marks], dict.fromkeys(INPUTS, read_up_to))


def body(seq: int, segment: str = "new", customer: str = ONE) -> SegmentEvent:
    return SegmentEvent(
        event_id=f"shop:segment/{customer}/{seq}",
        customer_id=customer,
        segment_seq=seq,
        previous_segment=None,
        segment=segment,
        reason="touchpoint",
        cause_source="",
        cause_event_id="e",
        effective_at="2017-01-01T12:00:00.000Z",
        program=ProgramRef("shop", "v"),
        value=0,
        attachment=0,
        tier="member",
    )


def test_batches_are_cut_at_the_earliest_of_tiers_and_bonds_and_a_bond_waits_for_its_tier() -> None:
    tier = Told(None, None, dict.fromkeys(INPUTS, 7))  # type: ignore[arg-type]
    healing = Healing({ONE: tier}, (), {ONE: told(3, 1), TWO: told(5, 1, 2)})
    assert (len(healing), healing.limit(PURCHASES)) == (2, 5)
    assert list(healing.bonds.reached(dict.fromkeys(INPUTS, 6), 10)) == [TWO]
    healing.bonds.settle(healing.bonds.reached(dict.fromkeys(INPUTS, 6), 10))
    assert healing.limit(PURCHASES) == 7
    reached = healing.bonds.reached(dict.fromkeys(INPUTS, 7), 10)
    assert [mark.seq for mark, _ in reached[ONE].records] == [1]


def test_of_whom_something_is_in_the_outbox_the_store_knows_more() -> None:
    assert not Healing({}, (), {ONE: told(3, 1)}, {ONE})
    assert Healing({}, {ONE}, {ONE: told(3, 1)})


def entry(seq: int, segment: str = "new", customer: str = ONE) -> Entry:
    mark = msgspec.json.encode(BondMark(seq, "new", seq, 0, 0))
    headers = [("ce_type", b"loyalty.segment.changed.v1"), (BOND_HEADER, mark)]
    return Entry(SEGMENT_CHANGES, PARTITION, customer.encode(), encode(body(seq, segment, customer)), headers)


def test_what_is_out_of_bonds_is_known_by_customer_and_seq() -> None:
    entries = [entry(1), entry(2), entry(3), entry(1, customer=TWO)]
    assert unpublished(entries, {}, {ONE: told(3, 1, 2)}) == entries[2:]
    assert unpublished(entries, {}, {}) == entries


def test_where_the_same_seq_is_out_with_another_body_what_follows_from_it_does_not_go_out() -> None:
    entries = [entry(1), entry(2, "buyer"), entry(3), entry(1, customer=TWO)]
    assert unpublished(entries, {}, {ONE: told(3, 1, 2)}) == entries[3:]


def test_records_are_put_in_the_order_of_their_marks_and_what_is_none_of_ours_is_left_out() -> None:
    def published(one: Entry, read: int) -> Published:
        marks = f"purchases={read};touchpoints=0;customer-commands=0".encode()
        return Published(0, one.value, [*one.headers, (WATERMARKS_HEADER, marks)])

    found = read_all_bonds(
        0,
        [
            published(entry(3), 9),
            published(entry(1), 4),
            Published(1, b"{}", ()),
            Published(2, None, entry(2).headers),
            Published(3, entry(2).value, entry(2).headers),
            published(entry(2), 6),
        ],
    )
    assert list(found) == [ONE]
    assert [mark.seq for mark, _ in found[ONE].records] == [1, 2, 3]
    assert found[ONE].read_up_to == {PURCHASES: 9, TOUCHPOINTS: 0, COMMANDS: 0}
