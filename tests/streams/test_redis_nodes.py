"""A store on a Redis Cluster whose shards move, and whose servers come and go."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis as plain
from redis.asyncio import Connection, Redis

from cli.local_cluster import ClusterNode, ValkeyCluster
from cli.local_stack import ValkeyServer
from loyalty import Packing
from schemas.program import Program
from streams.preflight import check_redis
from streams.protocols import PURCHASES, Commit, FatalError, Mark, RefusedError, UnavailableError
from streams.redis_nodes import RedisNodes, connect
from streams.redis_store import RedisStore
from streams.settings import Settings
from tests.loyalty.worlds import is_blank
from tests.redis_client import each_server
from tests.redis_cluster import move, move_at_once, moving, owner
from tests.space import wait_until
from tests.streams.conftest import BEGIN, BINDING, PREFIX
from tests.streams.store_world import World, some

SHARD = 3


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    cluster = ValkeyCluster(tmp_path_factory.mktemp("cluster") / "data")
    cluster.start()
    yield cluster
    cluster.kill()


@pytest.fixture
def url(module_cluster: ValkeyCluster) -> str:
    return f"redis://{module_cluster.address}/0"


@pytest.fixture
def cluster(module_cluster: ValkeyCluster) -> ValkeyCluster:
    """It is whole and empty."""
    for node in module_cluster.nodes:
        node.ask("FLUSHALL")
    return module_cluster


@pytest.fixture
async def nodes(url: str, cluster: ValkeyCluster) -> AsyncIterator[RedisNodes]:
    found = connect(url)
    yield found
    await found.aclose()


@pytest.fixture
async def store(nodes: RedisNodes) -> RedisStore:
    """One whose shard has taken one commit from `one`."""
    store = RedisStore(nodes, PREFIX, BINDING)
    await store.take_over(SHARD, "one", BEGIN, Mark())
    return store


@pytest.fixture
def world(grocery: Program, packing: Packing) -> World:
    return World(grocery, packing)


def more(world: World) -> Commit:
    """What may follow `some`, with a customer who is new."""
    return Commit(PURCHASES, 15, 20, customers=[world.write(world.customer("901"))], outbox=[b"third"])


def content(cluster: ValkeyCluster) -> dict[str, bytes]:
    """Every key that any server has, with its content."""
    found = {}
    for node in cluster.nodes:
        with plain.Redis(port=node.port, single_connection_client=True) as client:
            for key in client.keys("*"):
                client.execute_command("ASKING")  # of a shard on its way, the one that it goes to has some
                found[key.decode()] = client.dump(key)
    return found


# -- shards that move ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", [move, move_at_once])
async def test_a_shard_that_has_moved_is_refused_once_and_then_found_with_all_that_it_has(
    store: RedisStore,
    cluster: ValkeyCluster,
    world: World,
    packing: Packing,
    moved: Callable[[ValkeyCluster, int], None],
) -> None:
    await store.commit(SHARD, "one", 0, some(world))
    before = content(cluster)
    moved(cluster, SHARD)
    with pytest.raises(
        UnavailableError, match=r"the shard has moved within the Redis Cluster, to 127\.0\.0\.1:"
    ):
        await store.commit(SHARD, "one", 1, more(world))
    assert content(cluster) == before
    # The take-over that follows finds it.
    state, outbox = await store.take_over(SHARD, "two", BEGIN, Mark())
    assert (state.version, state.offsets[PURCHASES], outbox) == (1, 15, [b"first", b"second"])
    with pytest.raises(RefusedError, match="owner"):
        await store.commit(SHARD, "one", 1, more(world))
    await store.commit(SHARD, "two", 1, more(world))
    found = await store.load(SHARD, ["900", "901"], packing)
    assert [is_blank(customer) for customer in found] == [False, False]


async def test_nothing_is_read_or_written_of_a_shard_that_is_on_its_way(
    store: RedisStore, cluster: ValkeyCluster, world: World, packing: Packing
) -> None:
    commit = some(world)
    commit.customers = [world.write(world.customer(f"c{n}")) for n in range(30)]
    await store.commit(SHARD, "one", 0, commit)
    everyone = [f"c{n}" for n in range(30)]
    with moving(cluster, SHARD):
        before = content(cluster)
        for work in (
            store.commit(SHARD, "one", 1, more(world)),
            store.load(SHARD, everyone, packing),
            store.take_over(SHARD, "two", BEGIN, Mark()),
        ):
            with pytest.raises(UnavailableError, match="is being moved within the Redis Cluster"):
                await work
        assert content(cluster) == before
        with pytest.raises(UnavailableError, match="slots of the Redis Cluster are being moved"):
            assert [found async for found in store.customers()]
    with pytest.raises(UnavailableError, match="has moved within the Redis Cluster"):
        await store.take_over(SHARD, "two", BEGIN, Mark())
    state, _ = await store.take_over(SHARD, "two", BEGIN, Mark())
    assert state.version == 1
    assert sorted([found async for found in store.customers()]) == sorted((SHARD, one) for one in everyone)


async def test_a_reader_of_everything_is_told_where_a_shard_has_moved_meanwhile(
    store: RedisStore, cluster: ValkeyCluster, world: World
) -> None:
    await store.commit(SHARD, "one", 0, some(world))
    found = store.customers()
    assert await anext(found) == (SHARD, "900")
    move_at_once(cluster, SHARD)
    with pytest.raises(
        UnavailableError, match="shards have moved within the Redis Cluster while it was read"
    ):
        assert [one async for one in found]


async def test_other_shards_go_on_while_one_moves(
    store: RedisStore, cluster: ValkeyCluster, world: World
) -> None:
    await store.take_over(4, "one", BEGIN, Mark())
    await store.commit(SHARD, "one", 0, some(world))
    with moving(cluster, SHARD):
        await store.commit(4, "one", 0, some(world))


# -- servers that come and go --------------------------------------------------------------------------------------


async def test_a_replica_that_takes_the_place_of_its_primary_is_found(
    store: RedisStore, cluster: ValkeyCluster, world: World, tmp_path: Any
) -> None:
    await store.commit(SHARD, "one", 0, some(world))
    primary = owner(cluster, SHARD)
    replica = ClusterNode(tmp_path / "replica")
    replica.start()
    try:
        replica.ask("CLUSTER", "MEET", "127.0.0.1", primary.port, primary.bus_port)
        primary_id = primary.ask("CLUSTER", "MYID")
        wait_until(lambda: primary_id in replica.ask("CLUSTER", "NODES"), 20, "they know each other")
        replica.ask("CLUSTER", "REPLICATE", primary_id)
        wait_until(lambda: "master_link_status:up" in _replication(replica), 20, "the replica has all")
        await store.commit(SHARD, "one", 1, more(world))
        _give_way(replica, primary)
        with pytest.raises(
            UnavailableError, match=f"has moved within the Redis Cluster, to {replica.address}"
        ):
            await store.commit(SHARD, "one", 2, Commit(PURCHASES, 20, 25))
        state, _ = await store.take_over(SHARD, "two", BEGIN, Mark())
        assert (state.version, state.offsets[PURCHASES]) == (2, 20)
        await store.commit(SHARD, "two", 2, Commit(PURCHASES, 20, 25))
        _give_way(primary, replica)
    finally:
        forgotten = replica.ask("CLUSTER", "MYID")
        replica.kill()
        for node in cluster.nodes:
            node.ask("CLUSTER", "FORGET", forgotten)


def _replication(node: ClusterNode) -> str:
    with plain.Redis(port=node.port) as client:
        return "".join(f"{key}:{value}\n" for key, value in client.info("replication").items())


def _give_way(replica: ClusterNode, primary: ClusterNode) -> None:
    replica.ask("CLUSTER", "FAILOVER")
    wait_until(lambda: "role:master" in _replication(replica), 20, "the replica is primary")
    wait_until(lambda: "role:slave" in _replication(primary), 20, "the primary is replica")
    wait_until(lambda: "master_link_status:up" in _replication(primary), 20, "and has all")


async def test_one_address_of_the_cluster_is_enough_and_one_that_is_gone_does_no_harm(
    cluster: ValkeyCluster,
) -> None:
    for hosts in (cluster.nodes[1].address, f"127.0.0.1:1,{cluster.nodes[2].address}"):
        store = RedisStore(connect(f"redis://{hosts}/0"), PREFIX, BINDING)
        for partition in range(BINDING.partitions):
            await store.take_over(partition, "one", BEGIN, Mark())
        await store.close()
    assert all(node.ask("DBSIZE") for node in cluster.nodes), "the shards are not spread"


async def test_a_server_that_does_not_answer_is_not_waited_for_where_others_do(
    cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.redis_nodes._TOLD_WITHIN", 0.3)
    # It takes connections and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for hosts, works in ((f"{address},{cluster.nodes[0].address}", True), (address, False)):
            store = RedisStore(connect(f"redis://{hosts}/0"), PREFIX, BINDING)
            if works:
                assert await store.peek(SHARD) is None
            else:
                with pytest.raises(
                    UnavailableError, match=r"^Redis did not answer: no answer within 0\.3 s$"
                ):
                    await store.peek(SHARD)
            await store.close()


# -- what is asked of all servers ----------------------------------------------------------------------------------


async def test_of_the_servers_clocks_the_earliest_counts(
    nodes: RedisNodes, cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = cluster.nodes[1].port

    async def time(self: Redis) -> tuple[int, int]:
        return (1_000, 7_000) if self.connection_pool.connection_kwargs["port"] == behind else (2_000, 0)

    monkeypatch.setattr(Redis, "time", time)
    assert await nodes.now() == 1_000_007


def test_before_the_start_each_primary_is_asked_whether_it_evicts(url: str, cluster: ValkeyCluster) -> None:
    check_redis(Settings(redis_url=url), BINDING)
    (*_, last) = each_server(url)
    last.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(
            FatalError, match=r"^Redis at redis://\S+ evicts \(maxmemory-policy allkeys-lru\)"
        ):
            check_redis(Settings(redis_url=url), BINDING)
    finally:
        last.config_set("maxmemory-policy", "noeviction")
        last.close()


def test_several_hosts_that_are_no_cluster_are_refused(own_valkey: ValkeyServer) -> None:
    url = f"redis://{own_valkey.address},{own_valkey.address}/0"
    with pytest.raises(FatalError, match=r"^Redis at redis://\S+ is no cluster: give one host"):
        check_redis(Settings(redis_url=url), BINDING)


# -- a commit whose answer is lost ---------------------------------------------------------------------------------


async def test_a_commit_whose_answer_is_lost_is_not_sent_again(
    store: RedisStore, cluster: ValkeyCluster, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Connection.read_response

    async def lose(self: Connection, *args: Any, **kwargs: Any) -> Any:
        await read(self, *args, **kwargs)
        raise ConnectionResetError("cut")

    # Known to the server, so that there is one call.
    with pytest.raises(RefusedError):
        await store.commit(SHARD, "one", 9, some(world))
    before = calls(cluster)
    with monkeypatch.context() as cut:
        cut.setattr(Connection, "read_response", lose)
        with pytest.raises(UnavailableError, match="Redis did not answer: cut"):
            await store.commit(SHARD, "one", 0, some(world))
    assert calls(cluster) == before + 1
    state = await store.peek(SHARD)
    assert state is not None
    assert (state.version, state.outbox_last) == (1, 2), "it did not run"
    # Who sends it again by mistake is refused.
    with pytest.raises(RefusedError, match="version 1, expected 0"):
        await store.commit(SHARD, "one", 0, some(world))


def calls(cluster: ValkeyCluster) -> int:
    """Scripts that were called, on all servers."""
    found = 0
    for node in cluster.nodes:
        with plain.Redis(port=node.port) as client:
            found += client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    return found
