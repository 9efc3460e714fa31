"""The alert rules by promtool: each fires where it must, is silent where it comes near, and is in the runbook."""

import re
import subprocess
from collections.abc import Callable, Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.local_prometheus import ensure_prometheus
from tests.deploy.alert_cases import CASES
from tests.deploy.alert_series import Case
from tests.deploy.metric_names import labels_in, metrics_in, names, of_kizuna
from tests.test_docs import ROOT, anchors

ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
DOCUMENT: dict[str, Any] = yaml.safe_load(ALERTS.read_text())
RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in DOCUMENT["groups"] for rule in group["rules"]
}

#: Verdict of promtool on cases: None where all held, else what it said.
Verdict = str | None


@pytest.fixture(scope="session")
def promtool() -> Path:
    return ensure_prometheus().promtool


@pytest.fixture
def verdict(promtool: Path, tmp_path: Path) -> Callable[..., Verdict]:
    """Runs cases against the rules, one of which may be changed."""

    def run(cases: Iterable[Case], **change: str) -> Verdict:
        document = deepcopy(DOCUMENT)
        chosen = list(cases)
        for group in document["groups"]:
            for rule in group["rules"]:
                # The summary is filled in and is compared; what stands the same for ever is not.
                rule["annotations"] = {"summary": rule["annotations"]["summary"]}
                if rule["alert"] == chosen[0].alert:
                    rule.update(change)
        (tmp_path / "alerts.yml").write_text(yaml.safe_dump(document))
        tests = {
            "rule_files": ["alerts.yml"],
            "evaluation_interval": "1m",
            "tests": [promtools(case) for case in chosen],
        }
        (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
        done = subprocess.run(
            [promtool, "test", "rules", "tests.yml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        said = done.stdout + done.stderr
        assert ("SUCCESS" in said) == (done.returncode == 0), said
        # A file that cannot be read, or a series that is none, is no verdict.
        assert done.returncode == 0 or "alertname:" in said, said
        return None if done.returncode == 0 else said

    return run


def promtools(case: Case) -> dict[str, Any]:
    """A case as promtool has it."""
    severity = RULES[case.alert]["labels"]
    minutes = [case.minutes] if case.fires else range(case.since, case.minutes + 1)
    return {
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": case.alert,
                "exp_alerts": [
                    {"exp_labels": labels | severity, "exp_annotations": {"summary": summary}}
                    for summary, labels in case.fires.items()
                ],
            }
            for minute in minutes
        ],
    }


def cases_of(alert: str, fires: bool) -> list[Case]:
    return [case for case in CASES if case.alert == alert and bool(case.fires) == fires]


def test_promtool_accepts_the_rules(promtool: Path) -> None:
    done = subprocess.run(
        [promtool, "check", "rules", "--lint-fatal", ALERTS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(RULES)} rules found" in done.stdout


def test_there_are_alerts_each_with_a_name_of_its_own() -> None:
    assert len(RULES) == sum(len(group["rules"]) for group in DOCUMENT["groups"])
    assert len(RULES) > 12


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_an_alert_fires_or_is_silent(verdict: Callable[..., Verdict], case: Case) -> None:
    assert verdict([case]) is None


@pytest.mark.parametrize("alert", RULES)
def test_every_alert_has_cases_of_both_kinds(alert: str) -> None:
    assert cases_of(alert, True)
    assert cases_of(alert, False)


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_that_never_fires_is_noticed(verdict: Callable[..., Verdict], alert: str) -> None:
    assert verdict(cases_of(alert, True), expr="vector(0) > 1") is not None


@pytest.mark.parametrize("alert", [name for name, rule in RULES.items() if "for" in rule])
def test_an_alert_that_does_not_wait_is_noticed(verdict: Callable[..., Verdict], alert: str) -> None:
    assert verdict(cases_of(alert, False), **{"for": "0s"}) is not None


#: A limit that is a number: what an alert compares with.
_LIMIT = re.compile(r"(?<=[><] )(\d+(?:\.\d+)?)(?!\d| \*)")


@pytest.mark.parametrize("alert", [name for name, rule in RULES.items() if _LIMIT.search(rule["expr"])])
def test_an_alert_with_a_limit_far_too_low_is_noticed(verdict: Callable[..., Verdict], alert: str) -> None:
    expr = RULES[alert]["expr"]
    for found in _LIMIT.finditer(expr):
        if float(found[0]) == 0:
            continue
        lower = f"{expr[: found.start()]}{float(found[0]) / 100}{expr[found.end() :]}"
        assert verdict(cases_of(alert, False), expr=lower) is not None, lower


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_a_case_holds_only_series_that_there_are(case: Case) -> None:
    for series in case.series:
        assert metrics_in(series) <= names().keys() | {"up"}
        assert labels_in(series) <= labels_of(series)


def labels_of(expression: str) -> set[str]:
    """The labels that the metrics of an expression have between them."""
    return {"job", "instance"}.union(*(names().get(metric, set()) for metric in metrics_in(expression)))


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_asks_only_for_metrics_and_labels_that_there_are(alert: str) -> None:
    expr = RULES[alert]["expr"]
    assert metrics_in(expr) <= names().keys() | {"up"}
    assert metrics_in(expr)
    assert labels_in(expr) <= labels_of(expr)


@pytest.mark.parametrize("alert", RULES)
def test_a_near_miss_has_the_metrics_that_the_alert_looks_at(alert: str) -> None:
    wanted = of_kizuna(RULES[alert]["expr"])
    assert any(wanted <= of_kizuna(" ".join(case.series)) for case in cases_of(alert, False))


@pytest.mark.parametrize("alert", RULES)
def test_an_alert_tells_how_urgent_it_is_what_it_means_and_where_to_read_on(alert: str) -> None:
    rule = RULES[alert]
    assert alert.startswith("Kizuna")
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert "{{" not in rule["annotations"]["description"]
    file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == alert.lower()
    assert anchor in anchors(ROOT / file)


def test_the_runbook_has_no_alert_that_there_is_not() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    assert set(re.findall(r"\bKizuna[A-Z]\w+", text)) == set(RULES)
