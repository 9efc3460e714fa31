"""A real Kafka and a real Valkey on loopback, without containers: for trying out, the demo and the tests.

What they run with stands in `KAFKA_SETTINGS` here and in `VALKEY_SETTINGS` in `cli/local_valkey.py`;
docker-compose.yml says the same to the same versions, and a test compares the two.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cli.local_cluster import ValkeyCluster
from cli.local_jars import KAFKA_VERSION, POM, LocalStackError, ensure_jars
from cli.local_server import HOST, STOP_SECONDS, Server, free_port
from cli.local_valkey import VALKEY_SETTINGS, VALKEY_VERSION, ValkeyServer

__all__ = [
    "KAFKA_JVM",
    "KAFKA_SETTINGS",
    "KAFKA_VERSION",
    "VALKEY_SETTINGS",
    "VALKEY_VERSION",
    "KafkaServer",
    "LocalStack",
    "LocalStackError",
    "ValkeyServer",
]

KAFKA_SETTINGS: dict[str, str] = {
    # One node is broker and controller.
    "node.id": "1",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    # A misspelt topic is an error, and a topic's settings are chosen, not defaulted.
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    # Kafka's own topics: their defaults want three brokers, and make 50 partitions each.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # A worker that was away for long still finds how far its group had come (the default is a week). Minutes.
    "offsets.retention.minutes": "525600",
    # Nobody waits for further members.
    "group.initial.rebalance.delay.ms": "0",
    # A small machine: fewer threads, and a log cleaner that leaves the heap to the rest.
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "4",
    "log.cleaner.dedupe.buffer.size": "16777216",
}

KAFKA_JVM: dict[str, str] = {
    "KAFKA_HEAP_OPTS": "-Xms256m -Xmx768m",
    # One core's worth of collector costs least beside the clients on the same machine.
    "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true",
}


class KafkaServer(Server):
    """An Apache Kafka broker, KRaft, one node. `directory` is its data."""

    name = "Kafka"

    def __init__(self, directory: Path, port: int = 0) -> None:
        super().__init__(directory, port)
        self._controller_port = free_port()

    @property
    def logs(self) -> list[Path]:
        return [self._output, self._log]

    @property
    def _log(self) -> Path:
        return self.directory.with_suffix(".log")

    def settings(self) -> dict[str, str]:
        """All of server.properties: what is shared, and what belongs to this place."""
        return KAFKA_SETTINGS | {
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{HOST}:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "log.dirs": str(self.directory),
        }

    def _command(self) -> list[str]:
        java = _java()
        lib = ensure_jars()
        properties = self.directory.with_suffix(".properties")
        properties.write_text("".join(f"{key}={value}\n" for key, value in self.settings().items()))
        jvm = [
            java,
            *" ".join(KAFKA_JVM.values()).split(),
            *("-XX:-UsePerfData", f"-Dkizuna.kafka.log={self._log}"),
            f"-Dlog4j2.configurationFile={POM.parent / 'log4j2.properties'}",
            *("-cp", f"{lib}/*"),
        ]
        if not (self.directory / "meta.properties").exists():  # what Kafka writes last as it formats
            self._format(jvm, properties)
        return [*jvm, "kafka.Kafka", str(properties)]

    def _format(self, jvm: list[str], properties: Path) -> None:
        # A random UUID in base64, as Kafka's own: 22 characters, not beginning with a dash.
        cluster_id = "-"
        while cluster_id.startswith("-"):
            cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        done = subprocess.run(
            [*jvm, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LocalStackError(f"Kafka cannot format {self.directory}: {done.stdout.strip()}")

    def _answers(self) -> bool:
        from kafka import KafkaAdminClient
        from kafka.errors import KafkaError

        try:
            client = KafkaAdminClient(bootstrap_servers=self.address, request_timeout_ms=5_000)
            try:
                # It lists a broker once that is registered and takes requests.
                return bool(client.describe_cluster()["brokers"])
            finally:
                client.close()
        except KafkaError:
            return False


class LocalStack:
    """Kafka and Valkey together.

    Used as a context manager it starts both, and stops both at the end. Port 0 is a free port. Without
    `data_dir` the data are kept in a temporary directory, which goes when the stack stops; with one, a later
    stack on the same directory goes on from them.

    `kafka` and `redis` can be stopped, killed and started one by one meanwhile.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        kafka_port: int = 0,
        redis_port: int = 0,
        *,
        cluster: bool = False,
    ) -> None:
        """`cluster`: a Redis Cluster of three primaries in the place of one server."""
        self._temporary = data_dir is None
        self.data_dir = Path(data_dir).resolve() if data_dir else Path(tempfile.mkdtemp(prefix="kizuna-"))
        self.kafka = KafkaServer(self.data_dir / "kafka", kafka_port)
        directory = self.data_dir / ("valkey-cluster" if cluster else "valkey")
        self.redis = (ValkeyCluster if cluster else ValkeyServer)(directory, redis_port)
        self._lock: IO[str] | None = None

    @property
    def brokers(self) -> str:
        """What KIZUNA_BROKERS should be."""
        return self.kafka.address

    @property
    def redis_url(self) -> str:
        """What KIZUNA_REDIS_URL should be."""
        return f"redis://{self.redis.address}/0"

    def start(self) -> None:
        """Start both, side by side, and return when both answer.

        Raises LocalStackError where that fails; nothing is left running then.
        """
        try:
            self._lock_data()
            self.redis.launch()
            self.kafka.launch()
            self.redis.wait_until_ready()
            self.kafka.wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """Raise LocalStackError where one of the two has ended."""
        self.kafka.check()
        self.redis.check()

    def stop(self) -> None:
        """Stop both; a temporary directory goes with them. Does nothing when stopped."""
        try:
            for server in (self.kafka, self.redis):
                server.request_stop()
            give_up_at = time.monotonic() + STOP_SECONDS
            for server in (self.kafka, self.redis):
                server.stop(max(0.0, give_up_at - time.monotonic()))
        finally:
            if self._lock is not None:
                self._lock.close()
                self._lock = None
            if self._temporary:
                shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def _lock_data(self) -> None:
        """Two servers on one append-only file would ruin it."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self._lock = (self.data_dir / "lock").open("w")
        except OSError as error:
            raise LocalStackError(f"cannot write to {self.data_dir}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LocalStackError(f"another local stack uses {self.data_dir}") from error


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home, "bin"))) if home else None
    java = java or shutil.which("java")
    if java is None:
        raise LocalStackError(
            "the local Kafka needs Java 17 or newer: install it "
            "(Debian, Ubuntu: apt-get install openjdk-17-jre-headless) or set JAVA_HOME"
        )
    return java
