"""A real Kafka and a real Valkey, once for all tests that need them, and a namespace on them for each test.

`make test` has several processes, each with servers of its own.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cli import local_server
from cli.local_stack import LocalStack
from tests.space import Space

#: What is begun first. Tests with a clock beside them have the calmest neighbours: each other, as they mostly wait. The
#: others on real servers follow: begun last, one of them would be waited for by all.
FIRST = ("e2e/test_grace", "e2e/test_overrides", "e2e/test_wall_clock", "faults/", "e2e/", "cli/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two for a core: the tests on real servers mostly wait. No more than eight, as each has a Kafka."""
    return min(8, 2 * len(os.sched_getaffinity(0)))


def pytest_configure() -> None:
    # Half of what a Kafka that lives for minutes costs is the second compiler of its JVM.
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1")
    # A port is chosen before a server listens on it: each process chooses from ports of its own.
    if (process := os.environ.get("PYTEST_XDIST_WORKER")) is not None:
        number, count = int(process.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        local_server.PORTS = local_server.PORTS[number::count]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files are handed out in this order."""

    def rank(item: pytest.Item) -> int:
        place = item.nodeid.removeprefix("tests/")
        return next((n for n, start in enumerate(FIRST) if place.startswith(start)), len(FIRST))

    items.sort(key=rank)


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
