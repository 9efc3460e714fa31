"""What comes out of the rounds: medians, spread and ratios, as a table, and beside those of another run."""

from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.results import Numbers, machine_line

KIZUNA = "kizuna"

#: What Kizuna's whole rate is to be at least, of a peer's; docs/performance.md has them.
TARGETS: dict[str, dict[str, float]] = {
    "grocery": {"folded": 0.7, "faust": 25.0, "quixstreams": 1.6, "bytewax": 1.0, "kafka-streams": 0.8},
    "made": {"folded": 0.7, "faust": 12.0, "quixstreams": 1.0},
}

_MIB = 2**20


def summary(rounds: dict[str, list[Numbers]]) -> dict[str, Numbers]:
    """Median and spread by peer; `of_peer` is Kizuna's whole rate over the peer's, of one round each.

    Peers without a round are left out, and so is `of_peer` where Kizuna has none.
    """
    kizuna = rounds.get(KIZUNA, [])
    told: dict[str, Numbers] = {}
    for name, taken in rounds.items():
        if not taken:
            continue
        told[name] = {
            "events": taken[0]["events"],
            "whole": _spread([numbers["whole_per_second"] for numbers in taken]),
            "steady": _spread([numbers["steady_per_second"] for numbers in taken]),
            "cpu": {
                process: _spread([numbers["cpu_us_per_event"][process] for numbers in taken])
                for process in ("peer", "broker", "redis")
            },
            "memory": _spread([numbers["memory_bytes"] for numbers in taken]),
            "redis": _spread([numbers["redis_bytes"] for numbers in taken]),
            "changes": taken[-1]["changes"],
        }
        pairs = list(zip(kizuna, taken, strict=False))
        if name != KIZUNA and pairs:
            told[name]["of_peer"] = _spread([k["whole_per_second"] / p["whole_per_second"] for k, p in pairs])
    return told


def _spread(values: list[float]) -> Numbers:
    return {"median": median(values), "min": min(values), "max": max(values)}


def show(told: Numbers, console: Console) -> None:
    """A table for people."""
    rounds = max(map(len, told["rounds"].values()))
    title = f"{rounds} rounds of {told['events']:,} purchases: {told['title']}"
    console.print(_rates(told, title))
    console.print(_costs(told, "what it costs, medians"))
    for name, why in told["failed"].items():
        console.print(f"no number of {name}: {why}", markup=False, style="red")
    console.print(
        f"{told['customers']:,} customers, {told['changes']:,} changes at purchases. events/s: of all, until "
        "everything is published; steady: without the first fifth"
    )
    for name in told["summary"]:
        console.print(f"  {told['peers'][name]['title']}: {told['peers'][name]['guarantees']}")
    console.print(machine_line(told["machine"]))


def _rates(told: Numbers, title: str) -> Table:
    table = _table(title, "events/s", "min – max", "steady", "Kizuna / it", "min – max", "to be")
    targets = TARGETS.get(told["input"], {})
    for name, numbers in told["summary"].items():
        of_peer = numbers.get("of_peer")
        of = told["peers"][name]["title"]
        if numbers["events"] != told["events"]:
            of += f" ({numbers['events']:,} events)"
        table.add_row(
            of,
            f"{numbers['whole']['median']:,.0f}",
            f"{numbers['whole']['min']:,.0f} – {numbers['whole']['max']:,.0f}",
            f"{numbers['steady']['median']:,.0f}",
            f"{of_peer['median']:.2f}" if of_peer else "",
            f"{of_peer['min']:.2f} – {of_peer['max']:.2f}" if of_peer else "",
            _verdict(of_peer, targets.get(name)),
        )
    return table


def _costs(told: Numbers, title: str) -> Table:
    table = _table(title, "CPU, µs/event", "broker", "Redis", "all three", "memory, MiB", "in Redis, MiB")
    for name, numbers in told["summary"].items():
        cpu = {process: spread["median"] for process, spread in numbers["cpu"].items()}
        table.add_row(
            told["peers"][name]["title"],
            *(f"{cpu[process]:.1f}" for process in ("peer", "broker", "redis")),
            f"{sum(cpu.values()):.1f}",
            f"{numbers['memory']['median'] / _MIB:,.0f}",
            f"{numbers['redis']['median'] / _MIB:,.0f}",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _verdict(of_peer: Numbers | None, target: float | None) -> str:
    if target is None or of_peer is None:
        return ""
    reached = of_peer["median"] >= target
    return f"{target:g}" if reached else f"[red]{target:g}[/red]"


def compare(told: Numbers, before: Numbers, console: Console) -> None:
    """This run beside another one, in a table. The machine may have been another or a busier one, so what counts is how
    the ratios have moved, which were taken within one run each."""
    columns = "events/s then", "now", "now / then", "Kizuna / it then", "now", "now / then"
    table = _table(f"beside the run of {before['at']}", *columns)
    for row in compared(told, before):
        rate, ratio = row["whole"], row["of_peer"]
        table.add_row(
            told["peers"][row["name"]]["title"],
            *(f"{value:,.0f}" for value in rate[:2]),
            f"{rate[1] / rate[0]:.2f}",
            *(
                (f"{ratio[0]:.2f}", f"{ratio[1]:.2f}", f"{ratio[1] / ratio[0]:.2f}")
                if ratio
                else ("", "", "")
            ),
        )
    console.print(table)
    for key in ("input", "events"):
        if told[key] != before[key]:
            console.print(f"[red]{key} differ[/red]: {before[key]} then, {told[key]} now")


def compared(told: Numbers, before: Numbers) -> list[dict[str, Any]]:
    """By peer that both runs have: medians then and now, of the whole rate and of Kizuna's over it (None: itself)."""
    rows = []
    for name, now in told["summary"].items():
        then = before["summary"].get(name)
        if then is None:
            continue
        ratio = None
        if "of_peer" in now and "of_peer" in then:
            ratio = then["of_peer"]["median"], now["of_peer"]["median"]
        rows.append(
            {"name": name, "whole": (then["whole"]["median"], now["whole"]["median"]), "of_peer": ratio}
        )
    return rows
