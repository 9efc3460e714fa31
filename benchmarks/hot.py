"""`make bench ARGS=hot`: whether one customer with very many orders slows the others down. See docs/performance.md."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks.hot_catching_up import CatchingUp
from benchmarks.hot_live import Live
from benchmarks.orders import write_program
from benchmarks.results import Numbers, machine, machine_line, report
from cli.local_stack import LocalStack
from streams.topics import DEFAULT_PARTITIONS

#: By what share the neighbours may be slower for a hot customer, beyond what as many events of others would cost.
TARGET = 0.10

PARTS = ("catching-up", "live")
#: Partitions: one, in which everybody is a neighbour, and as many as there are usually.
LAYOUTS = (1, DEFAULT_PARTITIONS)
_WINDOW = 365


@click.command()
@click.option(
    "--orders", type=click.IntRange(100), default=50_000, show_default=True, help="Of the hot customer."
)
@click.option(
    "--share",
    type=click.FloatRange(0.001, 1.0),
    default=0.05,
    show_default=True,
    help="Events of the hot customer by event of its neighbours.",
)
@click.option(
    "--events",
    type=click.IntRange(5_000),
    default=300_000,
    show_default=True,
    help="Of the neighbours, catching up.",
)
@click.option(
    "--rate", type=click.IntRange(100), default=1_000, show_default=True, help="The same live, in a second."
)
@click.option(
    "--seconds", type=click.IntRange(2), default=20, show_default=True, help="Of each part of live."
)
@click.option(
    "--rounds", type=click.IntRange(1, 50), default=5, show_default=True, help="With and without, in turn."
)
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Which, separated by commas.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
def hot(
    orders: int, share: float, events: int, rate: int, seconds: int, rounds: int, parts: str, as_json: bool
) -> None:
    """Measure neighbours of a customer with 50,000 orders: catching up, and live, with and without its events."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.width = max(console.width, 120)  # for the tables, also where the output is no terminal
    wanted = [part.strip() for part in parts.split(",")]
    if not wanted or not set(wanted) <= set(PARTS):
        raise click.UsageError(f"--parts takes some of {', '.join(PARTS)}")

    def run() -> Numbers:
        told: Numbers = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "orders": orders,
            "share": share,
            "events": events,
            "rate": rate,
        }
        with LocalStack() as stack:
            program = write_program(stack.data_dir / "program.toml", _WINDOW, _WINDOW)
            if "catching-up" in wanted:
                told["catching_up"] = _catching_up(stack, program, orders, share, events, rounds, console)
            if "live" in wanted:
                told["live"] = {
                    str(layout): live_summary(
                        # Not kept: its producer would go on telling of a broker that has been stopped.
                        Live(stack, program, layout, orders, share, rate, console).run(seconds, rounds)
                    )
                    for layout in LAYOUTS
                }
        return told

    report(run, _show, console, as_json, "hot-")


def _catching_up(
    stack: LocalStack, program: Path, orders: int, share: float, events: int, rounds: int, console: Console
) -> Numbers:
    """By layout: both kinds of all rounds, and how much slower neighbours were."""
    benches = {layout: CatchingUp(stack, program, layout, orders, share, events) for layout in LAYOUTS}
    taken: dict[str, dict[str, list[Numbers]]] = {
        str(layout): {"without": [], "with": []} for layout in LAYOUTS
    }
    for number in range(1, rounds + 1):
        for layout, bench in benches.items():
            # Who comes first takes turns.
            for kind in ("without", "with") if number % 2 else ("with", "without"):
                numbers = bench.run(kind == "with", number)
                taken[str(layout)][kind].append(numbers)
                console.print(
                    f"round {number}  {layout:>2} partitions, {kind:<7}  "
                    f"{numbers['whole_per_second']:>9,.0f} events/s, {numbers['seconds']:.2f} s, "
                    f"CPU of the worker {numbers['cpu_us_per_event']['workers']:.1f} µs"
                )
    return {
        layout: {
            "rounds": kinds,
            "slowdown": spread(slowdowns(kinds["without"], kinds["with"])),
            "slowdown_cpu": spread(slowdowns(kinds["without"], kinds["with"], cpu=True)),
        }
        for layout, kinds in taken.items()
    }


def slowdowns(without: list[Numbers], with_: list[Numbers], *, cpu: bool = False) -> list[float]:
    """Of each round: by what share the flow took longer than it would have if the hot customer's events had cost what
    others' do, 0.1: a tenth; or by what share it took more `cpu`, of worker, broker and Redis together."""
    if cpu:
        return [
            sum(more["cpu_us_per_event"].values()) / sum(less["cpu_us_per_event"].values()) - 1
            for less, more in zip(without, with_, strict=True)
        ]
    return [
        (more["seconds"] / more["events"]) / (less["seconds"] / less["events"]) - 1
        for less, more in zip(without, with_, strict=True)
    ]


def spread(values: list[float]) -> Numbers:
    """Median, least and most."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def live_summary(told: Numbers) -> Numbers:
    """What was measured live, and by what share neighbours, and others, waited longer: of all rounds together, and the
    spread of the rounds."""
    slower: Numbers = {}
    for group, pooled in told["pooled"].items():
        rounds = [{kind: one[kind][group] for kind in ("without", "with")} for one in told["rounds"]]
        rounds = [one for one in rounds if one["without"]["probes"] and one["with"]["probes"]]
        if not rounds:
            continue  # where there is one partition, all are neighbours
        slower[group] = {
            key: {"pooled": _slower(pooled, key)} | spread([_slower(one, key) for one in rounds])
            for key in ("p50_ms", "p99_ms")
        }
    return told | {"slower": slower}


def _slower(kinds: Numbers, key: str) -> float:
    return float(kinds["with"][key] / kinds["without"][key] - 1)


def _show(told: Numbers, console: Console) -> None:
    if "catching_up" in told:
        table = Table(
            title=f"{told['events']:,} events of neighbours, with and without {told['share']:.0%} more"
        )
        _columns(table, "", "events/s without", "with", "slower, median", "min – max", "CPU")
        for row in _catching_up_rows(told["catching_up"]):
            table.add_row(*row)
        console.print(table)
        worst = max(one["slowdown"]["median"] for one in told["catching_up"].values())
        console.print(f"catching up: {_verdict(worst)}")
    if "live" in told:
        _show_live(told, console)
    console.print(machine_line(told["machine"]))


def _catching_up_rows(layouts: Numbers) -> Iterator[list[str]]:
    for layout, one in layouts.items():
        rates = [
            f"{median(numbers['whole_per_second'] for numbers in one['rounds'][kind]):,.0f}"
            for kind in ("without", "with")
        ]
        slower = one["slowdown"]
        yield [
            _layout(layout),
            *rates,
            f"{slower['median']:+.1%}",
            f"{slower['min']:+.1%} – {slower['max']:+.1%}",
            f"{one['slowdown_cpu']['median']:+.1%}",
        ]


def _show_live(told: Numbers, console: Console) -> None:
    table = Table(title=f"live, {told['rate']:,} events/s of neighbours, milliseconds, all rounds together")
    _columns(
        table, "probes", "p50 without", "with", "p99 without", "with", "p99 slower", "by round, min – max"
    )
    names = {"neighbours": "its own", "others": "others"}
    for layout, live in told["live"].items():
        for group, slower in live["slower"].items():
            pooled = live["pooled"][group]
            table.add_row(
                f"{_layout(layout)}: {names[group]}",
                *(f"{pooled[kind][key]:.1f}" for key in ("p50_ms", "p99_ms") for kind in ("without", "with")),
                f"{slower['p99_ms']['pooled']:+.1%}",
                f"{slower['p99_ms']['min']:+.1%} – {slower['p99_ms']['max']:+.1%}",
            )
    console.print(table)
    for layout, live in told["live"].items():
        cores = {
            kind: median(one[kind]["cores"]["workers"] for one in live["rounds"])
            for kind in ("without", "with")
        }
        console.print(
            f"{_layout(layout)}: the worker takes {cores['without']:.2f} cores without, {cores['with']:.2f} with; "
            f"p99: {_verdict(live['slower']['neighbours']['p99_ms']['pooled'])}"
        )


def _layout(partitions: str) -> str:
    return "one partition" if partitions == "1" else f"{partitions} partitions"


def _columns(table: Table, *names: str) -> None:
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)


def _verdict(slower: float) -> str:
    reached: Any = "reached" if slower <= TARGET else "[red]missed[/red]"
    return f"neighbours {slower:+.1%} slower, of at most {TARGET:.0%}: {reached}"
