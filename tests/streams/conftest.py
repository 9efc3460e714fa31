"""What the tests of the plumbing share: a real Valkey, stores on it, and stand-ins for Kafka's side."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis, RedisCluster

from cli.local_cluster import ValkeyCluster
from cli.local_stack import ValkeyServer
from loyalty import Packing, Rules
from schemas.program import Program, load_program
from streams.protocols import COMMANDS, PURCHASES, TOUCHPOINTS, Binding, Mark
from streams.redis_nodes import RedisNodes, connect
from streams.redis_store import RedisStore

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


@pytest.fixture(scope="session", params=[ValkeyServer, ValkeyCluster], ids=["redis", "cluster"])
def valkey(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ValkeyServer | ValkeyCluster]:
    """The server, or the cluster, that most tests share; each finds it empty."""
    server = request.param(tmp_path_factory.mktemp("valkey") / "data")
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
async def redis(valkey: ValkeyServer | ValkeyCluster) -> AsyncIterator[Any]:
    """A client that is none of ours."""
    client = (RedisCluster if isinstance(valkey, ValkeyCluster) else Redis)(
        host="127.0.0.1", port=valkey.port
    )
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def nodes(valkey: ValkeyServer | ValkeyCluster, redis: Any) -> AsyncIterator[RedisNodes]:
    """What stores are made on."""
    found = connect(f"redis://{valkey.address}/0")
    yield found
    await found.aclose()


MakeStore = Callable[..., RedisStore]


@pytest.fixture
def make_store(nodes: RedisNodes) -> MakeStore:
    """A store on the shared server, as a worker with this binding would open it."""
    return lambda binding=BINDING, prefix=PREFIX: RedisStore(nodes, prefix, binding)


@pytest.fixture
def store(make_store: MakeStore) -> RedisStore:
    return make_store()


@pytest.fixture
def dump(redis: Redis) -> Callable[[], Awaitable[Dump]]:
    """Every key of the server with its content, to compare."""

    async def all_keys() -> Dump:
        keys: list[bytes] = [key async for key in redis.scan_iter(count=1_000)]  # KEYS asks one server only
        pipe = redis.pipeline(transaction=False)
        for key in sorted(keys):
            pipe.dump(key)
        content: list[Any] = await pipe.execute()
        return dict(zip(sorted(keys), content, strict=True))

    return all_keys


@pytest.fixture
async def taken(store: RedisStore) -> RedisStore:
    """A store whose shard 3 was just begun under the token `one`."""
    await store.take_over(3, "one", BEGIN, Mark())
    return store
