"""The runbook has an entry for each reason to stop, and in it each line with which a worker stops or refuses."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from streams.protocols import Stop
from tests.deploy.test_alerts import RULES
from tests.test_docs import ROOT

TEXT = (ROOT / "docs" / "runbook.md").read_text()

#: What each entry says, in bold, in this order.
PARTS = ["Means", "See more", "Do", "Do not"]


class Line(NamedTuple):
    """A line with which a worker stops, as the source has it, `…` for what is filled in."""

    stop: str
    text: str


def entries() -> dict[str, str]:
    """The text beneath each heading of the third level."""
    parts = re.split(r"^(#{1,3} .+)$", TEXT, flags=re.MULTILINE)
    return {
        heading.removeprefix("### "): body
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
        if heading.startswith("### ")
    }


def sources() -> set[Path]:
    """The modules of which the worker is made: what other commands have to themselves is not its word."""
    found: set[Path] = set()
    waiting = [ROOT / "cli" / "worker.py", *(ROOT / "agents").glob("*.py")]
    while waiting:
        source = waiting.pop()
        if source in found:
            continue
        found.add(source)
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("streams"):
                _, _, module = node.module.partition(".")
                names = [module] if module else [alias.name for alias in node.names]
                waiting += [ROOT / "streams" / f"{name}.py" for name in names]
    return found


def said(node: ast.expr) -> str | None:
    """The text of a string in the source, `…` for what is filled in; None where it is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return None
    parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
    return re.sub(r"…( …)+", "…", "".join(parts))


def lines() -> Iterator[Line]:
    """Every line with which a worker stops or refuses."""
    for source in sources():
        tree = ast.parse(source.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                text = said(node.args[0])
                if node.func.id == "MovedOnError" and text:
                    yield Line(Stop.PROGRAM_CHANGED, text)
                if node.func.id == "FatalError" and text:
                    yield Line(stop_of(node), text)
            # What is wrong with topics is listed by functions of this name.
            if isinstance(node, ast.FunctionDef) and node.name.endswith("faults"):
                for part in ast.walk(node):
                    text = said(part) if isinstance(part, ast.expr) else None
                    if text and re.search(r"\bmust be\b|differ in|are missing|keeps …", text):
                        yield Line(Stop.TOPICS, text)


def stop_of(call: ast.Call) -> str:
    if len(call.args) < 2:
        return Stop.OTHER
    reason = call.args[1]
    assert isinstance(reason, ast.Attribute), ast.unparse(call)
    return Stop[reason.attr]


#: `no Redis answers` without a reason is what other commands say when they look at a store.
LINES = sorted(
    {line for line in lines() if not line.text.startswith("no Redis answers") or line.stop != "other"}
)
ENTRIES = entries()


def quoted(entry: str) -> list[str]:
    """The lines that an entry is about."""
    return re.findall(r"^- `([^`]+)`$", ENTRIES[entry], re.MULTILINE)


def test_lines_are_found_in_the_source() -> None:
    assert {"app.py", "take_over.py", "settings.py", "healing.py"} <= {source.name for source in sources()}
    assert len(LINES) > 20
    assert {line.stop for line in LINES} == set(Stop)


@pytest.mark.parametrize("stop", Stop)
def test_every_reason_to_stop_has_an_entry(stop: Stop) -> None:
    assert stop in ENTRIES
    assert quoted(stop)


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.stop}: {line.text[:60]}")
def test_every_line_with_which_a_worker_stops_is_in_the_entry_of_its_reason(line: Line) -> None:
    assert [quote for quote in quoted(line.stop) if quote.removesuffix("…") in line.text]


@pytest.mark.parametrize("stop", Stop)
def test_an_entry_quotes_no_line_that_no_worker_says(stop: Stop) -> None:
    own = ["the worker stops on an error of its own"]
    texts = [line.text for line in LINES if line.stop == stop] + own
    assert [quote for quote in quoted(stop) if not any(quote.removesuffix("…") in t for t in texts)] == []


@pytest.mark.parametrize("entry", [*RULES, *Stop])
def test_an_entry_says_what_it_means_where_to_look_what_to_do_and_what_not_to_do(entry: str) -> None:
    assert re.findall(r"^\*\*([A-Z][a-z ]+)\*\*:(?=\s+\S)", ENTRIES[entry], re.MULTILINE) == PARTS
