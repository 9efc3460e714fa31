"""What every benchmark shares: the machine it ran on, and where its numbers are written."""

import json
import os
import platform
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console

from benchmarks.worker import BenchmarkError
from cli.demo.data import DataMissingError
from cli.demo.replay import ReplayError
from cli.local_jars import ROOT
from cli.local_stack import LocalStackError
from streams.protocols import FatalError

#: Where all numbers and the workers' logs go.
RESULTS = ROOT / ".local" / "bench"

Numbers = dict[str, Any]


def report(
    run: Callable[[], Numbers],
    show: Callable[[Numbers, Console], None],
    console: Console,
    as_json: bool,
    prefix: str = "",
) -> None:
    """Run a benchmark, tell of it and keep its numbers. Raises ClickException where it measured nothing."""
    try:
        told = run()
    except (BenchmarkError, LocalStackError, ReplayError, DataMissingError, FatalError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        raise SystemExit(130) from None
    if as_json:
        click.echo(json.dumps(told))
    else:
        show(told, console)
    write(told, console, prefix)


def write(told: Numbers, console: Console, prefix: str = "") -> None:
    """All of a run into a file of its own."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{prefix}{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(told, indent=2) + "\n")
    console.print(f"written to {path.relative_to(ROOT)}")


def check(what: str, holds: bool, told: str) -> Numbers:
    """What was looked at in the end, and whether it is as it must be."""
    return {"what": what, "holds": holds, "told": told}


def show_checks(checks: Iterable[Numbers], console: Console) -> None:
    """A line for each."""
    for one in checks:
        word = "[green]holds[/green]" if one["holds"] else "[red]FAILS[/red]"
        console.print(f"{word}  {one['what']}: {one['told']}")


def verdict(what: str, value: float, target: float, unit: str, console: Console) -> None:
    """Whether a target that may not be exceeded was reached, in a line."""
    reached = "reached" if value <= target else "[red]missed[/red]"
    console.print(f"target of {target:g} {unit} for {what}: {reached} ({value:,.1f})")


def machine() -> Numbers:
    """The machine, and how busy it was."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu": cpu,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "load_average": os.getloadavg(),
    }


def machine_line(told: Numbers) -> str:
    """The machine in a line."""
    return f"{told['cores']} cores, {told['cpu']}, {told['memory_gib']} GiB, {told['system']}"
