"""The outbox of a shard: numbering, and what a change becomes."""

import asyncio

import pytest

from streams.outbox import NOTHING, Entry, Outbox, decode, encode, watermarks
from streams.protocols import COMMANDS, PURCHASES, TOUCHPOINTS
from streams.topics import CUSTOMER_TIERS, DEAD_LETTERS, TIER_CHANGES


def entry(value: bytes, topic: str = DEAD_LETTERS) -> Entry:
    return Entry(topic, None, b"900", value, [("a", b"1"), ("b", None)])


def entries(*values: bytes) -> list[Entry]:
    return [entry(value) for value in values]


async def test_taking_leaves_the_entries_where_they_are() -> None:
    outbox = Outbox(0, [], 10)
    outbox.add(entries(b"1", b"2", b"3"))
    assert await outbox.take(2, 1000) == (entries(b"1", b"2"), 2)
    assert await outbox.take(9, 1000) == (entries(b"1", b"2", b"3"), 3)
    assert len(outbox) == 3


async def test_numbers_go_on_from_what_the_store_holds() -> None:
    outbox = Outbox(7, entries(b"6", b"7"), 10)
    outbox.add(entries(b"8"))
    assert outbox.last == 8
    taken, upto = await outbox.take(2, 1000)
    assert ([e.value for e in taken], upto) == ([b"6", b"7"], 7)
    outbox.drop(7)
    taken, upto = await outbox.take(2, 1000)
    assert ([e.value for e in taken], upto) == ([b"8"], 8)


async def test_what_came_meanwhile_is_not_dropped() -> None:
    outbox = Outbox(0, [], 10)
    outbox.add(entries(b"1", b"2"))
    _, upto = await outbox.take(10, 1000)
    outbox.add(entries(b"3"))
    outbox.drop(upto)
    assert await outbox.take(10, 1000) == (entries(b"3"), 3)


async def test_dropping_twice_drops_once() -> None:
    outbox = Outbox(0, [], 10)
    outbox.add(entries(b"1", b"2"))
    outbox.drop(1)
    outbox.drop(1)
    assert len(outbox) == 1


async def test_a_large_entry_goes_alone_and_never_waits_for_ever() -> None:
    outbox = Outbox(0, [], 10)
    outbox.add(entries(b"small", bytes(500), b"small"))
    assert (await outbox.take(10, 100))[1] == 1
    outbox.drop(1)
    assert (await outbox.take(10, 100))[1] == 2
    outbox.drop(2)
    assert (await outbox.take(10, 100))[1] == 3


async def test_who_takes_from_an_empty_outbox_waits() -> None:
    outbox = Outbox(0, [], 10)
    taking = asyncio.ensure_future(outbox.take(10, 1000))
    outbox.add([])
    await asyncio.sleep(0.01)
    assert not taking.done()
    outbox.add(entries(b"1"))
    assert await asyncio.wait_for(taking, 1) == (entries(b"1"), 1)
    outbox.drop(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outbox.take(10, 1000), 0.01)


def test_there_is_room_below_the_bound_and_a_batch_may_overshoot_it() -> None:
    outbox = Outbox(0, [], 2)
    assert outbox.has_room
    outbox.add(entries(b"1"))
    assert outbox.has_room
    outbox.add(entries(b"2", b"3", b"4"))
    assert not outbox.has_room
    outbox.drop(3)
    assert outbox.has_room


def test_an_entry_comes_back_from_the_store_as_it_was() -> None:
    for partition, key, value in ((3, b"900", b"{}"), (None, None, None), (0, b"", b"\xff")):
        made = Entry(TIER_CHANGES, partition, key, value, [("a", b"\x00"), ("b", None)])
        back = decode(encode(made))
        assert (back.topic, back.partition, back.key, back.value) == (TIER_CHANGES, partition, key, value)
        assert [tuple(header) for header in back.headers] == [("a", b"\x00"), ("b", None)]


def test_a_change_stands_in_the_log_and_in_the_table_of_the_newest() -> None:
    records = list(entry(b"{}", TIER_CHANGES).records())
    assert [record.topic for record in records] == [TIER_CHANGES, CUSTOMER_TIERS]
    assert {(record.key, record.value, record.partition) for record in records} == {(b"900", b"{}", None)}
    assert [record.topic for record in entry(b"{}").records()] == [DEAD_LETTERS]


def test_watermarks_name_every_input() -> None:
    offsets = {COMMANDS: 3, PURCHASES: 1, TOUCHPOINTS: 2}
    assert watermarks(offsets) == b"purchases=1;touchpoints=2;customer-commands=3"


# -- holding -------------------------------------------------------------------------------------------------------


async def nothing_to_take(outbox: Outbox) -> bool:
    taking = asyncio.ensure_future(outbox.take(10, 1000))
    for _ in range(5):
        await asyncio.sleep(0)
    taking.cancel()
    return not taking.done()


async def test_behind_a_held_entry_nothing_is_taken_until_it_is_released() -> None:
    outbox = Outbox(0, [], 10)
    outbox.add(entries(b"1", b"2"))
    outbox.hold(2)
    outbox.add(entries(b"3", b"4"))
    assert await outbox.take(10, 1000) == (entries(b"1", b"2"), 2)
    outbox.drop(1)
    assert await outbox.take(10, 1000) == (entries(b"2"), 2)
    outbox.drop(2)
    assert await nothing_to_take(outbox)
    outbox.add(entries(b"5"))
    assert await nothing_to_take(outbox)
    outbox.hold(None)
    assert await outbox.take(10, 1000) == (entries(b"3", b"4", b"5"), 5)


async def test_a_release_wakes_who_waits() -> None:
    outbox = Outbox(0, [], 10)
    outbox.hold(0)
    taking = asyncio.ensure_future(outbox.take(10, 1000))
    outbox.add(entries(b"1"))
    await asyncio.sleep(0)
    assert not taking.done()
    outbox.hold(None)
    assert await asyncio.wait_for(taking, 1) == (entries(b"1"), 1)


async def test_a_hold_is_taken_over_with_the_outbox() -> None:
    pending = entries(b"6", b"7")
    outbox = Outbox(7, pending, 10, held=6)
    assert await outbox.take(10, 1000) == (pending[:1], 6)
    assert await nothing_to_take(Outbox(7, pending, 10, held=5))


async def test_a_hold_leaves_smaller_limits_as_they_are() -> None:
    outbox = Outbox(0, [], 10)
    outbox.add(entries(b"1", b"2", b"3"))
    outbox.hold(2)
    assert (await outbox.take(1, 1000))[1] == 1
    assert (await outbox.take(10, 1))[1] == 1


def test_held_entries_take_room() -> None:
    outbox = Outbox(0, [], 2)
    outbox.hold(0)
    outbox.add(entries(b"1", b"2"))
    assert not outbox.has_room
    outbox.hold(None)
    assert not outbox.has_room


def test_entries_behind_a_number_come_with_theirs() -> None:
    outbox = Outbox(7, entries(b"6", b"7"), 10)
    outbox.add(entries(b"8"))

    def behind(number: int) -> list[tuple[int, bytes | None]]:
        return [(found, entry.value) for found, entry in outbox.behind(number)]

    assert behind(6) == [(7, b"7"), (8, b"8")]
    assert behind(0) == [(6, b"6"), (7, b"7"), (8, b"8")]
    assert behind(8) == []
    outbox.drop(7)
    assert behind(6) == [(8, b"8")]


async def test_a_withdrawn_entry_makes_no_records_and_keeps_its_number() -> None:
    outbox = Outbox(7, entries(b"6", b"7"), 10)
    outbox.add([entry(b"{}", TIER_CHANGES)])
    outbox.replace(7, decode(encode(NOTHING)))
    taken, upto = await outbox.take(10, 1000)
    assert upto == outbox.last == 8
    assert [[record.value for record in one.records()] for one in taken] == [[b"6"], [], [b"{}", b"{}"]]
    outbox.drop(6)
    outbox.replace(8, NOTHING)
    taken, upto = await outbox.take(10, 1000)
    assert (upto, [list(one.records()) for one in taken]) == (8, [[], []])
