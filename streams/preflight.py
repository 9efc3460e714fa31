"""What is asked before the worker starts, so that it refuses with one clear line instead of failing later."""

import asyncio
import socket
from collections.abc import Iterable, Mapping
from typing import Any, cast

from schemas.program import Program, ProgramError, load_program
from streams.keys import ShardKeys
from streams.protocols import Binding, FatalError, Stop, UnavailableError
from streams.redis_nodes import connect
from streams.redis_store import answers, binding_fields, check_bound
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
    # A loop of its own, that nobody finds set afterwards: Faust makes the worker's.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            memory, shards = runner.run(_look_at_redis(settings, wanted.partitions))
        except UnavailableError as error:
            told = str(error).removeprefix("Redis did not answer: ")
            raise FatalError(f"no Redis answers at {settings.redis_shown()}: {told}", Stop.REDIS) from error
    check_keeps(settings, memory)
    for held in shards:
        if held:
            check_bound(held, binding_fields(wanted))


async def _look_at_redis(
    settings: Settings, partitions: int
) -> tuple[list[dict[str, Any]], list[dict[bytes, bytes]]]:
    nodes = connect(settings.redis_url)
    try:
        with answers(nodes):
            memory = await nodes.memory()
            keys = [ShardKeys(settings.redis_prefix, p) for p in range(partitions)]
            return memory, [
                await cast(Any, (await nodes.of(one.partition)).hgetall(one.shard)) for one in keys
            ]
    finally:
        await nodes.aclose()


def check_keeps(settings: Settings, memory: Iterable[Mapping[str, Any]]) -> None:
    """Raises FatalError where a server would evict state to make room; `memory`: what each says of it."""
    for one in memory:
        if (policy := one.get("maxmemory_policy")) != "noeviction":
            raise FatalError(
                f"Redis at {settings.redis_shown()} evicts (maxmemory-policy {policy}): customers would be lost; "
                "set maxmemory-policy noeviction",
                Stop.REDIS_EVICTS,
            )
