"""`make bench ARGS=scale`: one, two and three workers, more partitions, a Redis Cluster, and a rebuild. See
docs/performance.md."""

import asyncio
import gc
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
from redis import Redis
from rich.console import Console

from benchmarks.backlog import Backlog
from benchmarks.group import Group, redis_servers
from benchmarks.holdings import forget
from benchmarks.load import purchases
from benchmarks.results import Numbers, machine, report
from benchmarks.scale_table import show, summary
from benchmarks.worker import BenchmarkError, create_all, settings_on
from cli.demo.data import Event
from cli.local_cluster import ValkeyCluster
from cli.local_jars import ROOT
from cli.local_stack import LocalStack
from cli.local_valkey import ValkeyServer
from schemas.program import Program
from streams.preflight import read_program
from streams.settings import Settings
from streams.topics import administration

WORKERS = (1, 2, 3)

_PROGRAM = str(ROOT / "examples" / "grocery.toml")
_KIZUNA = Path(sys.executable).with_name("kizuna")
#: Seconds that a rebuild may take.
_REBUILT = 1_800


class Setup(NamedTuple):
    """One row: so many workers on so many partitions, and on which Redis."""

    partitions: int
    workers: int
    cluster: bool

    @property
    def name(self) -> str:
        """Short, for topics, logs and JSON."""
        return f"{self.partitions}-{self.workers}{'-cluster' if self.cluster else ''}"


@click.command()
@click.option("--rounds", type=click.IntRange(1, 50), default=3, show_default=True, help="Of all, in turn.")
@click.option(
    "--events",
    type=click.IntRange(5_000),
    default=600_000,
    show_default=True,
    help="Purchases in each round.",
)
@click.option(
    "--partitions", default="12,48", show_default=True, help="Numbers of them, separated by commas."
)
@click.option(
    "--cluster/--no-cluster",
    default=True,
    show_default=True,
    help="Three workers on a Redis Cluster of three primaries, too.",
)
@click.option(
    "--rebuild/--no-rebuild",
    default=True,
    show_default=True,
    help="Rebuild the state from the same log, too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
def scale(rounds: int, events: int, partitions: str, cluster: bool, rebuild: bool, as_json: bool) -> None:
    """Measure how one, two and three workers catch up, and a rebuild beside them."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.width = max(console.width, 140)  # for the table, also where the output is no terminal
    try:
        numbers = [int(one) for one in partitions.split(",")]
    except ValueError:
        raise click.UsageError("--partitions takes whole numbers, separated by commas") from None
    if any(number < max(WORKERS) for number in numbers):
        raise click.UsageError(f"--partitions: each of {max(WORKERS)} workers needs one")
    setups = [Setup(number, workers, False) for number in numbers for workers in WORKERS]
    if cluster:
        setups += [Setup(number, max(WORKERS), True) for number in numbers]
    report(lambda: _run(setups, rounds, events, rebuild, console), show, console, as_json, "scale-")


def _run(setups: list[Setup], rounds: int, events: int, rebuild: bool, console: Console) -> Numbers:
    console.print(f"making {events:,} purchases of the demo's year")
    load = purchases(events)
    gc.freeze()  # millions of objects that all stay
    found = machine()
    with ExitStack() as servers:
        stack = servers.enter_context(LocalStack())
        redis: dict[bool, ValkeyServer | ValkeyCluster] = {False: _single(stack)}
        if any(setup.cluster for setup in setups):
            redis[True] = cluster = ValkeyCluster(stack.data_dir / "valkey-cluster")
            servers.callback(cluster.stop)
            cluster.start()
        bench = _Bench(stack, load, rebuild, console)
        taken: dict[str, list[Numbers]] = {setup.name: [] for setup in setups}
        for number in range(1, rounds + 1):
            turn = (number - 1) % len(setups)
            for setup in setups[turn:] + setups[:turn]:
                taken[setup.name].append(bench.round(setup, redis[setup.cluster], number))
    for partitions in {setup.partitions for setup in setups}:
        agree([one for setup in setups if setup.partitions == partitions for one in taken[setup.name]])
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": found,
        "events": events,
        "setups": {setup.name: setup._asdict() for setup in setups},
        "rounds": taken,
        "summary": summary({setup.name: setup for setup in setups}, taken, found["cores"]),
    }


def _single(stack: LocalStack) -> ValkeyServer:
    assert isinstance(stack.redis, ValkeyServer)  # as it was asked for
    return stack.redis


def agree(rounds: Sequence[Numbers]) -> None:
    """The same events bring the same changes, whoever works on them."""
    changes = {one["changes"] for one in rounds}
    if len(changes) > 1:
        raise BenchmarkError(f"the same purchases brought different numbers of changes: {sorted(changes)}")


class _Bench:
    """What all rounds share."""

    def __init__(self, stack: LocalStack, load: list[Event], rebuild: bool, console: Console) -> None:
        self._stack, self._load, self._rebuild, self._console = stack, load, rebuild, console
        self._program: Program = read_program(_PROGRAM)

    def round(self, setup: Setup, redis: ValkeyServer | ValkeyCluster, number: int) -> Numbers:
        """One, in topics and a store of its own; then, of one worker, a rebuild of the same."""
        mark = f"scale-{setup.name}-{number}"
        settings = settings_on(self._stack, _PROGRAM).but(
            redis_url=f"redis://{redis.address}/0", topic_prefix=f"{mark}.", group=mark, redis_prefix=mark
        )
        for server in redis_servers(redis):
            with Redis.from_url(f"redis://{server.address}/0") as client:
                forget(client)
        create_all(settings, setup.partitions)
        group = Group(self._stack, redis, settings, setup.partitions, setup.workers, mark)
        try:
            before = os.getloadavg()[0]
            # All have joined and have their shards before there is anything to be read.
            shards = group.start()
            backlog = Backlog(settings, setup.partitions, mark).hold(self._load)
            numbers = asyncio.run(group.catch_up(backlog, self._program.allowed_lateness))
            numbers |= {"load_before": before, "shards_by_worker": shards}
            group.stop()
            self._tell(f"round {number}  {setup.name:<12}", numbers)
            if self._rebuild and setup.workers == 1:
                numbers["rebuild"] = rebuilt = _rebuilt(settings, len(self._load))
                self._console.print(
                    f"round {number}  {setup.name + ' rebuild':<20} {rebuilt['per_second']:>9,.0f} events/s, "
                    f"CPU {rebuilt['cpu_us_per_event']:.1f} µs"
                )
        finally:
            group.stop()
            with administration(settings) as admin:
                own = [topic for topic in admin.list_topics() if topic.startswith(settings.topic_prefix)]
                admin.delete_topics(own)
        return numbers

    def _tell(self, what: str, numbers: Numbers) -> None:
        self._console.print(
            f"{what}  {numbers['whole_per_second']:>9,.0f} events/s, "
            f"cores {sum(numbers['cores'].values()):.2f} and {numbers['other_cores']:.2f} besides, "
            f"events by worker {numbers['events_by_worker']}, load before {numbers['load_before']:.1f}"
        )


def _rebuilt(settings: Settings, events: int) -> Numbers:
    """How long `kizuna rebuild` takes, less what it takes to look and do nothing. No worker is there.

    Raises BenchmarkError where it did not count every event.
    """
    look, _, _ = _command(settings, "--dry-run")
    seconds, cpu, told = _command(settings, "--yes")
    if not told["done"] or told["counted"] != events:
        raise BenchmarkError(f"the rebuild counted other than {events:,} events: {told}")
    return {
        "seconds": seconds,
        "seconds_to_look": look,
        "per_second": events / (seconds - look),
        "cpu_us_per_event": cpu / events * 1e6,
        "told": told,
    }


def _command(settings: Settings, how: str) -> tuple[float, float, dict[str, Any]]:
    """Seconds, CPU seconds, and what `kizuna rebuild` told."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KIZUNA_")}
    variables = {
        f"KIZUNA_{name.upper()}": str(getattr(settings, name)) for name in Settings.__dataclass_fields__
    }
    began, cpu = time.monotonic(), _children()
    done = subprocess.run(
        [_KIZUNA, "rebuild", how, "--json"],
        env=kept | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_REBUILT,
        check=False,
    )
    seconds = time.monotonic() - began
    if done.returncode:
        raise BenchmarkError(f"kizuna rebuild {how} failed: {done.stderr.decode(errors='replace')[-500:]}")
    return seconds, _children() - cpu, json.loads(done.stdout)


def _children() -> float:
    """CPU seconds of all processes of ours that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
