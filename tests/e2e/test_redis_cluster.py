"""A worker at work on a Redis Cluster, whose shards move and whose primaries come and go; and a rebuild there."""

import json
from collections.abc import Callable, Iterator

import pytest

from cli.local_cluster import ValkeyCluster
from cli.local_stack import LocalStack
from tests.faults.load import Load, stream
from tests.faults.processes import count, launch, metric, progress
from tests.faults.sections import BONDED
from tests.faults.verifier import verify
from tests.redis_cluster import move_at_once, moving, owner
from tests.space import Servers, Space, purchase, wait_until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    running = ValkeyCluster(tmp_path_factory.mktemp("cluster") / "data")
    running.start()
    yield running
    running.kill()


@pytest.fixture
def servers(stack: LocalStack, cluster: ValkeyCluster) -> Servers:
    return Servers(stack.brokers, f"redis://{cluster.address}/0")


@pytest.mark.timeout(240)
async def test_shards_move_and_a_primary_is_killed_under_a_worker_at_work_and_nothing_is_lost_or_doubled(
    new_space: Callable[..., Space], servers: Servers, cluster: ValkeyCluster
) -> None:
    space = new_space(servers=servers, partitions=4, **BONDED)
    load = Load(space, stream(12))
    load.send(1_000)
    worker = launch(space).wait_ready()
    with load:
        wait_until(progress(space), 40, "progress")
        # One key after the other, with the worker in between.
        with moving(cluster, 1):
            wait_until(
                lambda: count(worker, "is being moved within the Redis Cluster"), 40, "the worker meets it"
            )
        wait_until(progress(space), 40, "progress after the slow move")
        move_at_once(cluster, 3)
        read = watermark(space, 3)
        wait_until(lambda: watermark(space, 3) > read, 40, "progress of the shard that moved")
        lost = metric(worker, "kizuna_shards_lost_total")
        node = owner(cluster, 0)
        node.kill()
        wait_until(lambda: metric(worker, "kizuna_shards_lost_total") > lost, 40, "the worker sees it")
        assert worker.process.poll() is None, worker.log.read_text()
        node.start()
        cluster.wait_until_ready()
        wait_until(progress(space), 60, "progress after the restart")
        load.stop()
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict
    assert worker.process.poll() is None, worker.log.read_text()


def watermark(space: Space, partition: int) -> int:
    """Up to where a shard has read the purchases."""
    return int(space.redis.hget(f"{space.name}:{{{partition}}}:shard", "offset:purchases"))


@pytest.mark.timeout(120)
def test_commands_read_a_store_on_a_cluster_and_a_rebuild_makes_it_anew(
    new_space: Callable[..., Space], servers: Servers
) -> None:
    space = new_space(servers=servers, partitions=4, clock="event")
    worker = space.worker()
    space.publish(purchase(f"c{n % 40}", n, "60.00", 1_500_000_000_000 + n) for n in range(50))
    space.wait_read()
    worker.stop()
    before = sorted(space.dump(1_500_000_001_000))
    assert len(before) == 40
    assert {part["tier"] for part in map(json.loads, before)} == {"member", "silver"}
    space.empty()
    done = space.kizuna("rebuild", "--yes", "--json")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["customers"] == 40
    assert sorted(space.dump(1_500_000_001_000)) == before
    assert {space.readable(f"c{n}")["tier"] for n in range(40)} == {"member", "silver"}
