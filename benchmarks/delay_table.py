"""Delays by what was going on, in a table."""

from collections.abc import Mapping

from rich.table import Table

from benchmarks.results import Numbers

_COLUMNS = ("", "s", "probes", "p50", "p90", "p99", "p99 by 10 s, min – median – max", "max")


def delay_table(title: str) -> Table:
    """An empty one; what is told in it is of `benchmarks.phases.summary`."""
    table = Table(title=title)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    return table


def add_delays(table: Table, name: str, numbers: Numbers) -> None:
    """A row: milliseconds, with a decimal where they are few."""
    spread = numbers.get("p99_spread_ms")
    told = "" if spread is None else " – ".join(_few(spread[key]) for key in ("min", "median", "max"))
    p50, p90, p99, longest = (
        _few(numbers[key]) if key in numbers else "" for key in ("p50_ms", "p90_ms", "p99_ms", "max_ms")
    )
    table.add_row(name, f"{numbers['seconds']:.1f}", f"{numbers['probes']:,}", p50, p90, p99, told, longest)


def _few(ms: float) -> str:
    return f"{ms:.1f}" if ms < 10 else f"{ms:,.0f}"


def cores_line(cores: Mapping[str, float]) -> str:
    """How many cores each process kept busy."""
    return ", ".join(f"{what} {busy:.2f}" for what, busy in cores.items()) or "too short to tell"
