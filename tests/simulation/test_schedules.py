"""A few hundred seeded schedules hold, their faults hit something, and a seed always gives the same schedule."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.simulation.running import main, missing_bites
from tests.simulation.schedule import run
from tests.simulation.virtual_time import DeadlockError, VirtualLoop

ROOT = Path(__file__).resolve().parents[2]
_SEEDS = 200
_PARTS = 4
#: Too rare for so few: `make simulate` with a thousand or more asks for it.
_RARE = {"fenced"}


@pytest.fixture(scope="module")
def counts() -> Counter[str]:
    """What happened in all schedules of this module."""
    return Counter()


@pytest.mark.parametrize("part", range(_PARTS))
def test_every_schedule_holds(part: int, counts: Counter[str]) -> None:
    failed = {}
    for seed in range(part + 1, _SEEDS + 1, _PARTS):
        result = run(seed)
        counts.update(result.counts)
        if result.problems:
            failed[f"make simulate SEED={seed} RUNS=1 ARGS=--trace"] = result.problems
    assert failed == {}


def test_every_kind_of_fault_hit_something(counts: Counter[str]) -> None:
    assert counts["schedules"] == _SEEDS, "run the whole module"
    assert set(missing_bites(counts)) <= _RARE


def test_a_seed_gives_the_same_schedule_again_and_in_another_process() -> None:
    seeds = range(1, 9)
    here = [run(seed).digest for seed in seeds]
    assert here == [run(seed).digest for seed in seeds]
    assert len(set(here)) == len(here)
    code = f"from tests.simulation.schedule import run; print([run(s).digest for s in {seeds!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip().splitlines()[-1] == str(here)


def test_without_faults_nothing_is_refused_or_lost() -> None:
    counts: Counter[str] = Counter()
    for seed in range(1, 21):
        result = run(seed, {})
        assert result.problems == []
        counts.update(result.counts)
    assert counts["changes"] > 50
    assert not [name for name in counts if name.startswith(("kills", "losses", "zombies")) and counts[name]]


def test_a_seed_is_replayed_with_all_that_happened(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--seed", "3", "--runs", "1", "--trace"])
    assert ended.value.code == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "seed 3: all holds"
    assert told[-2] == f"trace {run(3).digest:08x}"
    assert len(told) > 100


def test_a_failing_seed_is_named_with_its_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.simulation.schedule.judge", lambda world: ["it does not hold"])
    with pytest.raises(SystemExit) as ended:
        main(["--seed", "3", "--runs", "2", "--jobs", "1"])
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert "seed 3 FAILED; again: make simulate SEED=3 RUNS=1 ARGS=--trace\n  it does not hold" in told
    assert "FAILED: 2 of 2 schedules" in told


# -- virtual time --------------------------------------------------------------------------------------------------


def test_time_jumps_to_the_next_timer() -> None:
    import asyncio

    loop = VirtualLoop()
    loop.run_until_complete(asyncio.sleep(86_400.5))
    assert loop.time() == 86_400.5
    loop.finish()


def test_where_nobody_is_left_to_act_it_is_a_deadlock() -> None:
    loop = VirtualLoop()
    with pytest.raises(DeadlockError):
        loop.run_until_complete(loop.create_future())
    loop.finish()
