"""`kill -9` at every step of a worker's way: nothing is lost and nothing counts twice."""

import asyncio
import itertools
import json
import random
from collections.abc import Callable, Iterator

import pytest

from tests.faults.load import Load, Sent, stream
from tests.faults.processes import evict, launch, metric, stepped
from tests.faults.sections import with_bonds
from tests.faults.stepped import Step
from tests.faults.verifier import verify
from tests.space import Space, now_ms, purchase, wait_until


async def die_and_recover(space: Space, deaths: list[tuple[Step, int]], seed: int) -> None:
    """One worker after the other dies at its step while events come; the last one finishes the work."""
    # Many deaths take minutes, and the verifier's time grows with the square of the log.
    load = Load(space, stream(seed), rate=400 if len(deaths) < 10 else 150)
    load.send(2_000)
    with load:
        for step, times in deaths:
            before = space.committed()
            doomed = stepped(space, step, times, after=1).wait_bitten()
            assert doomed.file.read_text() == step
            assert doomed.worker.process.returncode == -9
            assert space.committed() > before, "no commit of that life"
            assert not space.all_is_read(), "nothing was left to do"
            # Rather than wait for its session to run out, each time.
            evict(space)
        load.stop()
        assert not space.all_is_read()
        last = launch(space).wait_ready()
        verdict = await verify(space)
    print(verdict)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.dead_letters, verdict.bonded, verdict.goals) > 10, verdict
    # What marketing sends comes back never, once or twice.
    assert load.marketing is not None
    assert min(load.marketing.came_back[times] for times in (0, 1, 2)) > 10, load.marketing.came_back
    assert metric(last, "kizuna_take_overs_total") >= space.partitions


async def test_a_worker_killed_once_at_each_step_loses_nothing_and_says_nothing_twice(space: Space) -> None:
    await die_and_recover(space, [(step, 2) for step in Step], seed=1)


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_thirty_kills_each_after_a_commit_of_that_life(space: Space) -> None:
    random_ = random.Random(30)
    deaths = [(step, random_.randrange(1, 12)) for step in Step for _ in range(5)]
    random_.shuffle(deaths)
    await die_and_recover(space, deaths, seed=2)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_killed_from_outside_and_left_in_the_group_its_shards_go_to_the_other_worker(
    tiers_space: Space,
) -> None:
    """With tiers alone: the promises of a program that keeps no bonds are the same."""
    space = tiers_space
    load = Load(space, stream(3))
    load.send(2_000)
    one, other = launch(space), launch(space)
    wait_until(
        lambda: all(metric(w.wait_ready(), "kizuna_shards") == 2 for w in (one, other)), 60, "two each"
    )
    with load:
        before = space.committed()
        wait_until(lambda: space.committed() > before + 500, 60, "work goes on")
        one.kill()
        assert not space.all_is_read()
        wait_until(lambda: metric(other, "kizuna_shards") == 4, 60, "all shards at the other")
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert verdict.promised > 10, verdict


def live(seed: int) -> Iterator[Sent]:
    """Purchases of this very moment."""
    random_ = random.Random(seed)
    for number in itertools.count():
        customer, amount = f"c{random_.randrange(300)}", f"{random_.randrange(6_000) / 100:.2f}"
        event = purchase(customer, number, amount, now_ms())
        yield Sent("purchases", customer.encode(), json.dumps(event).encode())


@pytest.mark.long
async def test_what_fell_due_by_the_wall_clock_while_nobody_worked_falls_at_its_instant_and_once(
    new_space: Callable[..., Space],
) -> None:
    program = with_bonds("15s", "1h", "100.00", "s")
    program = program.replace("ledger =", 'allowed_lateness = "4s"\nledger =')
    space = new_space(partitions=4, clock="wall", program=program)
    first = stepped(space, Step.IN_TRANSACTION, 40, after=1)
    first.worker.wait_ready()
    load = Load(space, live(5), rate=100)
    with load:
        first.wait_bitten()
        # Longer than the window less the lateness: much falls due, and much is unread.
        await asyncio.sleep(8)
        evict(space)
        second = stepped(space, Step.BEFORE_COMMIT, 40, after=1).wait_bitten()
        assert second.worker.process.returncode == -9
    await asyncio.sleep(8)
    assert not space.all_is_read()
    evict(space)
    launch(space).wait_ready()
    verdict = await verify(space)
    print(verdict)
    assert verdict.is_clean, verdict
    assert verdict.promised > 200, verdict
    falls = [change for change in space.changes() if change["reason"] == "window_expiry"]
    assert len(falls) > 50
