"""The simulator can fail: with any one of its safeguards broken, some schedule does not hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from schemas import compiled
from tests.simulation.broken import MUTANTS, RARE_MUTANTS

ROOT = Path(__file__).parents[2]
#: What a mutant fails with that is older than the code it breaks.
_SLIPS = ("TypeError", "AttributeError", "NameError")


@pytest.mark.parametrize("name", [break_it.__name__ for break_it, _ in MUTANTS])
def test_a_broken_safeguard_is_found(name: str) -> None:
    _must_fail(name)


@pytest.mark.long
@pytest.mark.parametrize("name", [break_it.__name__ for break_it in RARE_MUTANTS])
def test_a_safeguard_that_is_rarely_needed_is_missed(name: str) -> None:
    _must_fail(name)


def _must_fail(name: str) -> None:
    tried = subprocess.run(
        [sys.executable, "-m", "tests.simulation.broken", name],
        cwd=ROOT,
        env=os.environ | {compiled.SWITCH: "1"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert tried.returncode == 0, tried.stderr
    found = tried.stdout.split("\n")
    assert any(found)
    slips = [problem for problem in found if any(slip in problem for slip in _SLIPS)]
    assert slips == [], "it does not fit the code any more, and so nothing of it was tried"
