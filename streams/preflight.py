"""What is asked before the worker starts, so that it refuses with one clear line instead of failing later."""

from redis import Redis
from redis.exceptions import RedisError

from schemas.program import Program, ProgramError, load_program
from streams.protocols import FatalError
from streams.settings import Settings
from streams.topics import Cluster, administration, check, describe


def prepare(settings: Settings) -> tuple[Program, Cluster, int]:
    """The program, the cluster and the number of partitions.

    Raises FatalError where the program file is wrong, topics are missing, differ in partitions or keep too little, or
    Redis evicts. What the store was built for is checked when a shard is first looked at (`Store.peek`).
    """
    program = read_program(settings.program)
    with administration(settings) as admin:
        cluster = describe(admin, settings)
    partitions = check(cluster, settings, program)
    check_redis(settings)
    return program, cluster, partitions


def read_program(path: str) -> Program:
    """The program file. Raises FatalError with the key that is wrong."""
    try:
        return load_program(path)
    except ProgramError as error:
        raise FatalError(f"program file {error}") from error


def check_redis(settings: Settings) -> None:
    """Raises FatalError where Redis does not answer, or would evict state to make room."""
    try:
        with Redis.from_url(settings.redis_url, socket_connect_timeout=5, socket_timeout=5) as redis:
            policy = redis.info("memory").get("maxmemory_policy")
    except (RedisError, OSError, ValueError) as error:
        raise FatalError(f"no Redis answers at {settings.redis_shown()}: {error}") from error
    if policy != "noeviction":
        raise FatalError(
            f"Redis at {settings.redis_shown()} evicts (maxmemory-policy {policy}): customers would be lost; "
            "set maxmemory-policy noeviction"
        )
