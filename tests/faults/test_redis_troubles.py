"""Redis in trouble while a worker works: no half batch, the worker waits, and then goes on."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.local_server import free_port
from cli.local_stack import LocalStack
from streams.redis_store import script
from tests.faults.load import Load, stream
from tests.faults.processes import count, launch, metric, progress
from tests.faults.proxy import Proxy
from tests.faults.sections import BONDED
from tests.faults.valkey import OwnValkey
from tests.faults.verifier import verify
from tests.space import Servers, Space, Worker, wait_until


def sha(name: str) -> bytes:
    """By what the worker calls one of its scripts."""
    return hashlib.sha1((script("owner") + script(name)).encode()).hexdigest().encode()


@dataclass
class World:
    """One worker on a Valkey behind a proxy; each test begins where the last one's verdict was clean."""

    space: Space
    valkey: OwnValkey
    proxy: Proxy
    worker: Worker
    load: Load

    @property
    def lost(self) -> float:
        return metric(self.worker, "kizuna_shards_lost_total")

    def stands_still(self, seconds: float = 1.5) -> None:
        """Nothing is committed, though there is work, and the worker lives."""
        deadline = time.monotonic() + seconds
        wait_until(lambda: not self.space.all_is_read(), 10, "work left")
        before = self.space.committed()
        while time.monotonic() < deadline:
            assert self.space.committed() == before, "it was written to"
            assert self.worker.process.poll() is None, self.worker.log.read_text()
            time.sleep(0.1)

    async def goes_on(self) -> None:
        """It works again by itself, and nothing was lost, doubled or half done."""
        wait_until(progress(self.space), 40, "progress after the trouble")
        self.load.stop()
        verdict = await verify(self.space)
        assert verdict.is_clean, verdict
        assert min(verdict.promised, verdict.bonded) > 10, verdict
        assert self.worker.process.poll() is None, self.worker.log.read_text()


@pytest.fixture(scope="module")
def module_world(
    stack: LocalStack, module_space: Callable[..., Space], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    valkey = OwnValkey(tmp_path_factory.mktemp("valkey") / "data")
    valkey.start()
    try:
        with Proxy(valkey.port) as proxy:
            space = module_space(
                servers=Servers(stack.brokers, f"redis://{proxy.address}/0"),
                partitions=3,
                **BONDED,
            )
            load = Load(space, stream(6))
            load.send(2_000)
            worker = launch(space).wait_ready()
            # The tests look at Redis from behind the proxy.
            space.redis = valkey.client()
            yield World(space, valkey, proxy, worker, load)
            load.quit()
    finally:
        valkey.kill()


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    module_world.load.start()
    wait_until(progress(module_world.space), 40, "progress before the trouble")
    yield module_world
    module_world.load.quit()


@contextmanager
def no_memory(valkey: OwnValkey) -> Iterator[None]:
    with valkey.client() as redis:
        redis.config_set("maxmemory", redis.info("memory")["used_memory"] // 2)
        yield
        redis.config_set("maxmemory", 0)


@contextmanager
def replica_of_nobody(valkey: OwnValkey) -> Iterator[None]:
    with valkey.client() as redis:
        redis.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        yield
        redis.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def too_few_replicas(valkey: OwnValkey) -> Iterator[None]:
    with valkey.client() as redis:
        redis.config_set("min-replicas-to-write", 1)
        yield
        redis.config_set("min-replicas-to-write", 0)


REFUSALS: dict[str, tuple[Callable[[OwnValkey], AbstractContextManager[None]], str]] = {
    "out of memory": (no_memory, "when used memory > 'maxmemory'"),
    "read-only": (replica_of_nobody, "You can't write against a read only replica"),
    "too few replicas": (too_few_replicas, "Not enough good replicas to write"),
}


@pytest.mark.parametrize(
    "trouble",
    [
        "out of memory",
        pytest.param("read-only", marks=pytest.mark.long),
        pytest.param("too few replicas", marks=pytest.mark.long),
    ],
)
async def test_where_redis_takes_no_writes_the_worker_waits_and_then_goes_on(
    world: World, trouble: str
) -> None:
    refuse, said = REFUSALS[trouble]
    with refuse(world.valkey):
        wait_until(lambda: count(world.worker, said) > 0, 20, said)
        world.stands_still()
    await world.goes_on()
    assert metric(world.worker, 'kizuna_shards_lost_total{cause="unavailable"}') > 0


@pytest.mark.long
async def test_where_redis_still_loads_its_data_the_worker_waits_and_then_goes_on(world: World) -> None:
    valkey = world.valkey
    with valkey.client() as redis, redis.pipeline(transaction=False) as pipe:
        # It looks after its clients once in 1,024 commands.
        for number in range(30_000):
            pipe.set(f"somebody else's {number}", "")
        pipe.execute()
    valkey.kill()
    # So many microseconds for each command of the append-only file that it takes a minute.
    valkey.options = {"key_load_delay": str(60_000_000 // valkey.commands())}
    valkey.launch()
    said = "loading the dataset in memory"
    seen = count(world.worker, said)
    wait_until(lambda: count(world.worker, said) > seen, 40, said)
    # Rather than wait for all of it, it is killed at that, too.
    valkey.kill()
    valkey.options = {}
    valkey.start()
    await world.goes_on()


@pytest.mark.long
async def test_flushed_scripts_and_functions_stop_nothing(world: World) -> None:
    with world.valkey.client() as redis:
        unknown = redis.info("errorstats").get("errorstat_NOSCRIPT", {"count": 0})["count"]
        for _ in range(5):
            redis.script_flush()
            redis.function_flush()
            wait_until(progress(world.space), 20, "progress after the flush")
        assert redis.info("errorstats")["errorstat_NOSCRIPT"]["count"] > unknown, "nobody missed a script"
    await world.goes_on()


@pytest.mark.parametrize(
    "name", ["commit", *(pytest.param(name, marks=pytest.mark.long) for name in ("trim", "take_over", "due"))]
)
async def test_a_reply_that_is_lost_after_the_script_ran_doubles_nothing(world: World, name: str) -> None:
    proxy, lost = world.proxy, world.lost

    def is_dropped(before: int) -> bool:
        if name == "take_over" and proxy.dropped == before:
            # A cut while no command is under way is not noticed: a connection is made anew, and no shard is lost.
            proxy.drop_reply(sha(name))
            proxy.cut()
            time.sleep(0.5)
        return proxy.dropped > before

    for _ in range(2):
        dropped = proxy.dropped
        proxy.drop_reply(sha(name))
        wait_until(lambda: is_dropped(dropped), 30, "a dropped reply")  # noqa: B023
        wait_until(progress(world.space), 40, "progress after it")
    assert world.lost > lost
    await world.goes_on()


@pytest.mark.long
async def test_a_stall_of_30_seconds_and_what_arrives_after_it(world: World) -> None:
    """What the worker had sent, and has given up, reaches Redis after all when it is over."""
    lost = world.lost
    world.proxy.stall()
    world.stands_still(33)
    assert world.lost > lost, "nobody gave up"
    world.proxy.resume()
    await world.goes_on()


@pytest.mark.long
async def test_connections_are_cut_again_and_again(world: World) -> None:
    lost = world.lost
    for _ in range(8):
        world.proxy.cut()
        await asyncio.sleep(0.3)
    assert world.lost > lost
    await world.goes_on()


def test_the_append_only_file_has_times_to_cut_at(tmp_path: Path) -> None:
    """What the tests of lost writes rest upon."""
    valkey = OwnValkey(tmp_path / "data", appendfsync="always")
    valkey.start()
    try:
        with valkey.client() as redis:
            for number in range(25):
                redis.incr("n")
                time.sleep(0.1)
                assert redis.get("n") == str(number + 1)
        valkey.kill()
        assert valkey.cut_seconds(1) > 0
        valkey.start()
        with valkey.client() as redis:
            left = int(redis.get("n"))
            assert 10 <= left < 25
            redis.incr("n")
        valkey.kill()
        # In the midst of the last command: the rest of it goes, too.
        assert valkey.cut_bytes(3) == 3
        valkey.start()
        with valkey.client() as redis:
            assert int(redis.get("n")) == left
        valkey.kill()
        assert valkey.cut_commands(2) > 0  # a SELECT is the last
        valkey.start()
        with valkey.client() as redis:
            assert int(redis.get("n")) == left - 1
    finally:
        valkey.kill()
