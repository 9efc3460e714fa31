"""The patches of `make mutants` still fit the code, and each names tests that are there."""

import subprocess

import pytest

from tests.mutants.__main__ import ROOT, Mutant, mutants


def test_the_eight_safeguards_are_broken_one_by_one() -> None:
    names = {mutant.name.partition("-")[2] for mutant in mutants()}
    assert names >= {"token", "version", "watermark", "seek", "fencing", "adoption", "trim", "dedupe"}


@pytest.mark.parametrize("mutant", mutants(), ids=lambda mutant: mutant.name)
def test_a_patch_fits_and_its_tests_are_there(mutant: Mutant) -> None:
    done = subprocess.run(
        ["git", "apply", "--check", "--unidiff-zero", str(mutant.patch)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = [word for word in mutant.tests if word.startswith("tests/")]
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []
