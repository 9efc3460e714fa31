"""What came of `make bench ARGS=scale`: medians, and whether three workers use the machine as well as one does."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.results import Numbers, machine_line

#: Of what the machine's cores would carry at the price of one worker, three workers reach at least this share.
TARGET = 0.9
#: The most events of one of three workers, by the fewest of another.
EVEN = 1.3


def summary(setups: Mapping[str, Any], taken: Mapping[str, Sequence[Numbers]], cores: int) -> Numbers:
    """By setup (with `partitions`, `workers`, `cluster`): median and spread of its rate, and by what it is judged."""
    told: Numbers = {}
    for name, setup in setups.items():
        rounds = taken[name]
        one = taken[f"{setup.partitions}-1"]
        told[name] = {
            "whole_per_second": spread([each["whole_per_second"] for each in rounds]),
            "to_one_worker": spread(
                [a["whole_per_second"] / b["whole_per_second"] for a, b in _pairs(rounds, one)]
            ),
            "of_the_machine": spread([of_the_machine(a, b, cores) for a, b in _pairs(rounds, one)]),
            "of_what_was_free": spread(
                [of_the_machine(a, b, cores - a["other_cores"]) for a, b in _pairs(rounds, one)]
            ),
            "uneven": spread(
                [max(each["events_by_worker"]) / min(each["events_by_worker"]) for each in rounds]
            ),
            "cores": {
                process: median(each["cores"][process] for each in rounds) for process in rounds[0]["cores"]
            },
            "cpu_us_per_event": {
                process: median(each["cpu_us_per_event"][process] for each in rounds)
                for process in rounds[0]["cpu_us_per_event"]
            },
            "other_cores": median(each["other_cores"] for each in rounds),
        }
        if all("rebuild" in each for each in rounds):
            rates = [each["rebuild"]["per_second"] for each in rounds]
            told[name]["rebuild_per_second"] = spread(rates)
            told[name]["rebuild_to_worker"] = spread(
                [rate / each["whole_per_second"] for rate, each in zip(rates, rounds, strict=True)]
            )
    return told


def of_the_machine(several: Numbers, one: Numbers, cores: float) -> float:
    """The rate by what so many cores would carry if each event cost what it costs with one worker: workers,
    broker and Redis together. Where one worker takes all of the machine, its own rate is that."""
    worth = one["whole_per_second"] * max(1.0, cores / sum(one["cores"].values()))
    return float(several["whole_per_second"] / worth)


def spread(values: Sequence[float]) -> Numbers:
    """Median, least and most."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def _pairs(rounds: Sequence[Numbers], one: Sequence[Numbers]) -> list[tuple[Numbers, Numbers]]:
    return list(zip(rounds, one, strict=True))


def show(told: Numbers, console: Console) -> None:
    """Print the table and the verdicts."""
    table = Table(title=f"{told['events']:,} purchases that all workers find at one instant, medians")
    columns = (
        *("partitions", "workers", "Redis", "events/s", "min – max", "to one", "of machine", "of free"),
        *("cores: workers", "broker", "Redis", "other", "uneven"),
    )
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for name, setup in told["setups"].items():
        one = told["summary"][name]
        rate, cores = one["whole_per_second"], one["cores"]
        table.add_row(
            str(setup["partitions"]),
            str(setup["workers"]),
            "cluster" if setup["cluster"] else "one",
            f"{rate['median']:,.0f}",
            f"{rate['min']:,.0f} – {rate['max']:,.0f}",
            f"{one['to_one_worker']['median']:.2f}",
            f"{one['of_the_machine']['median']:.2f}",
            f"{one['of_what_was_free']['median']:.2f}",
            *(f"{cores[process]:.2f}" for process in ("workers", "broker", "redis")),
            f"{one['other_cores']:.2f}",
            f"{one['uneven']['median']:.2f}",
        )
    console.print(table)
    for name, setup in told["setups"].items():
        one = told["summary"][name]
        if "rebuild_per_second" in one:
            rate, ratio = one["rebuild_per_second"], one["rebuild_to_worker"]["median"]
            console.print(
                f"kizuna rebuild, {setup['partitions']} partitions: {rate['median']:,.0f} events/s "
                f"({rate['min']:,.0f} – {rate['max']:,.0f}), {ratio:.2f} of one worker catching up"
            )
    for name, setup in told["setups"].items():
        if setup["workers"] == 3:
            _judge(told["summary"][name], setup, console)
    console.print(machine_line(told["machine"]))


def _judge(one: Numbers, setup: Numbers, console: Console) -> None:
    share, uneven = one["of_the_machine"]["median"], one["uneven"]["max"]
    where = f"three workers, {setup['partitions']} partitions{', cluster' if setup['cluster'] else ''}"
    console.print(
        f"{where}: {_word(share >= TARGET)} {TARGET:g} of the machine at one worker's price ({share:.2f}); "
        f"{_word(uneven <= EVEN)} {EVEN:g} of the most by the fewest events ({uneven:.2f} in the worst round)"
    )


def _word(reached: bool) -> str:
    return "reached" if reached else "[red]missed[/red]"
