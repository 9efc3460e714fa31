"""Up to when a shard may let fall due what time alone brings (contract, section 3), and who is moved when."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from schemas.program import Program
from streams import sweeper as module
from streams.healing import Healing
from streams.intake import Intake
from streams.metrics import Metrics
from streams.outbox import Outbox
from streams.protocols import (
    COMMANDS,
    INPUTS,
    PURCHASES,
    TOUCHPOINTS,
    RefusedError,
    ShardLostError,
    ShardState,
    UnavailableError,
)
from streams.settings import ClockKind, Settings
from streams.shard import Domain
from streams.shards import Shards
from streams.sweeper import Sweeper
from tests.streams.conftest import BINDING

NOW = 1_000_000


class SweptShard:
    """A shard that only remembers up to when it was swept."""

    def __init__(self, partition: int, state: ShardState) -> None:
        self.partition = partition
        self.state = state
        self.outbox = Outbox(0, (), 1)
        self.healing = Healing({})
        self.is_lost = False
        self.swept: list[int] = []
        self.clock: int | None = None
        #: What each of the next moves finds, and at which clocks there were moves.
        self.finds: list[int | ShardLostError] = []
        self.moves: list[int] = []

    async def move(self, clock: int, limit: int) -> int:
        self.moves.append(clock)
        assert limit == 50
        found = self.finds.pop(0) if self.finds else 0
        if isinstance(found, ShardLostError):
            raise found
        return found

    async def sweep(self, until: int, clock: int) -> None:
        self.swept.append(until)
        self.clock = clock


class Outside:
    """The log's ends and the server's clock, and in which order they were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at: dict[tuple[str, int], int] = {}
        self.gone = False

    async def now(self) -> int:
        self.asked.append("now")
        if self.gone:
            raise UnavailableError("gone")
        return NOW

    async def ends(self, partitions: Any) -> dict[tuple[str, int], int]:
        self.asked.append("ends")
        return {(topic, p): self.at.get((topic, p), 0) for p in partitions for topic in INPUTS}


@pytest.fixture
def outside() -> Outside:
    return Outside()


def sweeper_of(outside: Outside, program: Program, clock: ClockKind, *held: SweptShard) -> Sweeper:
    settings = Settings(clock=clock)

    async def fail(error: BaseException) -> None:
        raise error

    domain = Domain(program, Intake(settings, program, 12))
    metrics, log = Metrics(), cast(Any, outside)
    shards = Shards(settings, domain, cast(Any, SimpleNamespace()), log, metrics, fail, BINDING)
    shards._held = {shard.partition: cast(Any, shard) for shard in held}
    return Sweeper(settings, program, shards, log, outside, metrics)


def shard(offsets: dict[str, int], partition: int = 3, **given: Any) -> SweptShard:
    return SweptShard(partition, ShardState(offsets=dict.fromkeys(INPUTS, 0) | offsets, **given))


async def swept(outside: Outside, program: Program, clock: ClockKind, held: SweptShard) -> int:
    await sweeper_of(outside, program, clock, held).sweep()
    [until] = held.swept
    return until


async def test_where_all_is_read_the_wall_clock_is_now(outside: Outside, grocery: Program) -> None:
    outside.at = {(PURCHASES, 3): 5, (TOUCHPOINTS, 3): 9}
    held = shard({PURCHASES: 5, TOUCHPOINTS: 9}, appended={PURCHASES: 10, TOUCHPOINTS: 20})
    assert await swept(outside, grocery, ClockKind.WALL, held) == NOW


async def test_where_nothing_was_ever_appended_the_wall_clock_is_now(
    outside: Outside, grocery: Program
) -> None:
    assert await swept(outside, grocery, ClockKind.WALL, shard({})) == NOW


@pytest.mark.parametrize("topic", INPUTS)
async def test_while_records_are_unread_time_goes_no_further_than_what_was_read(
    outside: Outside, grocery: Program, topic: str
) -> None:
    outside.at = {(topic, 3): 6}
    held = shard({topic: 5}, appended={PURCHASES: 10, TOUCHPOINTS: 20, COMMANDS: 30})
    assert await swept(outside, grocery, ClockKind.WALL, held) == held.state.appended[topic]
    assert held.clock == NOW, "how far behind it is, is told by the clock"


async def test_of_several_unread_inputs_the_one_that_is_furthest_behind_counts(
    outside: Outside, grocery: Program
) -> None:
    outside.at = {(PURCHASES, 3): 6, (TOUCHPOINTS, 3): 6}
    held = shard({PURCHASES: 5, TOUCHPOINTS: 5}, appended={PURCHASES: 30, TOUCHPOINTS: 20, COMMANDS: 10})
    assert await swept(outside, grocery, ClockKind.WALL, held) == 20


async def test_while_an_input_was_never_read_and_holds_records_there_is_no_time_yet(
    outside: Outside, grocery: Program
) -> None:
    outside.at = {(PURCHASES, 3): 6}
    assert await swept(outside, grocery, ClockKind.WALL, shard({}, appended={TOUCHPOINTS: 20})) == 0


async def test_an_append_time_ahead_of_the_server_does_not_move_time_beyond_now(
    outside: Outside, grocery: Program
) -> None:
    outside.at = {(PURCHASES, 3): 6}
    held = shard({PURCHASES: 5}, appended={PURCHASES: NOW + 500})
    assert await swept(outside, grocery, ClockKind.WALL, held) == NOW


async def test_the_clock_is_asked_before_the_ends(outside: Outside, grocery: Program) -> None:
    await swept(outside, grocery, ClockKind.WALL, shard({}))
    assert outside.asked == ["now", "ends"]


async def test_the_event_clock_is_the_newest_purchase_and_nothing_else(
    outside: Outside, grocery: Program
) -> None:
    outside.at = {(PURCHASES, 3): 6}
    held = shard({PURCHASES: 5}, newest={PURCHASES: 77, TOUCHPOINTS: 99}, appended={PURCHASES: 5})
    assert await swept(outside, grocery, ClockKind.EVENT, held) == 77
    held = shard({}, newest={TOUCHPOINTS: 99})
    assert await swept(outside, grocery, ClockKind.EVENT, held) == 0


async def test_every_shard_has_a_clock_of_its_own(outside: Outside, grocery: Program) -> None:
    outside.at = {(PURCHASES, 3): 6}
    behind = shard({PURCHASES: 5}, appended={PURCHASES: 10})
    level = shard({PURCHASES: 5}, partition=4, appended={PURCHASES: 10})
    await sweeper_of(outside, grocery, ClockKind.WALL, behind, level).sweep()
    assert (behind.swept, level.swept) == ([10], [NOW])


async def test_where_redis_does_not_answer_nothing_is_swept(outside: Outside, grocery: Program) -> None:
    outside.gone = True
    held = shard({})
    await sweeper_of(outside, grocery, ClockKind.WALL, held).sweep()
    assert held.swept == []


async def test_a_sweep_that_nobody_answers_does_not_count_as_one(outside: Outside, grocery: Program) -> None:
    sweeper = sweeper_of(outside, grocery, ClockKind.WALL, shard({}))
    outside.gone = True
    await sweeper.sweep()
    assert sweeper._metrics.last_sweep._value.get() == 0
    outside.gone = False
    await sweeper.sweep()
    assert sweeper._metrics.last_sweep._value.get() == NOW / 1000


async def test_a_standstill_of_sweeps_is_told_once_and_so_is_its_end(
    outside: Outside, grocery: Program, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "streams.sweeper")
    sweeper = sweeper_of(outside, grocery, ClockKind.WALL, shard({}))
    for gone in (True, True, True, False, False, True):
        outside.gone = gone
        await sweeper.sweep()
    assert [record.message for record in caplog.records] == [
        "no sweep until they answer: gone",
        "sweeps go on",
        "no sweep until they answer: gone",
    ]


async def test_allowed_lateness_is_taken_off(outside: Outside, grocery: Program) -> None:
    late = msgspec.structs.replace(grocery, allowed_lateness=1_000)
    held = shard({})
    assert await swept(outside, late, ClockKind.WALL, held) == NOW - 1_000
    assert held.clock == NOW - 1_000, "what waits as the program says is not overdue"


# -- moving --------------------------------------------------------------------------------------------------------


async def moved(sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch, rounds: int = 1) -> list[float]:
    """Move until nobody was found so many times; how long was waited each time, had there been any waiting."""
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        if waits.count(0.5) == rounds:
            raise asyncio.CancelledError

    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=wait, gather=asyncio.gather))
    with pytest.raises(asyncio.CancelledError):
        await sweeper.move()
    return waits


def moving(partition: int = 3, **given: Any) -> SweptShard:
    return shard({}, partition, generation=1, **given)


async def test_a_shard_that_was_never_swept_has_no_clock_to_move_by(
    outside: Outside, grocery: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = moving()
    sweeper = sweeper_of(outside, grocery, ClockKind.WALL, held)
    await moved(sweeper, monkeypatch)
    assert held.moves == []
    await sweeper.sweep()
    await moved(sweeper, monkeypatch)
    assert held.moves == [NOW]


async def test_customers_are_moved_by_the_clock_up_to_which_all_was_read(
    outside: Outside, grocery: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.at = {(PURCHASES, 3): 6, (PURCHASES, 4): 6}
    behind, unread = moving(appended={PURCHASES: 20}), moving(4)
    sweeper = sweeper_of(outside, grocery, ClockKind.WALL, behind, unread)
    await sweeper.sweep()
    await moved(sweeper, monkeypatch)
    assert (behind.moves, unread.moves) == ([20], [0])
    late = msgspec.structs.replace(grocery, allowed_lateness=7)
    held = moving(newest={PURCHASES: 77})
    sweeper = sweeper_of(outside, late, ClockKind.EVENT, held)
    await sweeper.sweep()
    await moved(sweeper, monkeypatch)
    assert held.moves == [77]


async def test_shards_whose_customers_are_all_moved_are_left_alone(
    outside: Outside, grocery: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, plain = moving(moved=1), shard({}, 4)
    sweeper = sweeper_of(outside, grocery, ClockKind.WALL, done, plain)
    await sweeper.sweep()
    assert await moved(sweeper, monkeypatch) == [0.5]
    assert (done.moves, plain.moves) == ([], [])


async def test_so_many_customers_are_moved_in_a_second(
    outside: Outside, grocery: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = moving(), moving(4)
    one.finds, other.finds = [50, 50, 30], [50]
    sweeper = sweeper_of(outside, grocery, ClockKind.WALL, one, other)
    await sweeper.sweep()
    assert await moved(sweeper, monkeypatch) == [0.05, 0.05, 0.05, 0.05, 0.5]
    assert (len(one.moves), len(other.moves)) == (4, 4), "by turns"


async def test_a_shard_that_is_lost_while_customers_are_moved_holds_up_no_other(
    outside: Outside, grocery: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, other = moving(), moving(4)
    lost.finds, other.finds = [RefusedError("owner")], [50, 50]
    sweeper = sweeper_of(outside, grocery, ClockKind.WALL, lost, other)
    await sweeper.sweep()
    await moved(sweeper, monkeypatch)
    assert len(other.moves) == 3
    assert sweeper._shards._lost.is_set()


async def test_what_comes_to_be_listed_later_is_looked_for_again(
    outside: Outside, grocery: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = moving()
    held.finds = [0, 5]
    sweeper = sweeper_of(outside, grocery, ClockKind.WALL, held)
    await sweeper.sweep()
    assert await moved(sweeper, monkeypatch, rounds=2) == [0.5, 0.05, 0.5]
