"""The names and labels that a worker's metrics really have, and those that a query asks for."""

import re
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from streams.metrics import Metrics

_SUFFIXES = {Gauge: ("",), Counter: ("_total",), Histogram: ("_bucket", "_sum", "_count")}


@cache
def names() -> dict[str, set[str]]:
    """Every series' name, as Prometheus has it, with its labels."""
    metrics = Metrics()
    found: dict[str, set[str]] = {}
    ours = [metric for metric in vars(metrics).values() if isinstance(metric, tuple(_SUFFIXES))]
    for metric in ours:
        for suffix in _SUFFIXES[type(metric)]:
            labels = set(metric._labelnames) | ({"le"} if suffix == "_bucket" else set())
            found[metric._name + suffix] = labels
    # What the client library measures by itself has no labels that anybody asks for.
    for family in metrics.registry.collect():
        for sample in family.samples:
            if not sample.name.startswith("kizuna_"):
                found[sample.name] = set(sample.labels)
    return found


def metrics_in(expression: str) -> set[str]:
    """The metrics that a query names."""
    return set(re.findall(r"\b((?:kizuna|process|python)_\w+|up)\b(?!\s*=)", _without_strings(expression)))


def of_kizuna(expression: str) -> set[str]:
    """Those of them that are this project's own."""
    return {name for name in metrics_in(expression) if name.startswith("kizuna_")}


def labels_in(expression: str) -> set[str]:
    """The labels that a query selects or groups by."""
    bare = _without_strings(expression)
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)(?!=)", bare.replace("==", ""))
    grouped = re.findall(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)", bare)
    return set(selected).union(*(re.findall(r"\w+", group) for group in grouped))


def _without_strings(expression: str) -> str:
    return re.sub(r'"[^"]*"', '""', expression)
