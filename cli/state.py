"""`kizuna state`: every customer's state."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.cells import cell_len

from cli.inspecting import inspecting
from cli.options import as_of_option, counted, json_line, json_option, print_lines, settings_options
from cli.progress import progress
from cli.records import shown
from cli.running import run
from streams.settings import Settings

T = TypeVar("T")

#: Lines that are written at a time.
_PART = 1_000


@click.group()
def state() -> None:
    """Every customer's state."""


@state.command(short_help="Show every customer, sorted by customer_id.")
@as_of_option
@settings_options("program", "redis_url", "redis_prefix", "clock")
@json_option
def dump(settings: Settings, as_of: int | None, as_json: bool) -> None:
    """Show every customer, sorted by customer_id, for comparing and for other programs.

    With --json one line each, the same as `kizuna customer` prints. Beside a running worker each customer is
    as the store had it when it was read.
    """
    if as_json:
        lines = run(_read(settings, as_of, json_line))
        ordered = [lines[customer_id] for customer_id in sorted(lines)]
        for start in range(0, len(ordered), _PART):
            print_lines(ordered[start : start + _PART])
    else:
        rows = run(_read(settings, as_of, _row))
        _print([rows[customer_id] for customer_id in sorted(rows)])


async def _read(settings: Settings, as_of: int | None, form: Callable[[dict[str, Any]], T]) -> dict[str, T]:
    # By id: a scan of Redis may name a customer twice.
    found: dict[str, T] = {}
    async with inspecting(settings) as inspection:
        with progress("reading", "customers") as advance:
            async for view in inspection.dump(as_of):
                found[view.customer_id] = form(inspection.line(view))
                advance(len(found), 0)
    return found


_COLUMNS = ("customer", "tier", "seq", "orders", "spent", "last order", "r", "f", "m", "contacts in/out")
#: Of a program with segments.
_MORE_COLUMNS = ("segment", "attachment")


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    contacts = line["contacts"].values()
    inbound, outbound = (sum(counts[way] for counts in contacts) for way in ("inbound", "outbound"))
    return (
        shown(line["customer_id"]),
        shown(line["tier"]),
        *(str(line[name]) for name in ("tier_seq", "frequency", "monetary")),
        "-" if line["last_purchase_at"] is None else line["last_purchase_at"][:19] + "Z",
        *(str(line[name]) for name in ("r", "f", "m")),
        f"{inbound}/{outbound}",
        *([shown(line["segment"] or "-"), str(line["attachment"])] if "segment" in line else []),
    )


def _print(rows: list[tuple[str, ...]]) -> None:
    columns = _COLUMNS + (_MORE_COLUMNS if rows and len(rows[0]) > len(_COLUMNS) else ())
    widths = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [_aligned(row, widths) for row in rows]
    click.secho(_aligned(columns, widths), dim=True)
    for start in range(0, len(lines), _PART):
        click.echo("\n".join(lines[start : start + _PART]))
    click.secho(counted(len(rows), "customer"), dim=True, err=True)


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    return "  ".join(
        cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
    ).rstrip()
