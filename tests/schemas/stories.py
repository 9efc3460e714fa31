"""The stories in docs/program.md: programs, each with a table of what happens by it, as values.

A story is a table with the columns ``when``, ``what arrives``, ``shown after it`` and ``published``, after the
fenced block with its program. Where a row says that the new program arrives, the block is that one, and the story
begins by the program in the block before. In the cells:

- when: ``day 5``, so many times 24 hours after ``START``, rising.
- what arrives, at exactly that instant: ``nothing``, ``purchase a 40.00``, ``refund a 15.00``, ``the new program``.
- shown after it, what falls due at the instant included: ``silver``, ``silver, at risk until day 40``.
- published, with the instant as ``effective_at``: ``nothing``, or records with ``; `` between them, each of
  ``changed: member → silver (purchase)``, ``at-risk: until day 40, needed 60.00 and 1 orders (window_expiry)`` or
  ``retained (purchase)``, and where its benefits are told, behind it ``, with "a" and "b"`` or ``, with no benefits``.

Nothing else is published up to the last row's instant.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from schemas.program import Program, parse_program
from schemas.times import DAY, parse_rfc3339

START = parse_rfc3339("2026-01-01T00:00:00Z")
PAGE = Path(__file__).parents[2] / "docs" / "program.md"
HEADER = "| when | what arrives | shown after it | published |"

_BLOCK_OR_TABLE = re.compile(
    rf"^```toml\n(.*?)^```|^{re.escape(HEADER)}\n\|[ -|]*\n((?:\|[^\n]*\n)+)", re.M | re.S
)
_DAY = re.compile(r"day ([0-9]+)")
_ARRIVES = re.compile(r"(purchase|refund) ([a-z]+) ([0-9]+\.[0-9]{2})|(the new program)|nothing")
_SHOWN = re.compile(r"([a-z]+)(?:, at risk until day ([0-9]+))?")
_RECORD = re.compile(
    r"(?:changed: (?P<before>[a-z]+) → (?P<after>[a-z]+)|retained"
    r"|at-risk: until day (?P<until>[0-9]+), needed (?P<money>[0-9]+\.[0-9]{2}) and (?P<orders>[0-9]+) orders)"
    r" \((?P<reason>[a-z_]+)\)(?P<benefits>, with (?:no benefits|\"[^;]*\"))?"
)


class Arrival(NamedTuple):
    """What arrives: ``purchase`` or ``refund`` with its order and amount, or ``program``."""

    kind: str
    order_id: str = ""
    amount: str = ""


class Told(NamedTuple):
    """A record that is published. ``benefits`` is None where the page does not say them."""

    kind: str
    reason: str
    previous_tier: str | None = None
    tier: str | None = None
    at_risk_until: int | None = None
    needed: tuple[str, int] | None = None
    benefits: tuple[str, ...] | None = None


class Row(NamedTuple):
    """One row; instants are epoch ms."""

    at: int
    arrival: Arrival | None
    tier: str
    at_risk_until: int | None
    published: tuple[Told, ...]


class Story(NamedTuple):
    """``program`` holds from the start, ``new_program`` from the row on in which it arrives."""

    name: str
    program: Program
    new_program: Program | None
    rows: tuple[Row, ...]


def blocks() -> list[str]:
    """Every TOML block of the page."""
    return [match[1] for match in _BLOCK_OR_TABLE.finditer(PAGE.read_text("utf-8")) if match[1] is not None]


def is_whole(block: str) -> bool:
    """Whether a block is a whole program, not a part of one."""
    return all(f"\n{section}\n" in f"\n{block}" for section in ("[program]", "[[tiers]]", "[scores]"))


def stories() -> list[Story]:
    """Every story of the page. Raises ``ValueError`` for a table that cannot be read."""
    text = PAGE.read_text("utf-8")
    found: list[Story] = []
    programs: list[str] = []
    for match in _BLOCK_OR_TABLE.finditer(text):
        if match[1] is not None:
            programs += [match[1]] if is_whole(match[1]) else []
            continue
        rows = tuple(_row(line) for line in match[2].splitlines())
        heading = re.findall(r"^#+ (.*)$", text[: match.start()], re.MULTILINE)[-1]
        name = f"{heading} {sum(story.name.startswith(heading) for story in found) + 1}"
        last = parse_program(programs[-1])
        if any(row.arrival == Arrival("program") for row in rows):
            found.append(Story(name, parse_program(programs[-2]), last, rows))
        else:
            found.append(Story(name, last, None, rows))
    return found


def _row(line: str) -> Row:
    when, arrives, shown, published = (cell.strip() for cell in line.strip("|").split("|"))
    kind, order_id, amount, program = _read(_ARRIVES, arrives).groups()
    arrival = Arrival(kind, order_id, amount) if kind else Arrival("program") if program else None
    tier, until = _read(_SHOWN, shown).groups()
    records = () if published == "nothing" else tuple(map(_told, published.split("; ")))
    return Row(_instant(_read(_DAY, when)[1]), arrival, tier, until and _instant(until), records)


def _told(text: str) -> Told:
    match = _read(_RECORD, text)
    before, after, until, money, orders, reason, listed = match.groups()
    benefits = None if listed is None else tuple(re.findall(r'"([^"]*)"', listed))
    if before:
        return Told("changed", reason, before, after, benefits=benefits)
    if until:
        needed = (money, int(orders))
        return Told("at-risk", reason, at_risk_until=_instant(until), needed=needed, benefits=benefits)
    return Told("retained", reason, benefits=benefits)


def _instant(day: str) -> int:
    return START + int(day) * DAY


def _read(form: re.Pattern[str], text: str) -> re.Match[str]:
    match = form.fullmatch(text)
    if match is None:
        raise ValueError(f"docs/program.md: cannot be read: {text}")
    return match
