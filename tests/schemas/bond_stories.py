"""The stories of bonds in docs/program.md: programs, each with a table of what happens by it, as values.

A story is a table with the columns ``when``, ``arrives``, ``segment after it`` and ``told``, after the fenced block
with its sections, which are added to the first whole program under the heading "Bonds". In the cells:

- when: ``day 5``, ``day 5, 21:30`` or ``day 5, 1 ms later``, rising.
- arrives, at exactly that instant: ``nothing``, ``purchase a 40.00`` or ``refund a 15.00``, a purchase with
  `` in store 7``, `` for campaign 18`` and `` under box`` behind it; a touch ``inbound web review``, with `` of box``,
  `` in store 7``, `` for campaign 18`` and `` for trigger welcome 1`` (of the scenario's first run) behind it.
- segment after it, what falls due at the instant included: a name, or ``none``.
- told, with the instant as ``effective_at``: ``nothing``, or records with ``; `` between them, each of
  ``segment: none → first_time (purchase)``, ``trigger: welcome 1, sent``, ``trigger: welcome 2, suppressed (cap: call,
  never)``, ``attributed: order a in store 7 to email, 3 d, 40.00 (window)`` or ``withdrawn: order a``.

Nothing else is told up to the last row's instant. The texts of records are compared as they stand.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from schemas.bond_records import trigger_id
from schemas.events import PurchaseMade, RefundMade, TouchpointMade
from schemas.money import parse_minor
from schemas.program import Program, parse_program
from schemas.times import DAY, HOUR, MINUTE
from tests.schemas.stories import PAGE, START, is_whole

HEADER = "| when | arrives | segment after it | told |"
CUSTOMER = "900"

_BLOCK_OR_TABLE = re.compile(
    rf"^```toml\n(.*?)^```|^{re.escape(HEADER)}\n\|[ -|]*\n((?:\|[^\n]*\n)+)", re.M | re.S
)
_WHEN = re.compile(r"day ([0-9]+)(?:, (?:([0-9]{2}):([0-9]{2})|([0-9]+) ms later))?")
_MONEY = re.compile(
    r"(purchase|refund) ([a-z]+) ([0-9]+\.[0-9]{2})"
    r"(?: in store ([0-9]+))?(?: for campaign ([0-9]+))?(?: under ([a-z]+))?"
)
_TOUCH = re.compile(
    r"(inbound|outbound) ([a-z]+) ([a-z]+)(?: of ([a-z]+))?"
    r"(?: in store ([0-9]+))?(?: for campaign ([0-9]+))?(?: for trigger ([a-z-]+) ([0-9]+))?"
)

Arrival = PurchaseMade | RefundMade | TouchpointMade


class Row(NamedTuple):
    """One row; ``at`` in epoch ms."""

    at: int
    arrival: Arrival | None
    segment: str | None
    told: tuple[str, ...]


class BondStory(NamedTuple):
    """A story, under its heading."""

    name: str
    program: Program
    rows: tuple[Row, ...]


def bond_stories() -> list[BondStory]:
    """Every story of bonds on the page. Raises ``ValueError`` for a table that cannot be read."""
    text = PAGE.read_text("utf-8")
    text = text[text.index("\n## Bonds\n") :]
    found: list[BondStory] = []
    first, last = "", ""
    for match in _BLOCK_OR_TABLE.finditer(text):
        if match[1] is not None:
            first = first or (match[1] if is_whole(match[1]) else "")
            last = match[1]
            continue
        program = parse_program(last if last == first else f"{first}\n{last}")
        heading = re.findall(r"^#+ (.*)$", text[: match.start()], re.MULTILINE)[-1]
        rows = tuple(_row(program, line) for line in match[2].splitlines())
        found.append(BondStory(heading, program, rows))
    return found


def _row(program: Program, line: str) -> Row:
    when, arrives, segment, told = (cell.strip() for cell in line.strip("|").split("|"))
    day, hours, minutes, later = _read(_WHEN, when).groups(default="0")
    at = START + int(day) * DAY + int(hours) * HOUR + int(minutes) * MINUTE + int(later)
    arrival = None if arrives == "nothing" else _arrival(program, arrives, at)
    return Row(
        at,
        arrival,
        None if segment == "none" else segment,
        () if told == "nothing" else tuple(told.split("; ")),
    )


def _arrival(program: Program, text: str, at: int) -> Arrival:
    if (match := _MONEY.fullmatch(text)) is not None:
        kind, order, amount, store, campaign, subscription = match.groups()
        made = PurchaseMade if kind == "purchase" else RefundMade
        paid = parse_minor(amount, program.decimals)
        return made(
            *(CUSTOMER, text, "", order, paid, at, "store" if store else "web", store, campaign, subscription)
        )
    direction, channel, action, subscription, store, campaign, scenario, step = _read(_TOUCH, text).groups()
    return TouchpointMade(
        *(CUSTOMER, text, "", at, channel, direction, action, campaign, store),
        subscription_id=subscription,
        trigger_id=scenario and trigger_id(program.id, CUSTOMER, scenario, 1, int(step)),
    )


def _read(form: re.Pattern[str], text: str) -> re.Match[str]:
    match = form.fullmatch(text)
    if match is None:
        raise ValueError(f"docs/program.md: cannot be read: {text}")
    return match
