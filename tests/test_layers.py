"""The shape of the code: imports go one way, our packages are ours alone, and no file is a drawer."""

import importlib
import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import agents

ROOT = Path(__file__).parent.parent
OURS = ("schemas", "loyalty", "streams", "agents", "cli")
MODULES = sorted(path for package in (*OURS, "tests") for path in (ROOT / package).rglob("*.py"))

#: Names that say nothing of what is in a module.
DRAWERS = {"util", "utils", "helper", "helpers", "manager", "managers", "base", "common", "misc"}
MOST_LINES = 500


def test_imports_go_one_way() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("package", OURS)
def test_a_package_is_ours_alone(package: str) -> None:
    # Generic names: another distribution that has an `agents` of its own would shadow ours, or be shadowed.
    others = set(packages_distributions().get(package, ())) - {"kizuna"}
    assert others == set()
    assert Path(str(importlib.import_module(package).__file__)).parent == ROOT / package


def test_every_agent_is_joined() -> None:
    there = {path.stem for path in (ROOT / "agents").glob("*.py")} - {"__init__"}
    named = [module.__name__.removeprefix("agents.") for module in agents.ALL]
    assert sorted(named) == sorted(there)


def test_there_are_modules() -> None:
    assert len(MODULES) > 40


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_and_says_what_it_is(path: Path) -> None:
    assert len(path.read_text().splitlines()) < MOST_LINES
    assert not DRAWERS & {path.stem, path.parent.name}
