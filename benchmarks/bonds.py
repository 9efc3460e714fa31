"""`make bench ARGS=bonds`: one worker with tiers only, and with every section about bonds, in turn. See
docs/performance.md."""

import asyncio
import os
from datetime import UTC, datetime
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.load import everything
from benchmarks.results import RESULTS, Numbers, machine, machine_line, report
from benchmarks.worker import create_all, forget_outputs, measure, settings_on
from cli.demo.publisher import Publisher
from cli.demo.replay import WorkerProcess
from cli.local_jars import ROOT
from cli.local_stack import LocalStack
from streams.preflight import read_program
from streams.settings import Settings
from streams.topics import DEFAULT_PARTITIONS

#: What the rate with all sections is to be of that with tiers only.
TARGET = 0.5

_PROGRAMS = {
    "tiers only": ROOT / "examples" / "grocery.toml",
    "all sections": ROOT / "examples" / "loyal.toml",
}


@click.command()
@click.option("--rounds", type=click.IntRange(1, 50), default=5, show_default=True, help="Of both, in turn.")
@click.option(
    "--events",
    type=click.IntRange(10_000),
    default=330_000,
    show_default=True,
    help="Purchases and touchpoints in each round.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
def bonds(rounds: int, events: int, as_json: bool) -> None:
    """Measure what segments, scenarios, caps and attribution cost: the same events, with them and without."""
    console = Console(stderr=as_json, highlight=False)
    report(lambda: _run(rounds, events, console), _show, console, as_json, "bonds-")


def _run(rounds: int, events: int, console: Console) -> Numbers:
    console.print(f"making {events:,} events of the demo's year")
    load = everything(events)
    taken: dict[str, list[Numbers]] = {name: [] for name in _PROGRAMS}
    with LocalStack() as stack:
        settings = settings_on(stack)
        create_all(settings, DEFAULT_PARTITIONS)
        console.print(f"publishing them to {DEFAULT_PARTITIONS} partitions")
        asyncio.run(Publisher(settings, DEFAULT_PARTITIONS, load).run())
        del load
        found = machine()
        for number in range(1, rounds + 1):
            for name, program in _PROGRAMS.items():
                numbers = _worker(stack, settings.but(program=str(program)), events, f"{number}-{name[:3]}")
                taken[name].append(numbers)
                console.print(
                    f"round {number}  {name:<12}  {numbers['whole_per_second']:>9,.0f} events/s, "
                    f"{numbers['changes']:,} records published, load before {numbers['load_before']:.1f}"
                )
    pairs = list(zip(taken["all sections"], taken["tiers only"], strict=True))
    ratios = [every["whole_per_second"] / tiers["whole_per_second"] for every, tiers in pairs]
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": found,
        "events": events,
        "partitions": DEFAULT_PARTITIONS,
        "target": TARGET,
        "ratio": {"median": median(ratios), "min": min(ratios), "max": max(ratios)},
        "rounds": taken,
    }


def _worker(stack: LocalStack, settings: Settings, events: int, name: str) -> Numbers:
    # A group, a store and outputs of its own: the same inputs are read from the beginning.
    forget_outputs(settings, DEFAULT_PARTITIONS)
    fresh = settings.but(group=f"bonds-{name}", redis_prefix=f"bonds-{name}")
    process = WorkerProcess(stack.data_dir / "worker", fresh, RESULTS / f"bonds-{name}.log")
    load = os.getloadavg()[0]
    program = read_program(fresh.program)
    return {"load_before": load} | asyncio.run(
        measure(stack, fresh, program, DEFAULT_PARTITIONS, events, process)
    )


def _show(told: Numbers, console: Console) -> None:
    table = Table(title=f"{len(told['rounds']['tiers only'])} rounds of {told['events']:,} events")
    for column in ("", "events/s, median", "min – max", "records/s", "CPU of the worker, µs/event"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    for name, rounds in told["rounds"].items():
        rates = [numbers["whole_per_second"] for numbers in rounds]
        table.add_row(
            name,
            f"{median(rates):,.0f}",
            f"{min(rates):,.0f} – {max(rates):,.0f}",
            f"{_median(rounds, 'changes_per_second'):,.0f}",
            f"{median([numbers['cpu_us_per_event']['worker'] for numbers in rounds]):.1f}",
        )
    console.print(table)
    ratio = told["ratio"]
    verdict = "reached" if ratio["median"] >= told["target"] else "[red]missed[/red]"
    console.print(
        f"all sections / tiers only: {ratio['median']:.2f} ({ratio['min']:.2f} – {ratio['max']:.2f}), "
        f"target {told['target']}: {verdict}"
    )
    console.print(machine_line(told["machine"]))


def _median(rounds: list[Numbers], key: str) -> Any:
    return median([numbers[key] for numbers in rounds])
