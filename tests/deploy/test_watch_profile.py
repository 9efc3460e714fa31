"""`docker compose --profile watch up`: Prometheus scrapes the worker by these rules, Grafana shows this dashboard."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.local_prometheus import ensure_prometheus
from tests.test_docs import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
CONFIG: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
WATCHING = ("prometheus", "grafana")


def mounted(service: str) -> dict[str, Path]:
    """The project's own files and folders in a container, by where they are there."""
    volumes = [volume.split(":") for volume in SERVICES[service]["volumes"]]
    return {inside: ROOT / outside for outside, inside, *_ in volumes if outside.startswith(".")}


def test_they_are_started_only_when_asked_for() -> None:
    assert {name for name, service in SERVICES.items() if service.get("profiles") == ["watch"]} == set(
        WATCHING
    )
    assert all("profiles" not in service for name, service in SERVICES.items() if name not in WATCHING)


@pytest.mark.parametrize("service", WATCHING)
def test_what_is_mounted_is_here_and_cannot_be_changed_from_there(service: str) -> None:
    assert mounted(service)
    assert all(path.exists() for path in mounted(service).values())
    assert all(v.endswith(":ro") for v in SERVICES[service]["volumes"] if v.startswith("."))


def test_promtool_accepts_the_configuration() -> None:
    done = subprocess.run(
        [ensure_prometheus().promtool, "check", "config", PROMETHEUS / "prometheus.yml"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


def test_prometheus_reads_this_configuration_and_these_rules() -> None:
    assert mounted("prometheus") == {"/etc/prometheus": PROMETHEUS}
    assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]
    assert CONFIG["rule_files"] == ["alerts.yml"]


def test_prometheus_scrapes_the_worker_in_a_job_that_the_alerts_look_for() -> None:
    (job,) = CONFIG["scrape_configs"]
    assert job["job_name"].startswith("kizuna")
    port = SERVICES["worker"]["environment"]["KIZUNA_WEB_PORT"]
    assert job["static_configs"] == [{"targets": [f"worker:{port}"]}]


def test_a_worker_that_stops_is_seen_twice_with_its_reason() -> None:
    interval = float(CONFIG["global"]["scrape_interval"].removesuffix("s"))
    assert float(SERVICES["worker"]["environment"]["KIZUNA_LINGER"]) > 2 * interval


def test_grafana_asks_that_prometheus_and_finds_the_dashboard() -> None:
    inside = mounted("grafana")
    assert inside["/etc/grafana/provisioning"] == GRAFANA / "provisioning"
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert (source["type"], source["url"], source["isDefault"]) == (
        "prometheus",
        "http://prometheus:9090",
        True,
    )
    assert SERVICES["prometheus"]["ports"][0].endswith(":9090")
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/kizuna.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert (inside[provider["options"]["path"]] / "kizuna.json").exists()
