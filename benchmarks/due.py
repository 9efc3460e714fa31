"""`make bench ARGS=due`: what a million customers cost who do nothing, and how soon it is told when very many fall at
once. See docs/performance.md."""

import os
from datetime import UTC, datetime

import click
from rich.console import Console

from benchmarks.delay_table import add_delays, cores_line, delay_table
from benchmarks.falling import Falling
from benchmarks.results import Numbers, machine, machine_line, report, show_checks, verdict
from cli.local_stack import LocalStack

#: Per cent of a core that the worker may take when idle, seconds within which all falls are to be read, and
#: milliseconds of the p99 of live events meanwhile.
TARGETS = {"idle_percent": 5.0, "fallen_seconds": 30.0, "p99_ms": 1_000.0}


@click.command()
@click.option(
    "--customers",
    type=click.IntRange(1_000),
    default=1_000_000,
    show_default=True,
    help="All with a due time.",
)
@click.option(
    "--falling", type=click.IntRange(100), default=100_000, show_default=True, help="Of them, at one instant."
)
@click.option(
    "--rate", type=click.IntRange(10, 20_000), default=500, show_default=True, help="Live events a second."
)
@click.option("--idle", type=click.IntRange(5), default=60, show_default=True, help="Seconds without events.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
def due(customers: int, falling: int, rate: int, idle: int, as_json: bool) -> None:
    """Measure what idle customers with due times cost, and how soon very many falls at once are told.

    Ends with 1 where somebody who is to fall did not do so exactly once.
    """
    if falling > customers // 2:
        raise click.BadParameter("at most half of the customers", param_hint="--falling")
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.width = max(console.width, 120)  # for the table, also where the output is no terminal
    found: list[Numbers] = []

    def run() -> Numbers:
        at, load_before = datetime.now(UTC), os.getloadavg()
        with LocalStack() as stack:
            measured = Falling(stack, console, customers, falling, rate, idle).run()
        found.append(
            {
                "at": at.isoformat(timespec="seconds"),
                "machine": machine() | {"load_average": load_before},
                "targets": TARGETS,
                **measured,
            }
        )
        return found[0]

    report(run, _show, console, as_json, "due-")
    if not all(one["holds"] for one in found[0]["checks"]):
        raise SystemExit(1)


_NAMES = {"before": "before", "falling": "while they fall", "after": "after"}


def _show(told: Numbers, console: Console) -> None:
    table = delay_table(
        f"{told['falling']:,} of {told['customers']:,} customers fall beside {told['rate']:,} events/s, delays in ms"
    )
    for key, name in _NAMES.items():
        add_delays(table, name, told["phases"][key])
    console.print(table)
    for key, name in _NAMES.items():
        console.print(f"cores busy, {name}: {cores_line(told['phases'][key]['cores'])}")
    idle, fallen, targets = told["idle"], told["fallen_after_seconds"], told["targets"]
    busy = ", ".join(f"{what} {cores * 100:.1f}" for what, cores in idle["cores"].items())
    console.print(
        f"idle for {idle['seconds']} s, per cent of a core: {busy}; worker and Redis together "
        f"{idle['worker_and_redis'] * 100:.1f}; Redis holds {idle['redis_bytes'] / 2**20:,.0f} MiB"
    )
    console.print(
        f"falls read: the first after {fallen['first']:.1f} s, half after {fallen['half']:.1f} s, all after "
        f"{fallen['all']:.1f} s; loaded at {told['loaded_per_second']:,.0f} customers/s; the load was behind its rate "
        f"by {told['load_behind_ms']:.0f} ms at most"
    )
    verdict("the idle worker", idle["cores"]["worker"] * 100, targets["idle_percent"], "% of a core", console)
    verdict("all falls", fallen["all"], targets["fallen_seconds"], "s", console)
    verdict(
        "p99 of live events while they fall",
        told["phases"]["falling"]["p99_ms"],
        targets["p99_ms"],
        "ms",
        console,
    )
    console.print(machine_line(told["machine"]))
    show_checks(told["checks"], console)
