"""`make bench ARGS=peers`: Kizuna's worker and its peers in turn, on one broker. See docs/performance.md."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from kafka.errors import KafkaError
from psutil import Error as ProcessError
from redis import RedisError
from rich.console import Console

from benchmarks.peers.catalogue import FOLDER, Peer, peers
from benchmarks.peers.inputs import INPUTS
from benchmarks.peers.loading import Loaded, load
from benchmarks.peers.plot import draw
from benchmarks.peers.reference import WrongError
from benchmarks.peers.rounds import Bench, run_kizuna, run_peer
from benchmarks.peers.table import KIZUNA, compare, show, summary
from benchmarks.results import RESULTS, Numbers, machine, report
from benchmarks.worker import BenchmarkError, create_all, settings_on
from cli.local_stack import LocalStack, LocalStackError
from streams.preflight import read_program
from streams.protocols import FatalError
from streams.topics import DEFAULT_PARTITIONS, administration

_PROGRAM = FOLDER / "program.toml"
_EVENTS = {"grocery": 2_000_000, "made": 5_000_000}

_FAILURES = (
    BenchmarkError,
    WrongError,
    LocalStackError,
    FatalError,
    KafkaError,
    RedisError,
    ProcessError,
    OSError,
)


@click.command("peers")
@click.option("--rounds", type=click.IntRange(1, 50), default=5, show_default=True, help="Of all, in turn.")
@click.option("--input", "which", type=click.Choice(sorted(INPUTS)), default="grocery", show_default=True)
@click.option(
    "--events", type=click.IntRange(10_000), help="Purchases in each round. [2,000,000; made: 5,000,000]"
)
@click.option(
    "--peers", "names", help="Which, by their folders, separated by commas; Kizuna is always there. [all]"
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Numbers of an earlier run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
def peers_command(
    rounds: int, which: str, events: int | None, names: str | None, against: Path | None, as_json: bool
) -> None:
    """Measure Kizuna's worker and its peers side by side: the same work, each checked against one reference."""
    console = Console(stderr=as_json, highlight=False)
    chosen = _chosen(names)
    before = None if against is None else json.loads(against.read_text())
    told: Numbers = {}

    def run() -> Numbers:
        told.update(_run(chosen, rounds, which, events or _EVENTS[which], console))
        return told

    def tell(told: Numbers, console: Console) -> None:
        show(told, console)
        if before is not None:
            compare(told, before, console)

    report(run, tell, console, as_json, f"peers-{which}-")
    if as_json and before is not None:
        compare(told, before, console)
    picture = RESULTS / f"peers-{which}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.png"
    draw(picture, told)
    console.print(f"drawn to {picture.relative_to(RESULTS.parent.parent)}")
    if told["failed"]:
        raise click.ClickException("; ".join(f"{name}: {why}" for name, why in told["failed"].items()))


def _chosen(names: str | None) -> list[Peer]:
    there = peers()
    if names is None:
        return list(there.values())
    wanted = [name.strip() for name in names.split(",") if name.strip() not in {"", KIZUNA}]
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise click.UsageError(f"there is no peer {unknown[0]}, only {', '.join(there)}")
    return [peer for name, peer in there.items() if name in wanted]


def _run(chosen: list[Peer], rounds: int, which: str, events: int, console: Console) -> Numbers:
    for peer in chosen:
        console.print(f"building {peer.name}, where that is not done")
        peer.command()
    program = read_program(str(_PROGRAM))
    source = INPUTS[which](events, program, DEFAULT_PARTITIONS)
    with LocalStack() as stack:
        settings = settings_on(stack, str(_PROGRAM))
        create_all(settings, DEFAULT_PARTITIONS)
        with administration(settings) as admin:
            bench = Bench(stack, admin, settings, program, DEFAULT_PARTITIONS)
            loads: dict[int, Loaded] = {}
            for count in sorted({min(events, peer.events or events) for peer in chosen} | {events}):
                console.print(f"publishing {count:,} purchases, and working out what must come of them")
                small = settings if count == events else settings.but(topic_prefix=f"first-{count}.")
                loads[count] = load(admin, small, program, DEFAULT_PARTITIONS, source, count)
            whole = loads[events]
            found = machine()
            taken, failed = _rounds(bench, chosen, rounds, loads, events, console)
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": found,
        "input": which,
        "title": source.title,
        "events": events,
        "customers": whole.reference.customers,
        "changes": whole.reference.changed,
        "tiers_in_the_end": whole.reference.final(),
        "bytes_per_event": round(whole.bytes / events),
        "partitions": DEFAULT_PARTITIONS,
        "peers": {
            KIZUNA: {"title": "Kizuna", "guarantees": "all: once, in order, and by time"},
            **{peer.name: {"title": peer.title, "guarantees": peer.guarantees} for peer in chosen},
        },
        "rounds": taken,
        "failed": failed,
        "summary": summary(taken),
    }


def _rounds(
    bench: Bench, chosen: list[Peer], rounds: int, loads: dict[int, Loaded], events: int, console: Console
) -> tuple[dict[str, list[Numbers]], dict[str, str]]:
    """All rounds by peer, and why one has none: a peer that fails once is left out from there on, with its numbers."""
    by_name: dict[str, Peer | None] = {KIZUNA: None, **{peer.name: peer for peer in chosen}}
    taken: dict[str, list[Numbers]] = {name: [] for name in by_name}
    failed: dict[str, str] = {}
    for number in range(1, rounds + 1):
        order = list(by_name)
        turn = (number - 1) % len(order)
        for name in order[turn:] + order[:turn]:
            if name in failed:
                continue
            peer = by_name[name]
            try:
                if peer is None:
                    numbers = run_kizuna(bench, loads[events], number)
                else:
                    numbers = run_peer(bench, peer, loads[min(events, peer.events or events)], number)
            except _FAILURES as error:
                failed[name] = str(error)
                taken[name] = []
                console.print(f"round {number}  {name:<14} [red]no number[/red]: {error}", markup=True)
                continue
            taken[name].append(numbers)
            _tell(console, f"round {number}  {name:<14}", numbers)
    return taken, failed


def _tell(console: Console, what: str, numbers: dict[str, Any]) -> None:
    console.print(
        f"{what} {numbers['whole_per_second']:>9,.0f} events/s, steady {numbers['steady_per_second']:>9,.0f}, "
        f"CPU {numbers['cpu_us_per_event']['peer']:.1f} µs, {numbers['changes']:,} changes, "
        f"load before {numbers['load_before']:.1f}"
    )
