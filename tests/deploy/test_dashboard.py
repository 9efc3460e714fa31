"""The dashboard is what its table says, asks only for what workers tell, and explains every panel."""

import json
import re
from collections import Counter
from itertools import combinations
from typing import Any

import pytest

from deploy.grafana.dashboard import FILE, text
from tests.deploy.metric_names import labels_in, metrics_in, names, of_kizuna
from tests.deploy.test_alerts import RULES, labels_of

DASHBOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
each_panel = pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])

#: Units of Grafana that are used here (its units by category: misc, throughput, time, data).
UNITS = {"short", "cps", "s", "bytes"}


def expressions(panel: dict[str, Any]) -> list[str]:
    # Grafana fills in its variables; in a range or a string they are no names.
    return [target["expr"].replace("$__rate_interval", "1m") for target in panel["targets"]]


def test_the_file_is_what_the_table_says() -> None:
    assert FILE.read_text() == text(), "run: python -m deploy.grafana.dashboard"


def test_golden_signals_come_first() -> None:
    rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert rows[:2] == ["At a glance", "Golden signals"]
    assert PANELS[6]["title"] == "Lag"


def test_every_panel_has_a_number_of_its_own_and_a_title_of_its_own() -> None:
    numbers = Counter(panel["id"] for panel in DASHBOARD["panels"])
    assert set(numbers.values()) == {1}
    assert set(Counter(panel["title"] for panel in DASHBOARD["panels"]).values()) == {1}


def test_no_panel_lies_on_another_or_beside_the_screen() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


@each_panel
def test_a_panel_has_a_unit_and_says_what_is_good_and_what_to_do_otherwise(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    good, otherwise = panel["description"].split("\n\n")
    assert re.fullmatch(r"Good: \S.*\.", good)
    assert re.fullmatch(r"Otherwise: \S.*\.", otherwise)


@each_panel
def test_a_panel_asks_only_for_metrics_and_labels_that_there_are(panel: dict[str, Any]) -> None:
    assert panel["targets"]
    for expression, target in zip(expressions(panel), panel["targets"], strict=True):
        assert metrics_in(expression)
        assert metrics_in(expression) <= names().keys()
        assert labels_in(expression) <= labels_of(expression)
        shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
        assert shown <= labels_of(expression)
        # What is summed away cannot be shown.
        if grouped := re.search(r"\bby \(([^)]*)\)", expression):
            assert shown <= set(re.findall(r"\w+", grouped[1]))


@each_panel
def test_a_panel_shows_the_pipeline_that_was_chosen(panel: dict[str, Any]) -> None:
    for expression in expressions(panel):
        assert expression.count('job=~"$job"') == len(re.findall(r"\b(?:kizuna|process)_\w+", expression))


@each_panel
def test_a_panel_takes_the_chosen_prometheus(panel: dict[str, Any]) -> None:
    (source,) = [entry["name"] for entry in DASHBOARD["templating"]["list"] if entry["type"] == "datasource"]
    for part in (panel, *panel["targets"]):
        assert part["datasource"] == {"type": "prometheus", "uid": f"${{{source}}}"}


def test_every_metric_of_ours_is_shown() -> None:
    shown = set().union(*(of_kizuna(expression) for panel in PANELS for expression in expressions(panel)))
    ends = re.compile(r"_(total|bucket|sum|count)$")
    assert {ends.sub("", name) for name in shown} == {
        ends.sub("", n) for n in names() if n.startswith("kizuna_")
    }


def test_every_alert_has_a_panel_and_every_alert_that_is_named_is_there() -> None:
    named = set(re.findall(r"\bKizuna\w+", " ".join(panel["description"] for panel in PANELS)))
    assert named == set(RULES)


def test_a_limit_that_is_drawn_is_that_of_an_alert_which_the_panel_names() -> None:
    drawn = 0
    for panel in PANELS:
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        if panel["type"] != "timeseries" or len(steps) == 1:
            continue
        named = re.findall(r"\bKizuna\w+", panel["description"]) or ["KizunaLagHigh"]
        rules = " ".join(RULES[alert]["expr"] for alert in named)
        assert f"> {steps[1]['value']:g}" in rules, panel["title"]
        drawn += 1
    assert drawn >= 5
