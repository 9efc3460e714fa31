"""The store's clock, carried on between two answers."""

import pytest

from streams.protocols import UnavailableError
from streams.store_clock import StoreClock


class Stopped:
    """A store whose clock stands where it is set."""

    def __init__(self) -> None:
        self.at = 1_000_000
        self.asked = 0
        self.is_gone = False

    async def now(self) -> int:
        if self.is_gone:
            raise UnavailableError("gone")
        self.asked += 1
        return self.at


async def test_the_time_is_carried_on_from_the_last_answer_and_asked_for_again_when_that_is_old() -> None:
    store, mine = Stopped(), [50.0]
    clock = StoreClock(store, lambda: mine[0])
    assert await clock.about() == 1_000_000
    mine[0] += 4.5
    assert (await clock.about(), store.asked) == (1_004_500, 1)
    store.at, mine[0] = 1_010_000, mine[0] + 0.5
    assert (await clock.about(), store.asked) == (1_010_000, 2)


async def test_who_asks_for_the_time_is_told_it_by_the_store_and_all_others_profit() -> None:
    store, mine = Stopped(), [50.0]
    clock = StoreClock(store, lambda: mine[0])
    assert await clock.now() == 1_000_000
    mine[0], store.at = 54.0, 2_000_000
    assert await clock.now() == 2_000_000
    mine[0] = 58.0
    assert (await clock.about(), store.asked) == (2_004_000, 2)


async def test_an_old_answer_is_no_time_where_the_store_is_gone() -> None:
    store, mine = Stopped(), [50.0]
    clock = StoreClock(store, lambda: mine[0])
    await clock.now()
    store.is_gone = True
    mine[0] += 1.0
    assert await clock.about() == 1_001_000
    mine[0] += 10.0
    with pytest.raises(UnavailableError):
        await clock.about()
