"""What is asked before the worker starts, so that it refuses with one clear line instead of failing later."""

import socket
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from schemas.program import Program, ProgramError, load_program
from streams.keys import ShardKeys
from streams.protocols import Binding, FatalError, Stop
from streams.redis_store import binding_fields, check_bound
from streams.settings import Settings
from streams.topics import Cluster, administration, check, describe


def prepare(settings: Settings) -> tuple[Program, Cluster, int]:
    """The program, the cluster and the number of partitions.

    Raises FatalError where the program file is wrong, topics are missing, differ in partitions or keep too little,
    Redis evicts, or the store was built for something else. A worker that is refused here has not joined the group, so
    it disturbs nobody.
    """
    program = read_program(settings.program)
    with administration(settings) as admin:
        cluster = describe(admin, settings)
    partitions = check(cluster, settings, program)
    check_port(settings)
    check_redis(settings, binding(settings, program, cluster, partitions))
    return program, cluster, partitions


def read_program(path: str) -> Program:
    """The program file. Raises FatalError with the key that is wrong."""
    try:
        return load_program(path)
    except ProgramError as error:
        raise FatalError(f"program file {error}", Stop.PROGRAM) from error


def binding(settings: Settings, program: Program, cluster: Cluster, partitions: int) -> Binding:
    """What this worker's store is built for."""
    return Binding(
        cluster.id,
        settings.topic_prefix,
        settings.group,
        partitions,
        program.id,
        program.version,
        cluster.inputs,
    )


def check_port(settings: Settings) -> None:
    """Raises FatalError where the web port is taken."""
    try:
        socket.create_server((settings.web_host, settings.web_port)).close()
    except OSError as error:
        raise FatalError(
            f"cannot listen on {settings.web_host}:{settings.web_port}: {error.strerror} (KIZUNA_WEB_PORT)",
            Stop.PORT,
        ) from error


def check_redis(settings: Settings, wanted: Binding) -> None:
    """Raises FatalError where Redis does not answer, would evict state to make room, or holds a store of another's."""
    try:
        with Redis.from_url(settings.redis_url, socket_connect_timeout=5, socket_timeout=5) as redis:
            policy = redis.info("memory").get("maxmemory_policy")
            keys = [ShardKeys(settings.redis_prefix, partition) for partition in range(wanted.partitions)]
            shards: list[Any] = [redis.hgetall(key.shard) for key in keys]
    except (RedisError, OSError, ValueError) as error:
        raise FatalError(f"no Redis answers at {settings.redis_shown()}: {error}", Stop.REDIS) from error
    if policy != "noeviction":
        raise FatalError(
            f"Redis at {settings.redis_shown()} evicts (maxmemory-policy {policy}): customers would be lost; "
            "set maxmemory-policy noeviction",
            Stop.REDIS_EVICTS,
        )
    for held in shards:
        if held:
            check_bound(held, binding_fields(wanted))
