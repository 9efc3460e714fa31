"""One lane works at a time, in turns; a turn within a turn is the same, and the end of the inner one ends it."""

import asyncio

from streams.pacing import SLICE, Pace


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_turn_within_a_turn_waits_for_nobody_and_ends_both() -> None:
    pace, seen = Pace(), []

    async def other() -> None:
        async with pace:
            seen.append("other")

    async with pace:
        waiting = asyncio.create_task(other())
        await asyncio.sleep(0)
        async with pace:
            seen.append("mine")
        await waiting
        seen.append("after")
    assert seen == ["mine", "other", "after"]


async def test_who_leaves_a_turn_lets_others_work_and_waits_for_them_to_end() -> None:
    pace, seen = Pace(), []
    left = asyncio.Event()

    async def other() -> None:
        async with pace:
            seen.append("other begins")
            left.set()
            await asyncio.sleep(0)
            seen.append("other ends")

    async with pace:
        waiting = asyncio.create_task(other())
        async with pace.left():
            await left.wait()
        seen.append("mine goes on")
    await waiting
    assert seen == ["other begins", "other ends", "mine goes on"]


async def test_leaving_without_a_turn_takes_none() -> None:
    pace = Pace()
    async with pace.left():
        pass
    async with asyncio.timeout(1), pace:
        pass


async def test_a_turn_that_fails_is_over() -> None:
    pace = Pace()
    try:
        async with pace:
            raise ValueError("no")
    except ValueError:
        pass
    async with asyncio.timeout(1), pace:
        pass


async def test_a_slice_is_over_by_the_clock_and_a_rest_begins_the_next() -> None:
    clock = Clock()
    pace = Pace(clock)
    async with pace:
        assert not pace.is_over()
        clock.now += SLICE
        assert pace.is_over()
        await pace.rest()
        assert not pace.is_over()
