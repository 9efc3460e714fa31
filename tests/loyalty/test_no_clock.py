"""The domain never asks for the time: it is always told."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import loyalty

MODULES = sorted(
    path
    for path in Path(loyalty.__file__).parent.glob("*.py")
    # It chooses how the others run, by their sources and a switch, before any of them is imported.
    if path.name != "compiled.py"
)
CLOCKS = {
    "now",
    "utcnow",
    "today",
    "localtime",
    "gmtime",
    "time_ns",
    "monotonic",
    "perf_counter",
    "monotonic_ns",
}
FOREIGN = {"time", "asyncio", "random", "secrets", "uuid", "socket", "os", "io", "threading", "subprocess"}
FOREIGN |= {"faust", "mode", "redis", "aiokafka", "kafka", "streams", "agents", "cli"}


def faults(source: str) -> list[str]:
    """Imports and names through which a module could learn the time, or reach outside."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in FOREIGN]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.split(".")[0] in FOREIGN:
                found.append(module)
            found += [alias.name for alias in node.names if alias.name in CLOCKS]
        elif isinstance(node, ast.Attribute) and node.attr in CLOCKS:
            found.append(node.attr)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"__import__", "open"}
        ):
            found.append(node.func.id)
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_no_module_of_the_domain_reads_a_clock(module: Path) -> None:
    assert faults(module.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "from datetime import datetime\ndatetime.now()",
        "import datetime as d\nx = d.date.today",
        "import asyncio.events",
        "__import__('time')",
    ],
)
def test_the_check_sees_clocks(source: str) -> None:
    assert faults(source)
