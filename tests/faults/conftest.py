"""Namespaces for the fault tests: an event clock and a short window, so that customers rise and fall all the time.
And right outputs for the tests of the verifier."""

from collections.abc import Callable
from copy import deepcopy

import pytest

from schemas.program import Program, load_program
from tests.faults.expected import Expected, expect
from tests.faults.reading import Found
from tests.faults.right import PARTITIONS, log_of, right_outputs
from tests.faults.sections import BONDED, TIERS_ONLY, with_bonds
from tests.space import Space


@pytest.fixture
def space(new_space: Callable[..., Space]) -> Space:
    """Four shards; a month's window; all sections about bonds."""
    return new_space(partitions=4, **BONDED)


@pytest.fixture
def tiers_space(new_space: Callable[..., Space]) -> Space:
    """The same with tiers alone."""
    return new_space(partitions=4, **TIERS_ONLY)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    file = tmp_path_factory.mktemp("program") / "program.toml"
    file.write_text(with_bonds())
    return load_program(file)


@pytest.fixture(scope="module")
def computed(program: Program) -> Expected:
    return expect(program, log_of(), PARTITIONS)


@pytest.fixture
def expected(computed: Expected) -> Expected:
    return deepcopy(computed)


@pytest.fixture(scope="module")
def fallen(computed: Expected) -> Expected:
    """To be judged by again and again: only time has gone on in it."""
    return deepcopy(computed)


@pytest.fixture(scope="module")
def right(program: Program, computed: Expected) -> Found:
    """What must come out of the log."""
    return right_outputs(program, computed)
