"""`make bench`: rounds of a bare reader and of one worker, in turn, on one broker. See docs/performance.md.

`make bench ARGS=apply`, `ARGS=bonds`, `ARGS=contact`, `ARGS=hot`, `ARGS=memory`, `ARGS=peers` and `ARGS=scale` are
other benchmarks, in modules of these names.
`make bench ARGS=apply`, and likewise `bonds`, `contact`, `delay`, `due` and `peers`, are other benchmarks, in modules
of these names.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median
from types import FrameType
from typing import Never

import click
from rich.console import Console
from rich.table import Table

from benchmarks.apply import apply
from benchmarks.bonds import bonds
from benchmarks.contact import contact
from benchmarks.delay import delay
from benchmarks.due import due
from benchmarks.hot import hot
from benchmarks.load import purchases
from benchmarks.memory import memory
from benchmarks.peers.command import peers_command
from benchmarks.results import RESULTS, Numbers, machine, machine_line, report
from benchmarks.scale import scale
from benchmarks.worker import BenchmarkError, create_all, forget_outputs, measure, settings_on
from cli.demo.publisher import Publisher
from cli.demo.replay import WorkerProcess
from cli.local_jars import ROOT
from cli.local_stack import LocalStack
from streams.preflight import read_program
from streams.protocols import PURCHASES
from streams.settings import Settings
from streams.topics import DEFAULT_PARTITIONS

#: What one worker is to carry on two cores, events per second.
TARGET = 40_000

_PROGRAM = ROOT / "examples" / "grocery.toml"


@click.group(invoke_without_command=True)
@click.option("--rounds", type=click.IntRange(1, 50), default=3, show_default=True, help="Of both, in turn.")
@click.option(
    "--events",
    type=click.IntRange(10_000),
    default=600_000,
    show_default=True,
    help="Purchases in each round.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
@click.pass_context
def main(context: click.Context, rounds: int, events: int, as_json: bool) -> None:
    """Measure one worker, beside a bare reader, on servers of its own; or what a command names."""
    signal.signal(signal.SIGTERM, _interrupt)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every retry on new topics
    if context.invoked_subcommand is not None:
        return
    console = Console(stderr=as_json, highlight=False)
    report(lambda: _run(rounds, events, console), _show, console, as_json)


main.add_command(apply)
main.add_command(bonds)
main.add_command(contact)
main.add_command(hot)
main.add_command(memory)
main.add_command(delay)
main.add_command(due)
main.add_command(peers_command)
main.add_command(scale)


def _interrupt(number: int, frame: FrameType | None) -> Never:
    raise KeyboardInterrupt


def _run(rounds: int, events: int, console: Console) -> Numbers:
    console.print(f"making {events:,} purchases of the demo's year")
    load = purchases(events)
    size = sum(len(event.value) for event in load) / len(load)
    with LocalStack() as stack:
        settings = settings_on(stack, str(_PROGRAM))
        create_all(settings, DEFAULT_PARTITIONS)
        console.print(f"publishing them to {DEFAULT_PARTITIONS} partitions, {size:.0f} bytes each")
        asyncio.run(Publisher(settings, DEFAULT_PARTITIONS, load).run())
        del load
        found = machine()
        bare: list[Numbers] = []
        worker: list[Numbers] = []
        for number in range(1, rounds + 1):
            bare.append(_bare(settings, events))
            _tell(console, f"round {number}  bare reader", bare[-1])
            worker.append(_worker(stack, settings, events, number))
            _tell(console, f"round {number}  worker     ", worker[-1])
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": found,
        "events": events,
        "bytes_per_event": round(size),
        "partitions": DEFAULT_PARTITIONS,
        "target_per_second": TARGET,
        "summary": _summary(bare, worker),
        "bare": bare,
        "worker": worker,
    }


def _bare(settings: Settings, events: int) -> Numbers:
    arguments = [settings.brokers, settings.topic(PURCHASES), str(DEFAULT_PARTITIONS), str(events)]
    load = os.getloadavg()[0]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError("the bare reader failed")
    told: Numbers = json.loads(done.stdout)
    return {"load_before": load} | told


def _worker(stack: LocalStack, settings: Settings, events: int, number: int) -> Numbers:
    # A group, a store and outputs of its own: the same inputs are read from the beginning.
    forget_outputs(settings, DEFAULT_PARTITIONS)
    fresh = settings.but(group=f"bench-{number}", redis_prefix=f"bench-{number}")
    log = RESULTS / f"worker-{number}.log"
    process = WorkerProcess(stack.data_dir / "worker", fresh, log)
    load = os.getloadavg()[0]
    program = read_program(settings.program)
    return {"load_before": load} | asyncio.run(
        measure(stack, fresh, program, DEFAULT_PARTITIONS, events, process)
    )


def _tell(console: Console, what: str, numbers: Numbers) -> None:
    console.print(
        f"{what}  whole {numbers['whole_per_second']:>9,.0f} events/s, "
        f"steady {numbers['steady_per_second']:>9,.0f}, load before {numbers['load_before']:.1f}"
    )


def _summary(bare: list[Numbers], worker: list[Numbers]) -> dict[str, Numbers]:
    """Median and spread of everything over the rounds."""
    taken: dict[str, tuple[str, Callable[[Numbers, Numbers], float]]] = {
        "bare_steady": ("events/s", lambda b, _: b["steady_per_second"]),
        "bare_whole": ("events/s", lambda b, _: b["whole_per_second"]),
        "worker_steady": ("events/s", lambda _, w: w["steady_per_second"]),
        "worker_whole": ("events/s", lambda _, w: w["whole_per_second"]),
        "ratio_steady": ("of bare", lambda b, w: w["steady_per_second"] / b["steady_per_second"]),
        "ratio_whole": ("of bare", lambda b, w: w["whole_per_second"] / b["whole_per_second"]),
        "changes": ("changes/s", lambda _, w: w["changes_per_second"]),
        "after_last_commit": ("s", lambda _, w: w["seconds_after_last_commit"]),
        "bare_cpu": ("µs/event", lambda b, _: b["cpu_us_per_event"]),
        "worker_cpu": ("µs/event", lambda _, w: w["cpu_us_per_event"]["worker"]),
        "broker_cpu": ("µs/event", lambda _, w: w["cpu_us_per_event"]["broker"]),
        "redis_cpu": ("µs/event", lambda _, w: w["cpu_us_per_event"]["redis"]),
        "other_cores": ("cores", lambda _, w: w["other_cores"]),
    }
    summary = {}
    for name, (unit, value) in taken.items():
        values = [value(*pair) for pair in zip(bare, worker, strict=True)]
        summary[name] = {"unit": unit, "median": median(values), "min": min(values), "max": max(values)}
    return summary


_NAMES = {
    "bare_steady": "bare reader, steady",
    "bare_whole": "bare reader, whole",
    "worker_steady": "worker, steady",
    "worker_whole": "worker, whole",
    "ratio_steady": "worker / bare, steady",
    "ratio_whole": "worker / bare, whole",
    "changes": "changes published, whole",
    "after_last_commit": "last commit to published",
    "bare_cpu": "CPU, bare reader",
    "worker_cpu": "CPU, worker",
    "broker_cpu": "CPU, broker beside it",
    "redis_cpu": "CPU, Redis beside it",
    "other_cores": "CPU, all else beside it",
}


def _show(told: Numbers, console: Console) -> None:
    table = Table(title=f"{len(told['worker'])} rounds of {told['events']:,} purchases")
    for column, justify in (("", "left"), ("median", "right"), ("min – max", "right"), ("", "left")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for name, numbers in told["summary"].items():
        digits = 0 if numbers["unit"].endswith("s/s") else 2 if numbers["unit"] in {"of bare", "s"} else 1
        low, middle, high = (f"{numbers[key]:,.{digits}f}" for key in ("min", "median", "max"))
        table.add_row(_NAMES[name], middle, f"{low} – {high}", numbers["unit"])
    console.print(table)
    console.print("whole: from the first commit until all is published; steady: from the second fifth on")
    console.print(machine_line(told["machine"]))
    reached = told["summary"]["worker_whole"]["median"]
    verdict = "reached" if reached >= TARGET else "[red]missed[/red]"
    console.print(f"target of {TARGET:,} events/s, whole: {verdict} ({reached:,.0f})")


if __name__ == "__main__":
    main()
