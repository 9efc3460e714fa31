"""A real worker on the Kafka and the Valkey of all tests, once for all tests of the commands."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from cli.local_server import free_port
from cli.local_stack import LocalStack
from schemas.murmur2 import home

ROOT = Path(__file__).resolve().parent.parent.parent
KIZUNA = Path(sys.executable).with_name("kizuna")
PARTITIONS = 4


def wait_until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """What `condition` gives, as soon as that is true; fails after so many seconds."""
    give_up_at = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up_at, f"not within {seconds} s"
        time.sleep(0.02)
    return found


@dataclass
class Cli:
    """`kizuna` as a person or a script runs it, against the tests' own stack."""

    env: dict[str, str]

    def __call__(self, *arguments: str | Path, stdin: str | bytes = b"", **env: str) -> "Done":
        """Run it to its end."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [KIZUNA, *arguments],
            input=given,
            capture_output=True,
            env=self.env | env,
            timeout=200,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start it; the test ends it."""
        return subprocess.Popen(
            [KIZUNA, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.env,
            **options,
        )


@dataclass
class Done:
    """What it printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> str:
        """Standard output of a success."""
        assert self.code == 0, self.err
        return self.out

    @property
    def error(self) -> str:
        """The one line of a failure."""
        assert self.code != 0
        assert self.out == ""
        assert self.err.startswith("Error: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix("Error: ").strip()


@pytest.fixture(scope="session")
def offline() -> Cli:
    """`kizuna` where neither a Kafka nor a Redis is."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIZUNA_")}
    nowhere = f"127.0.0.1:{free_port()}"
    return Cli(kept | {"KIZUNA_BROKERS": nowhere, "KIZUNA_REDIS_URL": f"redis://{nowhere}/0"})


@pytest.fixture(scope="session")
def kizuna(stack: LocalStack, offline: Cli) -> Cli:
    """`kizuna` with the stack's addresses, and the topics of the default prefix."""
    found = Cli(
        offline.env
        | {
            "KIZUNA_BROKERS": stack.brokers,
            "KIZUNA_REDIS_URL": stack.redis_url,
            # What falls due follows the events, not the day on which the tests run.
            "KIZUNA_CLOCK": "event",
            "KIZUNA_PROGRAM": str(ROOT / "examples" / "grocery.toml"),
        }
    )
    assert found("topics", "create", "--partitions", str(PARTITIONS)).ok
    return found


@pytest.fixture(scope="session")
def quiet(kizuna: Cli) -> Cli:
    """`kizuna` on topics that no worker reads."""
    found = Cli(kizuna.env | {"KIZUNA_TOPIC_PREFIX": "quiet."})
    assert found("topics", "create", "--partitions", str(PARTITIONS)).ok
    return found


@contextmanager
def working(kizuna: Cli, log: Path) -> Iterator[int]:
    """A worker that holds every shard; gives the port of its pages."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [KIZUNA, "worker", "--web-port", str(port)], env=kizuna.env, stdout=output, stderr=output
        )

        def ready() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        try:
            wait_until(ready, 60)
            yield port
        finally:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="session")
def worker_port(kizuna: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where the pages are of a worker that holds every shard."""
    with working(kizuna, tmp_path_factory.mktemp("worker") / "log") as port:
        yield port


@pytest.fixture(scope="session")
def worker(worker_port: int) -> None:
    """A worker that holds every shard."""


@pytest.fixture
def orders_of(stack: LocalStack, worker: None) -> Callable[[str], int]:
    """How many orders of a customer the worker has counted so far."""

    def orders(customer_id: str) -> int:
        with redis.Redis.from_url(stack.redis_url) as client:
            key = f"loyalty:{{{home(customer_id.encode(), PARTITIONS)}}}:customer:{customer_id}"
            return int(client.hget(key, "lifetime_orders") or 0)

    return orders
