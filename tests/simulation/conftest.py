"""The real server, for holding the twin against it."""

from tests.streams.conftest import grocery, make_store, nodes, redis, valkey

__all__ = ["grocery", "make_store", "nodes", "redis", "valkey"]
