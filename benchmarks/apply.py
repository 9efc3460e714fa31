"""`make bench ARGS=apply`: how long a tier change takes while a store is moved to another program. See
docs/performance.md."""

import json
import os
from datetime import UTC, datetime

import click
from rich.console import Console

from benchmarks.delay_table import add_delays, cores_line, delay_table
from benchmarks.moving import Moving
from benchmarks.results import Numbers, machine, machine_line, show_checks, write
from benchmarks.worker import BenchmarkError
from cli.demo.replay import ReplayError
from cli.local_stack import LocalStack, LocalStackError
from streams.protocols import FatalError
from streams.settings import Settings


@click.command()
@click.option("--customers", type=click.IntRange(10_000), default=200_000, show_default=True)
@click.option(
    "--rate", type=click.IntRange(100, 20_000), default=1_000, show_default=True, help="Events a second."
)
@click.option(
    "--usual", type=click.IntRange(10), default=40, show_default=True, help="Seconds before and after."
)
@click.option(
    "--move-rate",
    type=click.IntRange(1),
    default=Settings().move_rate,
    show_default=True,
    help="KIZUNA_MOVE_RATE of the workers.",
)
@click.option(
    "--kills",
    type=click.IntRange(0, 5),
    default=2,
    show_default=True,
    help="Of worker and command, on the way.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
def apply(customers: int, rate: int, usual: int, move_rate: int, kills: int, as_json: bool) -> None:
    """Measure how long tier changes take while `kizuna program apply` moves every customer.

    Worker and command are killed on the way. Ends with 1 where a customer was not moved exactly once or
    an event was lost.
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.width = max(console.width, 120)  # for the table, also where the output is no terminal
    at, load_before = datetime.now(UTC), os.getloadavg()
    try:
        with LocalStack() as stack:
            moving = Moving(stack, console, customers, rate, usual, move_rate, kills)
            told = {
                "at": at.isoformat(timespec="seconds"),
                "machine": machine() | {"load_average": load_before},
                **moving.run(),
            }
    except (BenchmarkError, LocalStackError, ReplayError, FatalError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        raise SystemExit(130) from None
    if as_json:
        click.echo(json.dumps(told))
    else:
        _show(told, console)
    write(told, console, "apply-")
    if not all(check["holds"] for check in told["checks"]):
        raise SystemExit(1)


_NAMES = {
    "usual": "usual, before",
    "moving": "customers are moved",
    "after": "usual, after",
    "handover": "handover to the new version",
}


def _show(told: Numbers, console: Console) -> None:
    table = delay_table(
        f"{told['customers']:,} customers moved beside {told['rate']:,} events/s, delays in ms"
    )
    for name, numbers in told["phases"].items():
        add_delays(table, _NAMES[name], numbers)
    table.add_section()
    for name, numbers in told["gaps"].items():
        add_delays(table, _NAMES.get(name, name), numbers)
    console.print(table)
    for name, numbers in told["phases"].items():
        console.print(f"cores busy, {_NAMES[name]}: {cores_line(numbers['cores'])}")
    for name, ratio in told["ratio_p99"].items():
        console.print(
            f"p99 while customers are moved / p99 {_NAMES[name]}: {ratio['whole']:.1f}; its slices by the other's "
            f"median slice: {ratio['min']:.1f} – {ratio['median']:.1f} – {ratio['max']:.1f}"
        )
    console.print(
        "moved: only the time in which a worker holds the shards; a change on its way in a handover or after a kill "
        "is counted there, until the first change of the new worker is read"
    )
    console.print(
        f"{told['moved']:,} customers moved in {told['apply_seconds']:.0f} s from the first `program apply` to the "
        f"end of the last, {told['moved_per_second']:,.0f}/s while a worker held the shards; "
        f"{told['changes']:,} changes published"
    )
    console.print(f"the load was behind its rate by {told['load_behind_ms']:.0f} ms at most")
    console.print(machine_line(told["machine"]))
    show_checks(told["checks"], console)
