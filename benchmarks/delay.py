"""`make bench ARGS=delay`: how long it takes from a purchase to its tier change in a subscriber, at half of the full
rate and when idle, beside a bare produce and consume. See docs/performance.md."""

import os
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console

from benchmarks.delay_table import add_delays, cores_line, delay_table
from benchmarks.delaying import Delay, Sizes
from benchmarks.results import Numbers, machine, machine_line, report, verdict
from cli.local_stack import LocalStack

#: Milliseconds within which half and 99 of 100 changes are to be there, by how much their p99 may exceed that of a bare
#: produce and consume, and milliseconds of the p99 of single events when idle.
TARGETS = {"p50_ms": 40.0, "p99_ms": 150.0, "ratio_p99": 5.0, "single_p99_ms": 150.0}


@click.command()
@click.option(
    "--of",
    type=click.Choice(["year", "households"]),
    default="year",
    show_default=True,
    help="Whose full rate the flow is half of: that of the demo's year, or of the flow's own households.",
)
@click.option(
    "--events",
    type=click.IntRange(10_000),
    default=600_000,
    show_default=True,
    help="Of the demo's year.",
)
@click.option(
    "--rate",
    type=click.FloatRange(50),
    default=None,
    help="Events a second, instead of half of a full rate.",
)
@click.option(
    "--seconds", type=click.IntRange(6), default=60, show_default=True, help="Of each kind, in slices."
)
@click.option(
    "--warm-up", type=click.IntRange(0), default=30, show_default=True, help="Seconds of flow before."
)
@click.option("--idle", type=click.IntRange(0), default=300, show_default=True, help="Seconds, then singles.")
@click.option("--singles", type=click.IntRange(1), default=200, show_default=True, help="One at a time.")
@click.option(
    "--copies",
    type=click.IntRange(1, 50),
    default=8,
    show_default=True,
    help="Of the demo's 2,469 households in the flow.",
)
@click.option(
    "--part", type=click.IntRange(1, 20), default=10, show_default=True, help="Milliseconds of flow at once."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
def delay(as_json: bool, **sizes: Any) -> None:
    """Measure the delay from a purchase to its tier change, at half of the full rate and when idle.

    Ends with 1 where nothing was measured, as where the worker does not keep up with the flow.
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.width = max(console.width, 120)  # for the table, also where the output is no terminal

    def run() -> Numbers:
        at, load_before = datetime.now(UTC), os.getloadavg()
        with LocalStack() as stack:
            measured = Delay(stack, console, Sizes(**sizes)).run()
        return {
            "at": at.isoformat(timespec="seconds"),
            "machine": machine() | {"load_average": load_before},
            "targets": TARGETS,
            **measured,
        }

    report(run, _show, console, as_json, "delay-")


_NAMES = {"bare": "bare produce and consume", "worker": "through the worker"}


def _show(told: Numbers, console: Console) -> None:
    flow, targets = told["flow_per_second"], told["targets"]
    table = delay_table(f"milliseconds from send to read, {flow:,.0f} events/s")
    for key, name in _NAMES.items():
        add_delays(table, name, told["delays"][key])
    table.add_section()
    add_delays(table, f"single events after {told['idle_seconds']} s", told["singles"])
    console.print(table)
    for key, name in _NAMES.items():
        console.print(f"cores busy, {name}: {cores_line(told['delays'][key]['cores'])}")
    console.print(f"cores busy, single events: {cores_line(told['singles']['cores'])}")
    full = ", ".join(f"of the {whose} {rate:,.0f}" for whose, rate in told["full_per_second"].items())
    console.print(
        f"full rate, events/s: {full}; of {told['events']:,} events of "
        f"the flow to the worker came {told['changes']:,} changes; the worker was behind by "
        f"{told['behind_seconds']:.2f} s of it at most, the flow behind its rate by "
        f"{max(told['slips_ms'].values()):.0f} ms"
    )
    pairs = told["ratio_p99_by_pair"]
    console.print(f"p99 by the bare p99, by pairs of slices: {', '.join(f'{one:.1f}' for one in pairs)}")
    worker = told["delays"]["worker"]
    verdict("p50", worker["p50_ms"], targets["p50_ms"], "ms", console)
    verdict("p99", worker["p99_ms"], targets["p99_ms"], "ms", console)
    verdict("p99 by the bare p99", told["ratio_p99"], targets["ratio_p99"], "times", console)
    verdict("single events, p99", told["singles"]["p99_ms"], targets["single_p99_ms"], "ms", console)
    console.print(machine_line(told["machine"]))
