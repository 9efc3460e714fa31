"""The documents say what is there: links lead somewhere, and no setting, metric or command goes without a word."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from cli.main import main
from streams.metrics import Metrics
from streams.settings import Settings

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
EVERYTHING = "\n".join(path.read_text() for path in DOCUMENTS)

_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)


def prose(path: Path) -> str:
    """A document without its fenced code."""
    return _FENCED.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    """A document's headings, as GitHub names them in a link."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(path)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while name in found:
            number += 1
            name = f"{name.removesuffix(f'-{number - 1}')}-{number}"
        found.add(name)
    return found


def dead_links(path: Path) -> Iterator[str]:
    for link in _LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists():
            yield f"{link}: there is no {target}"
        elif not target.is_relative_to(ROOT):
            yield f"{link}: leads out of the project"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"{link}: {target.name} has no such heading"


def commands(group: click.Command, names: tuple[str, ...]) -> Iterator[str]:
    """Every command that can be run, such as `kizuna topics create`."""
    if not isinstance(group, click.Group):
        yield " ".join(names)
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from commands(command, (*names, name))


def test_there_are_documents() -> None:
    assert {"README.md", "CHANGELOG.md", "architecture.md", "operations.md"} <= {p.name for p in DOCUMENTS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    assert list(dead_links(path)) == []


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    decisions = sorted(path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [name for name in decisions if f"({name})" not in index] == []


@pytest.mark.parametrize("field", fields(Settings), ids=lambda field: field.name)
def test_every_setting_is_explained_with_its_default(field) -> None:
    variable = f"KIZUNA_{field.name.upper()}"
    (row,) = [line for line in OPERATIONS.splitlines() if line.startswith(f"| `{variable}` |")]
    default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
    assert [cell.strip() for cell in row.split("|")][3] == (f"`{default}`" if default else "none")


def test_no_document_names_a_variable_that_is_not_there() -> None:
    # The demo, the tests and docker-compose.yml may have variables of their own: none is named KIZUNA_….
    named = set(re.findall(r"KIZUNA_[A-Z_]*[A-Z]", EVERYTHING))
    assert named == {f"KIZUNA_{field.name.upper()}" for field in fields(Settings)}


def test_every_metric_is_explained() -> None:
    rows = re.findall(r"^\| `(kizuna_\w+)` \|([^|]*)\|", OPERATIONS, re.MULTILINE)
    explained = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    metrics = {
        metric._name: set(metric._labelnames)
        for metric in vars(Metrics()).values()
        if hasattr(metric, "_labelnames")
    }
    assert explained == metrics
    assert len(metrics) > 10


def test_every_module_of_the_domain_and_the_plumbing_is_in_the_map() -> None:
    layout = (ROOT / "docs" / "architecture.md").read_text().partition("\n## Layout\n")[2]
    for package in ("loyalty", "streams"):
        table = layout.partition(f"\nIn `{package}`:\n")[2].split("\n\n")[0]
        named = re.findall(r"`(\w+\.py)`", table)
        modules = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
        assert sorted(named) == sorted(modules)


def test_every_command_is_in_the_documents() -> None:
    found = list(commands(main, ("kizuna",)))
    assert len(found) > 8
    assert [command for command in found if command not in EVERYTHING] == []
