"""`kizuna local up`, as a person or a script runs it: a real Kafka and a real Valkey on this machine."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from cli import local_jars
from cli.local_cluster import ValkeyCluster
from cli.local_server import free_port, port_is_free
from cli.local_stack import KafkaServer, LocalStack, LocalStackError, ValkeyServer

KIZUNA = Path(sys.executable).with_name("kizuna")

Up = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def up() -> Iterator[Up]:
    """Start `kizuna local up` on free ports; what a test leaves running is ended after it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
        command = [KIZUNA, "local", "up", "--kafka-port", "0", "--redis-port", "0", *arguments]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def addresses(process: subprocess.Popen[str]) -> dict[str, str]:
    """What `--json` prints when both are ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return json.loads(line)


def end(process: subprocess.Popen[str], by: signal.Signals = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(by)
    return process.communicate(timeout=10)


def servers_on(data_dir: str | Path) -> dict[str, int]:
    """The servers that run on that directory, with their process ids."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            directory = str((entry / "cwd").readlink())
        except OSError:  # it has ended meanwhile
            continue
        if "kafka.Kafka\0" in command and str(data_dir) in command:
            found["Kafka"] = int(entry.name)
        elif "valkey-server" in command and directory.startswith(str(data_dir)):
            found["Valkey"] = int(entry.name)
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        time.sleep(0.05)
    return True


def test_it_prints_addresses_and_ready_and_both_answer(up: Up) -> None:
    process = up()
    assert process.stdout is not None
    printed = [process.stdout.readline().strip() for _ in range(3)]
    assert printed[2] == "ready", process.communicate()[1]
    found = dict(line.split("=", 1) for line in printed[:2])

    admin = KafkaAdminClient(bootstrap_servers=found["KIZUNA_BROKERS"])
    assert len(admin.describe_cluster()["brokers"]) == 1
    admin.close()
    with redis.Redis.from_url(found["KIZUNA_REDIS_URL"]) as client:
        assert client.ping()
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly", "appendfsync", "save") == {
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }

    out, err = end(process)
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_both_and_leaves_nothing(up: Up, by: signal.Signals) -> None:
    process = up("--json")
    data_dir = addresses(process)["data_dir"]
    assert servers_on(data_dir).keys() == {"Kafka", "Valkey"}

    _, err = end(process, by)

    assert (process.returncode, err) == (0, "")
    assert servers_on(data_dir) == {}
    assert not Path(data_dir).exists()


def test_a_cluster_has_three_primaries_that_share_the_slots_and_goes_on_from_its_data(
    up: Up, tmp_path: Path
) -> None:
    process = up("--json", "--cluster", "--data-dir", tmp_path)
    url = addresses(process)["redis_url"]
    assert url.count(",") == 2
    with redis.RedisCluster.from_url(url.partition(",")[0]) as client:
        assert len(client.get_primaries()) == 3
        for n in range(50):
            client.set(f"key{n}", n)
    end(process)
    assert servers_on(tmp_path) == {}

    cluster = ValkeyCluster(tmp_path / "valkey-cluster")  # on other ports
    cluster.start()
    try:
        with redis.RedisCluster(port=cluster.port, host="127.0.0.1") as client:
            assert [client.get(f"key{n}") for n in range(50)] == [b"%d" % n for n in range(50)]
    finally:
        cluster.kill()


def test_a_signal_while_it_starts_stops_it_too(up: Up, tmp_path: Path) -> None:
    process = up("--data-dir", tmp_path)
    assert wait_until(lambda: "Kafka" in servers_on(tmp_path))

    out, _ = end(process)

    assert (process.returncode, out) == (0, "")
    assert servers_on(tmp_path) == {}


def test_data_are_there_after_a_restart(up: Up, tmp_path: Path) -> None:
    process = up("--json", "--data-dir", tmp_path)
    found = addresses(process)
    admin = KafkaAdminClient(bootstrap_servers=found["brokers"])
    admin.create_topics({"kept": {"num_partitions": 1, "replication_factor": 1}})
    cluster = admin.describe_cluster()["cluster_id"]
    admin.close()
    producer = KafkaProducer(bootstrap_servers=found["brokers"])
    producer.send("kept", b"value").get(timeout=20)
    producer.close()
    with redis.Redis.from_url(found["redis_url"]) as client:
        client.set("kept", "value")
    end(process)

    process = up("--json", "--data-dir", tmp_path)
    found = addresses(process)
    with redis.Redis.from_url(found["redis_url"]) as client:
        assert client.get("kept") == b"value"
    consumer = KafkaConsumer(
        bootstrap_servers=found["brokers"], auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    consumer.assign([TopicPartition("kept", 0)])
    assert next(consumer).value == b"value"
    consumer.close()
    admin = KafkaAdminClient(bootstrap_servers=found["brokers"])
    assert admin.describe_cluster()["cluster_id"] == cluster
    admin.close()
    end(process)


@pytest.mark.parametrize(("option", "server"), [("--kafka-port", "Kafka"), ("--redis-port", "Valkey")])
def test_a_port_in_use_is_one_clear_line(up: Up, tmp_path: Path, option: str, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = up("--data-dir", tmp_path, option, str(port))
        out, err = process.communicate(timeout=30)

    assert process.returncode == 1
    assert out == ""
    assert err == f"Error: port {port} for {server} is in use: choose another, or 0 for a free one\n"
    assert servers_on(tmp_path) == {}


def test_without_java_it_says_so_and_leaves_nothing(up: Up, tmp_path: Path) -> None:
    bare = {key: value for key, value in os.environ.items() if key != "JAVA_HOME"} | {"PATH": str(tmp_path)}
    process = up("--data-dir", tmp_path, env=bare)

    out, err = process.communicate(timeout=30)

    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert "Java 17" in err
    assert servers_on(tmp_path) == {}


def test_two_stacks_do_not_share_a_directory(up: Up, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = up("--data-dir", tmp_path)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err == f"Error: another local stack uses {tmp_path}\n"


@pytest.mark.parametrize("victim", ["Kafka", "Valkey"])
def test_where_a_server_dies_it_says_which_and_stops_the_other(up: Up, victim: str) -> None:
    process = up("--json")
    data_dir = addresses(process)["data_dir"]
    os.kill(servers_on(data_dir)[victim], signal.SIGKILL)

    _, err = process.communicate(timeout=15)

    assert process.returncode == 1
    assert err.startswith(f"Error: {victim} ended by signal SIGKILL\n  ")
    assert servers_on(data_dir) == {}


def test_servers_do_not_survive_a_killed_parent(up: Up, tmp_path: Path) -> None:
    process = up("--json", "--data-dir", tmp_path)
    addresses(process)
    assert servers_on(tmp_path).keys() == {"Kafka", "Valkey"}

    process.kill()

    assert wait_until(lambda: not servers_on(tmp_path), 5)


def test_from_python_each_server_can_be_killed_and_restarted() -> None:
    stack = LocalStack()
    starter = threading.Thread(target=stack.start)  # a server lives on after the thread that asked for it
    starter.start()
    starter.join()
    try:
        brokers, kafka_pid = stack.brokers, stack.kafka.pid
        with redis.Redis.from_url(stack.redis_url) as client:
            client.set("kept", "value")
            time.sleep(1.1)  # everysec
            stack.redis.kill()
            assert not stack.redis.running
            with pytest.raises(LocalStackError, match="Valkey ended by signal SIGKILL"):
                stack.check()
            stack.redis.start()
            assert client.get("kept") == b"value"
        stack.kafka.kill()
        stack.kafka.start()
        stack.kafka.stop()
        stack.kafka.start()
        stack.check()
        assert stack.brokers == brokers
        assert stack.kafka.pid != kafka_pid
    finally:
        stack.stop()
    assert not stack.data_dir.exists()


def test_jars_are_fetched_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lib = tmp_path / "kafka" / "lib"
    monkeypatch.setattr(local_jars, "LIB", lib)
    monkeypatch.setattr(local_jars, "_run_maven", lambda maven, directory: (directory / "a.jar").touch())
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")

    assert local_jars.ensure_jars() == lib
    assert (lib / "a.jar").exists()

    # complete and of this pom: nothing is fetched again
    (lib / "mark").touch()
    assert local_jars.ensure_jars() == lib
    assert (lib / "mark").exists()

    # those of another pom are replaced as a whole
    (lib / "pom.sha256").write_text("another")
    assert local_jars.ensure_jars() == lib
    assert not (lib / "mark").exists()
    assert [entry.name for entry in lib.parent.iterdir()] == ["lib"]


def test_missing_jars_without_maven_are_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local_jars, "LIB", tmp_path / "lib")
    monkeypatch.setattr("shutil.which", lambda name: None)

    assert local_jars.main() == 1
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert error.count("\n") == 1
    assert "Maven" in error


def test_free_ports_stay_clear_of_outgoing_connections() -> None:
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = {free_port() for _ in range(50)}
    assert max(ports) < first_ephemeral
    assert all(port_is_free(port) for port in ports)


def test_a_server_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    valkey = ValkeyServer(tmp_path / "valkey")
    valkey.start()
    assert valkey.pid is not None
    os.kill(valkey.pid, signal.SIGSTOP)  # SIGTERM waits, as in a server that hangs

    valkey.stop(timeout=0.2)

    assert not valkey.running
    assert servers_on(tmp_path) == {}


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc; elsewhere there is no such setting")
@pytest.mark.parametrize("said", [None, "glibc.malloc.perturb=0"])
def test_valkey_keeps_freed_memory_at_hand_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if said is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", said)
    valkey = ValkeyServer(tmp_path / "valkey")
    valkey.start()
    try:
        environment = Path(f"/proc/{valkey.pid}/environ").read_bytes().split(b"\0")
    finally:
        valkey.stop()
    told = [entry.decode() for entry in environment if entry.startswith(b"GLIBC_TUNABLES=")]
    if said is not None:
        assert told == [f"GLIBC_TUNABLES={said}"]
    else:
        assert "glibc.malloc.tcache_count=65535" in told[0]


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    kafka = KafkaServer(tmp_path / "kafka")
    with pytest.raises(LocalStackError, match="Kafka does not answer after 0 s"):
        kafka.start(timeout=0)
    assert not kafka.running
