"""A Redis Cluster on loopback: three primaries, each a process of its own, that share the slots."""

import time
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from cli.local_jars import LocalStackError
from cli.local_server import HOST, STOP_SECONDS, free_port
from cli.local_valkey import ValkeyServer

#: Hash slots of a cluster, and the fewest primaries that can agree that one of them is gone.
SLOTS = 16384
PRIMARIES = 3

#: Milliseconds after which the others hold a primary for gone. Short: nothing here is far away.
_NODE_TIMEOUT = 2_000
_JOINED_WITHIN = 60.0


class ClusterNode(ValkeyServer):
    """One server of the cluster. It knows its slots and the others from its directory when it comes again."""

    def __init__(self, directory: Path, port: int = 0) -> None:
        super().__init__(directory, port)
        # Not the usual port + 10000: the kernel may have given that to an outgoing connection.
        self.bus_port = free_port()

    def _command(self) -> list[str]:
        return [
            *super()._command(),
            *("--cluster-enabled", "yes"),
            *("--cluster-port", str(self.bus_port)),
            *("--cluster-node-timeout", str(_NODE_TIMEOUT)),
        ]

    def ask(self, *command: Any) -> Any:
        """Its answer to a command, as text. Raises RedisError."""
        with Redis(host=HOST, port=self.port, socket_timeout=10, decode_responses=True) as client:
            return client.execute_command(*command)

    def info(self) -> dict[str, str]:
        """CLUSTER INFO. Raises RedisError."""
        found = self.ask("CLUSTER", "INFO")
        lines = found.splitlines() if isinstance(found, str) else [f"{k}:{v}" for k, v in found.items()]
        return dict(line.split(":", 1) for line in lines if line)


class ValkeyCluster:
    """Three servers under one directory, joined when they are started. Each may be stopped, killed and started.

    With `port`, they listen there and on the ports that follow; 0 takes free ones.
    """

    name = "Valkey"

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.nodes = [ClusterNode(directory / str(n), port and port + n) for n in range(PRIMARIES)]
        self._directory = directory

    @property
    def address(self) -> str:
        """Host and port of each, with commas between."""
        return ",".join(node.address for node in self.nodes)

    @property
    def port(self) -> int:
        """The first one's port."""
        return self.nodes[0].port

    def start(self, timeout: float = _JOINED_WITHIN) -> None:
        """Start all and return when they serve all slots; `timeout` is in seconds.

        Raises LocalStackError where they do not come up.
        """
        self.launch()
        self.wait_until_ready(timeout)

    def launch(self) -> None:
        """Start the processes, and do not wait for their answers."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for node in self.nodes:
            node.launch()

    def wait_until_ready(self, timeout: float = _JOINED_WITHIN) -> None:
        """Join them, and return when they serve all slots; raises LocalStackError where they do not."""
        try:
            for node in self.nodes:
                node.wait_until_ready(timeout)
            self._join()
            give_up_at = time.monotonic() + timeout
            while not all(self._serves(node) for node in self.nodes):
                self.check()
                if time.monotonic() > give_up_at:
                    raise LocalStackError(f"{self.name}: the cluster does not come up in {timeout:g} s")
                time.sleep(0.05)
        except RedisError as error:
            self.kill()
            raise LocalStackError(f"{self.name}: the cluster cannot be joined: {error}") from error
        except BaseException:
            self.kill()
            raise

    def _join(self) -> None:
        """Give out the slots where that was not done, and tell each of the others: they may have other ports now."""
        share = SLOTS / len(self.nodes)
        for n, node in enumerate(self.nodes):
            if int(node.info()["cluster_slots_assigned"]) == 0:
                node.ask("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
                node.ask("CLUSTER", "ADDSLOTSRANGE", round(n * share), round((n + 1) * share) - 1)
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    node.ask("CLUSTER", "MEET", HOST, other.port, other.bus_port)

    def _serves(self, node: ClusterNode) -> bool:
        info = node.info()
        if info["cluster_state"] != "ok" or int(info["cluster_known_nodes"]) != len(self.nodes):
            return False
        named = {line.split()[1].split("@")[0] for line in node.ask("CLUSTER", "NODES").splitlines()}
        return named == {other.address for other in self.nodes}

    def check(self) -> None:
        """Raise LocalStackError where one of them has ended."""
        for node in self.nodes:
            node.check()

    def request_stop(self) -> None:
        """Ask all to stop, and do not wait."""
        for node in self.nodes:
            node.request_stop()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop all in order; kill those that take longer than `timeout` s."""
        self.request_stop()
        give_up_at = time.monotonic() + timeout
        for node in self.nodes:
            node.stop(max(0.0, give_up_at - time.monotonic()))

    def kill(self) -> None:
        """End all at once, as a crash would."""
        for node in self.nodes:
            node.kill()
