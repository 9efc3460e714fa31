"""A real Kafka and a real Valkey, once for all tests of this directory, and a namespace on them for each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cli.local_stack import LocalStack
from tests.e2e.space import Space


@pytest.fixture(scope="session")
def stack() -> Iterator[LocalStack]:
    with LocalStack() as running:
        yield running


@pytest.fixture
def new_space(stack: LocalStack, tmp_path: Path) -> Iterator[Callable[..., Space]]:
    """Makes namespaces; their workers are stopped after the test."""
    with ExitStack() as spaces:

        def make(**options: Any) -> Space:
            return spaces.enter_context(Space(stack, tmp_path, **options))

        yield make


@pytest.fixture(scope="module")
def module_space(
    stack: LocalStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Space]]:
    """The same for what the tests of a file share."""
    with ExitStack() as spaces:

        def make(**options: Any) -> Space:
            return spaces.enter_context(Space(stack, tmp_path_factory.mktemp("space"), **options))

        yield make
