"""What the demo tells of bonds: tables, a picture, and how honest the numbers are."""

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from cli.demo import bond_picture
from cli.demo.bond_check import PublishedBonds
from cli.demo.bonds import (
    CAME_BACK_WITHIN,
    Brought,
    Experiment,
    SegmentRow,
    brought,
    cap_rows,
    experiment,
    segment_rows,
    statuses,
    visits,
)
from cli.demo.data import Event
from cli.demo.screen import Screen
from cli.demo.story import day_of, money
from schemas.money import format_minor
from schemas.program import Program
from schemas.times import DAY
from streams.protocols import PURCHASES


def tell(
    screen: Screen,
    program: Program,
    published: PublishedBonds,
    states: Mapping[str, Mapping[str, Any]],
    year: Sequence[Event],
    picture: Path,
) -> dict[str, Any]:
    """All of it, as far as the program has it; returns what `--json` prints."""
    bonds = program.bonds
    assert bonds is not None
    told: dict[str, Any] = {}
    if bonds.segments:
        rows = segment_rows(bonds, states.values(), program.decimals)
        _segments(screen, program, rows)
        since = day_of(next(event.occurred_at for event in year if event.topic == PURCHASES))
        _draw(picture, program, rows, states, published, since, day_of(year[-1].occurred_at))
        told["segments"] = {row.name: row.customers for row in rows}
        told["loyalty_picture"] = str(picture.resolve())
    if bonds.scenarios:
        told["triggers"] = _scenarios(screen, program, published, year)
    if bonds.contact_policy is not None:
        told["caps"] = _caps(screen, program, published, year)
    if bonds.attribution is not None:
        told["attributed"] = _attributions(screen, program, published, year)
    return told


def _segments(screen: Screen, program: Program, rows: Sequence[SegmentRow]) -> None:
    customers, spent = sum(row.customers for row in rows), sum(row.spent for row in rows)
    screen.heading("Who is loyal, and who only spends")
    table = [("", "customers", "", "spent in the year", "", "each", "attachment")]
    table += [
        (
            row.name,
            f"{row.customers:,}",
            _percent(row.customers, customers),
            _money(program, row.spent),
            _percent(row.spent, spent),
            _money(program, row.spent // max(1, row.customers)),
            f"{row.attachment:.1f}",
        )
        for row in rows
    ]
    screen.table(table)


def _draw(
    path: Path,
    program: Program,
    rows: Sequence[SegmentRow],
    states: Mapping[str, Mapping[str, Any]],
    published: PublishedBonds,
    since: date,
    until: date,
) -> None:
    assert program.bonds is not None
    changes = [change for of_one in published.segments.values() for change in of_one]
    spent = sum(row.spent for row in rows)
    most = sorted((row for row in rows if row.customers), key=lambda row: row.spent, reverse=True)[:2]
    note = "  ·  ".join(
        f"{row.customers:,} {row.name}: {_percent(row.spent, spent)} of the money, attachment {row.attachment:.1f}"
        for row in most
    )
    title = "Who is loyal, and who only spends"
    bond_picture.draw(path, title, note, program.bonds, rows, states.values(), changes, since, until)


def _scenarios(
    screen: Screen, program: Program, published: PublishedBonds, year: Sequence[Event]
) -> dict[str, Any]:
    counted = statuses(published)
    total = sum(counts.total() for counts in counted.values())
    screen.heading(f"Messages asked for, one to one: {total:,}")
    table: list[tuple[str, ...]] = [("", "sent", "suppressed", "held out")]
    table += [
        (name, *(f"{counts[status]:,}" for status in ("sent", "suppressed", "held_out")))
        for name, counts in sorted(counted.items())
    ]
    screen.table(table)
    told: dict[str, Any] = {name: dict(counts) for name, counts in counted.items()}
    measured = experiment(program, published, year)
    if measured is not None:
        _experiment(screen, measured)
        told["experiment"] = {
            "scenario": measured.scenario,
            "asked": measured.asked.customers,
            "asked_came_back": measured.asked.came_back,
            "held_out": measured.held_out.customers,
            "held_out_came_back": measured.held_out.came_back,
        }
    return told


def _experiment(screen: Screen, measured: Experiment) -> None:
    screen.heading(f"Did it help? Scenario {measured.scenario}, and those who were held out of it")
    days = CAME_BACK_WITHIN // DAY
    table = [("", "customers", f"back within {days} days", "")]
    for name, group in (("not held out", measured.asked), ("held out", measured.held_out)):
        table.append(
            (name, f"{group.customers:,}", f"{group.came_back:,}", _percent(group.came_back, group.customers))
        )
    screen.table(table)
    screen.say(f"  difference {100 * measured.difference:+.1f} points, ± {100 * measured.margin:.1f}")
    beyond = abs(measured.difference) > measured.margin
    screen.say(
        "  The year is history: nobody got these messages, so the difference is chance, and shows how much of it to "
        "expect." + (" It lies beyond its margin, as one in twenty does." if beyond else ""),
        "dim",
    )


def _caps(
    screen: Screen, program: Program, published: PublishedBonds, year: Sequence[Event]
) -> list[dict[str, Any]]:
    rows = cap_rows(program, published, year)
    screen.heading("In moderation: the most that any customer was to get")
    table = [("", "allowed", "most of ours", "with the shop's own mailings")]
    table += [(row.channel, row.allowed, f"{row.ours:,}", f"{row.with_others:,}") for row in rows]
    screen.table(table)
    return [
        {"channel": row.channel, "allowed": row.most, "ours": row.ours, "with_others": row.with_others}
        for row in rows
    ]


def _attributions(
    screen: Screen, program: Program, published: PublishedBonds, year: Sequence[Event]
) -> dict[str, Any]:
    assert program.bonds is not None
    found = brought(published, program.decimals)
    screen.heading("Which touch brought whom to which store")
    table = [("", "how many", "amount", "median time after it")]
    for (kind, match), told in sorted(found.items(), key=lambda pair: (pair[0][1], pair[0][0])):
        by = "of the touch's own campaign" if match == "campaign" else "within the window after any touch"
        table.append(
            (
                f"{kind}s {by}",
                f"{told.count:,}",
                "" if told.amount is None else _money(program, told.amount),
                f"{told.lag / DAY:.1f} days",
            )
        )
    screen.table(table)
    of_all = visits(program.bonds, year)
    attributed = sum(told.count for (kind, _), told in found.items() if kind == "visit")
    if of_all:
        screen.say(f"  {attributed:,} of {of_all:,} redemptions have their touch.")
    screen.say("  That it came after says when, not why: a holdout says why.", "dim")
    return {f"{kind} {match}": _told(program, told) for (kind, match), told in sorted(found.items())}


def _told(program: Program, told: Brought) -> dict[str, Any]:
    amount = None if told.amount is None else format_minor(told.amount, program.decimals)
    return {"count": told.count, "amount": amount, "median_lag_days": round(told.lag / DAY, 2)}


def _money(program: Program, amount: int) -> str:
    return money(format_minor(amount, program.decimals), program.currency)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.0f} %"
