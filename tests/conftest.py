"""A real Kafka and a real Valkey, once for all tests that need them, and a namespace on them for each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cli.local_stack import LocalStack
from tests.space import Space


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--redis-cluster",
        action="store_true",
        help="Run what works on the shared servers, above all tests/e2e, on a Redis Cluster of three primaries.",
    )


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[LocalStack]:
    with LocalStack(cluster=request.config.getoption("--redis-cluster")) as running:
        yield running


@pytest.fixture
def new_space(stack: LocalStack, tmp_path: Path) -> Iterator[Callable[..., Space]]:
    """Makes namespaces, on the shared stack or on `servers` of a test's own (what has `brokers` and `redis_url`);
    their workers are stopped after the test."""
    with ExitStack() as spaces:

        def make(servers: Any = stack, **options: Any) -> Space:
            return spaces.enter_context(Space(servers, tmp_path, **options))

        yield make


@pytest.fixture(scope="module")
def module_space(
    stack: LocalStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Space]]:
    """The same for what the tests of a file share."""
    with ExitStack() as spaces:

        def make(servers: Any = stack, **options: Any) -> Space:
            return spaces.enter_context(Space(servers, tmp_path_factory.mktemp("space"), **options))

        yield make
