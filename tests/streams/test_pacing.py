"""One lane works at a time, in turns; a turn within a turn is the same, and the end of the inner one ends it."""

import asyncio

from streams.pacing import SLICE, TURN, Pace


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


async def test_a_long_turn_is_interrupted_by_those_that_begin_and_goes_on_behind_them() -> None:
    clock = Clock()
    pace, seen = Pace(clock), []

    async def lane(name: str, parts: int) -> None:
        async with pace:
            for part in range(parts):
                seen.append(f"{name}{part}")
                clock.now += TURN
                await pace.rest()

    await asyncio.gather(lane("a", 4), lane("b", 3), lane("c", 1))
    # Of two long ones that which was interrupted first goes on first, to its end.
    assert seen == ["a0", "b0", "c0", "a1", "a2", "a3", "b1", "b2"]


async def test_who_is_interrupted_goes_on_however_many_begin() -> None:
    clock = Clock()
    pace = Pace(clock)
    begun = 0

    async def short() -> None:
        nonlocal begun
        async with pace:
            begun += 1
            clock.now += TURN
            following.append(asyncio.create_task(short()))
            await pace.rest()

    following: list[asyncio.Task[None]] = []
    async with pace:
        following.append(asyncio.create_task(short()))
        await asyncio.sleep(0)
        clock.now += TURN
        async with asyncio.timeout(5):
            await pace.rest()
        assert 1 <= begun < 100
    for task in following:
        task.cancel()


async def test_who_is_cancelled_while_it_waits_leaves_the_turn_to_the_next() -> None:
    pace, seen = Pace(), []

    async def lane(name: str) -> None:
        async with pace:
            seen.append(name)

    async with pace:
        first, second, third = (asyncio.create_task(lane(name)) for name in "abc")
        await asyncio.sleep(0)
        first.cancel()
    # The second one has the turn by now, and has not gone on yet.
    second.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert seen == ["c"]
    async with asyncio.timeout(1), pace:
        pass


async def test_who_is_cancelled_while_it_is_interrupted_has_no_turn() -> None:
    clock = Clock()
    pace = Pace(clock)

    async def long() -> None:
        async with pace:
            await asyncio.sleep(0)
            clock.now += TURN
            await pace.rest()
            raise AssertionError("not reached")

    interrupted = asyncio.create_task(long())
    await asyncio.sleep(0)
    async with pace:
        interrupted.cancel()
        await asyncio.gather(interrupted, return_exceptions=True)
        assert interrupted.cancelled()
    async with asyncio.timeout(1), pace:
        pass
