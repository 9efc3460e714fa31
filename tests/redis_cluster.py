"""What tests do to a Redis Cluster: shards go from one primary to another, in the old way and in the new."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis.crc import key_slot

from cli.local_cluster import ClusterNode, ValkeyCluster
from cli.local_server import HOST
from tests.space import wait_until


def slot_of(partition: int) -> int:
    """The slot of a shard."""
    return key_slot(str(partition).encode())


def owner(cluster: ValkeyCluster, partition: int, by: ClusterNode | None = None) -> ClusterNode:
    """The primary that has a shard now, by what one server says."""
    ranges = (by or cluster.nodes[0]).ask("CLUSTER", "SLOTS")
    port = next(primary[1] for first, last, primary, *_ in ranges if first <= slot_of(partition) <= last)
    return next(node for node in cluster.nodes if node.port == port)


def another(cluster: ValkeyCluster, node: ClusterNode) -> ClusterNode:
    """One that is not this one."""
    return next(one for one in cluster.nodes if one is not node)


@contextmanager
def moving(cluster: ValkeyCluster, partition: int) -> Iterator[None]:
    """Move a shard to another primary key by key, as every cluster can: within the block half of its keys are there."""
    slot, source = slot_of(partition), owner(cluster, partition)
    target = another(cluster, source)
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))
    _migrate(source, target, slot, int(source.ask("CLUSTER", "COUNTKEYSINSLOT", slot)) // 2)
    try:
        yield
    finally:
        while left := source.ask("CLUSTER", "COUNTKEYSINSLOT", slot):
            _migrate(source, target, slot, left)
        for node in (target, source, *cluster.nodes):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", target.ask("CLUSTER", "MYID"))
        _wait_moved(cluster, partition, target)


def move(cluster: ValkeyCluster, partition: int) -> None:
    """Move a shard to another primary key by key."""
    with moving(cluster, partition):
        pass


def move_at_once(cluster: ValkeyCluster, partition: int) -> None:
    """Move a shard to another primary as one (Valkey 9: CLUSTER MIGRATESLOTS)."""
    slot, source = slot_of(partition), owner(cluster, partition)
    target = another(cluster, source)
    source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.ask("CLUSTER", "MYID"))
    _wait_moved(cluster, partition, target)


def _migrate(source: ClusterNode, target: ClusterNode, slot: int, count: int) -> None:
    keys = source.ask("CLUSTER", "GETKEYSINSLOT", slot, count) if count else ()
    if keys:
        source.ask("MIGRATE", HOST, target.port, "", 0, 10_000, "KEYS", *keys)


def _wait_moved(cluster: ValkeyCluster, partition: int, target: ClusterNode) -> None:
    wait_until(
        lambda: all(owner(cluster, partition, by) is target for by in cluster.nodes),
        20,
        "all know of the move",
    )
