"""Breaks the code on purpose, one patch after another, and looks whether a test fails each time: `make mutants`.

A patch begins with lines that say what it breaks, and one, `tests: …`, that names the tests which must notice: what
follows it is handed to pytest. Each is applied to a copy of the tree, so the checkout stays as it is.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
#: Seconds for the tests of one mutant.
TIMEOUT = 900
_TESTS_FAILED = 1


class Mutant(NamedTuple):
    """One way in which the code is broken."""

    name: str
    what: str
    tests: list[str]
    patch: Path


class Found(NamedTuple):
    """What the tests said of a mutant: the first that failed, or why none can be told."""

    caught: bool
    by: str


def mutants() -> list[Mutant]:
    """All of them. Raises ValueError where a patch does not say what it is."""
    found: list[Mutant] = []
    for patch in sorted(HERE.glob("*.patch")):
        said, _, _ = patch.read_text().partition("\n--- ")
        tests = re.search(r"^tests: (.+)$", said, re.MULTILINE)
        what = said[: tests.start()].strip() if tests else ""
        if not tests or not what:
            raise ValueError(
                f"{patch.name}: expected what it breaks, and a line `tests: …`, before the patch"
            )
        found.append(Mutant(patch.stem, " ".join(what.split()), tests[1].split(), patch))
    return found


def run(mutant: Mutant) -> Found:
    """Break a copy of the tree and run the tests that must notice."""
    with _copy() as tree:
        applied = _call(["git", "apply", "--unidiff-zero", str(mutant.patch)], tree)
        if applied.returncode:
            return Found(
                False, f"the patch does not apply any more: {applied.stderr.strip().splitlines()[0]}"
            )
        imported = _call(
            [sys.executable, "-c", "import streams; print(streams.__file__)"], tree
        ).stdout.strip()
        if not Path(imported).is_relative_to(tree):
            return Found(False, f"it is not the broken code that would be tested, but {imported}")
        try:
            done = _call(
                [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests], tree
            )
        except subprocess.TimeoutExpired:
            return Found(False, f"its tests did not end within {TIMEOUT} s")
        if done.returncode == _TESTS_FAILED:
            failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            return Found(True, failed[0] if failed else "a test")
        if done.returncode == 0:
            return Found(False, "no test failed")
        return Found(False, f"pytest ended with {done.returncode}: {done.stdout.strip().splitlines()[-1:]}")


@contextmanager
def _copy() -> Iterator[Path]:
    """What git knows of the checkout, as it stands on disk, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="kizuna-mutant-") as directory:
        tree = Path(directory).resolve()
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in filter(None, names.decode().split("\0")):
            if (source := ROOT / name).exists():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, tree / name)
        # The servers that the tests start are fetched once.
        (tree / ".local").symlink_to(ROOT / ".local")
        yield tree


def _call(command: list[str], tree: Path) -> "subprocess.CompletedProcess[str]":
    # Before what is installed: the checkout itself is, for development.
    env = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=tree, env=env, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


@click.command()
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line for each.")
def main(names: tuple[str, ...], as_json: bool) -> None:
    """Break the code in each of these ways (all, where none is named) and see a test fail each time."""
    every = mutants()
    unknown = set(names) - {mutant.name for mutant in every}
    if unknown:
        raise click.UsageError(f"there is no {', '.join(sorted(unknown))} in {HERE.name}/")
    chosen = [mutant for mutant in every if not names or mutant.name in names]
    survived = 0
    for number, mutant in enumerate(chosen, 1):
        if sys.stderr.isatty():
            click.secho(f"{number} of {len(chosen)}: {mutant.name} …", dim=True, err=True)
        found = run(mutant)
        survived += not found.caught
        if as_json:
            click.echo(json.dumps({"mutant": mutant.name, "what": mutant.what, **found._asdict()}))
        else:
            verdict = click.style("caught", fg="green") if found.caught else click.style("SURVIVED", fg="red")
            click.echo(f"{verdict}  {mutant.name}: {mutant.what}\n        {found.by}")
    if survived:
        raise click.ClickException(f"{survived} of {len(chosen)} were not caught")


if __name__ == "__main__":
    main()
