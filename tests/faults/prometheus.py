"""A real Prometheus that watches a test's workers by the project's own alert rules, sixty times as fast."""

import json
import re
import urllib.parse
import urllib.request
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from cli.local_prometheus import ensure_prometheus
from cli.local_server import HOST, Server
from tests.space import wait_until

DEPLOYED = Path(__file__).parents[2] / "deploy" / "prometheus"

#: By how much shorter an alert waits here before it fires. What it looks at is the same.
_FASTER = 60
_UNITS = {"s": 1, "m": 60, "h": 3600}


class Prometheus(Server):
    """Scrapes the workers on these ports, twice a second, as the deployed configuration has it."""

    name = "Prometheus"

    def __init__(self, directory: Path, *workers: int) -> None:
        super().__init__(directory)
        self._workers = workers

    def _command(self) -> list[str]:
        config = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
        config["global"] = dict.fromkeys(
            ("scrape_interval", "scrape_timeout", "evaluation_interval"), "500ms"
        )
        (job,) = config["scrape_configs"]
        job["static_configs"] = [{"targets": [f"{HOST}:{port}" for port in self._workers]}]
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        rules = faster(yaml.safe_load((DEPLOYED / "alerts.yml").read_text()))
        (self.directory / "alerts.yml").write_text(yaml.safe_dump(rules))
        return [
            str(ensure_prometheus().prometheus),
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self.address}",
            "--log.level=warn",
        ]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def ask(self, path: str, **query: str) -> Any:
        """What its API says."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            told = json.loads(answer.read())
        assert told["status"] == "success", told
        return told["data"]

    def value(self, query: str) -> float | None:
        """The one value of a query now; None where there is none."""
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> dict[str, list[str]]:
        """The summaries of what fires now, by alert."""
        found: dict[str, list[str]] = {}
        for alert in self.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["annotations"]["summary"])
        return found

    def wait_calm(self, seconds: float = 60) -> None:
        """Until the rules have been looked at with workers that hold all their shards, and nothing fires."""
        whole = "min(kizuna_partitions) - sum(kizuna_shards) == 0"
        wait_until(
            lambda: self.value(whole) is not None and not self.firing(),
            seconds,
            f"all is well again; fires: {self.firing()}",
        )

    def wait_firing(self, alert: str, seconds: float = 60) -> list[str]:
        """What the alert says, once it fires."""
        found: list[str] = wait_until(lambda: self.firing().get(alert), seconds, alert)
        return found


def faster(rules: dict[str, Any]) -> dict[str, Any]:
    """The same rules with each `for` shortened."""
    rules = deepcopy(rules)
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                number, unit = re.fullmatch(r"(\d+)([smh])", rule["for"]).groups()
                rule["for"] = f"{int(number) * _UNITS[unit] * 1000 // _FASTER}ms"
    return rules
