"""Plain clients of Redis for tests, as anybody would use them: of one server, or of a cluster."""

from typing import Any

import redis

from streams.settings import each_host


def redis_client(url: str) -> Any:
    """Of what a URL names; several hosts are a cluster."""
    hosts = each_host(url)
    kind = redis.RedisCluster if len(hosts) > 1 else redis.Redis
    return kind.from_url(hosts[0], decode_responses=True)


def each_server(url: str) -> list[redis.Redis]:
    """Of every host that a URL names."""
    return [redis.Redis.from_url(host, decode_responses=True) for host in each_host(url)]
