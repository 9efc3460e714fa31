"""What the tests of the plumbing share: a real Valkey, stores on it, and stand-ins for Kafka's side."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from cli.local_stack import ValkeyServer
from loyalty import Packing, Rules
from schemas.program import Program, load_program
from streams.protocols import COMMANDS, PURCHASES, TOUCHPOINTS, Binding, Mark
from streams.redis_store import RedisStore, connect

ROOT = Path(__file__).resolve().parent.parent.parent

#: Where a new shard begins in most tests: nothing is 0, so that a mix-up shows.
BEGIN = {PURCHASES: 10, TOUCHPOINTS: 20, COMMANDS: 30}
BINDING = Binding("cluster-a", "loyalty.", "kizuna", 12, "grocery", "a1b2")
PREFIX = "loyalty"

Dump = dict[bytes, bytes | None]


class HandMadeRecord(NamedTuple):
    """A record as it would have been read."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp: int = 1_500_000_000_000


@pytest.fixture(scope="session")
def grocery() -> Program:
    return load_program(ROOT / "examples" / "grocery.toml")


@pytest.fixture(scope="session")
def packing(grocery: Program) -> Packing:
    return Packing(Rules(grocery))


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """The server that most tests share; each finds it empty."""
    server = ValkeyServer(tmp_path_factory.mktemp("valkey") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server that a test may stop, kill or fill."""
    server = ValkeyServer(tmp_path / "valkey")
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def redis(valkey: ValkeyServer) -> AsyncIterator[Redis]:
    client = connect(f"redis://{valkey.address}/0")
    await client.flushall()
    yield client
    await client.aclose()


MakeStore = Callable[..., RedisStore]


@pytest.fixture
def make_store(redis: Redis) -> MakeStore:
    """A store on the shared server, as a worker with this binding would open it."""
    return lambda binding=BINDING, prefix=PREFIX: RedisStore(redis, prefix, binding)


@pytest.fixture
def store(make_store: MakeStore) -> RedisStore:
    return make_store()


@pytest.fixture
def dump(redis: Redis) -> Callable[[], Awaitable[Dump]]:
    """Every key of the server with its content, to compare."""

    async def all_keys() -> Dump:
        keys: list[bytes] = await redis.keys("*")
        content: list[Any] = [await redis.dump(key) for key in sorted(keys)]
        return dict(zip(sorted(keys), content, strict=True))

    return all_keys


@pytest.fixture
async def taken(store: RedisStore) -> RedisStore:
    """A store whose shard 3 was just begun under the token `one`."""
    await store.take_over(3, "one", BEGIN, Mark())
    return store
