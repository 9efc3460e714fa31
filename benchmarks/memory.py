"""`make bench ARGS=memory`: what a customer takes in Redis and in a worker, and whether that grows with the history.
See docs/performance.md."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from redis import Redis
from rich.console import Console

from benchmarks.holdings import Holdings, forget, take_holdings
from benchmarks.memory_table import show
from benchmarks.orders import DAY_MS, in_parts, mixed, purchases, write_program
from benchmarks.peers.watching import peak_memory
from benchmarks.results import RESULTS, Numbers, machine, report
from benchmarks.worker import create_all, measure, settings_on
from cli.demo.data import Event
from cli.demo.publisher import Publisher
from cli.demo.replay import WorkerProcess
from cli.local_stack import LocalStack
from streams.preflight import read_program
from streams.topics import DEFAULT_PARTITIONS, administration

SIZES = (10, 60, 500)
PARTS = ("sizes", "history", "worker")

_BEGIN = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1000)

#: Days of the window where all orders are in it, and over how many of them they are spread.
_WINDOW, _SPREAD = 365, 360
#: The same, short, where most of the history has left it; and days of the ledger, which is longer.
_SHORT_WINDOW, _SHORT_LEDGER = 36, 54
#: Orders of a customer in a day of that history, refunds and touchpoints besides.
_PER_DAY = 2 / 3
#: Orders of each customer where a worker's cache is measured.
_CACHED_ORDERS = 10


@click.command()
@click.option(
    "--events",
    type=click.IntRange(5_000),
    default=600_000,
    show_default=True,
    help="Purchases of each size: so many customers that they have 10, 60 and 500 each.",
)
@click.option(
    "--history",
    type=click.IntRange(100),
    default=2_000,
    show_default=True,
    help="Customers whose history is once, and ten times, what is remembered (600 purchases each).",
)
@click.option(
    "--cache",
    type=click.IntRange(500),
    default=20_000,
    show_default=True,
    help="KIZUNA_CACHE_CUSTOMERS of the workers: five and ten times as many customers buy ten times each.",
)
@click.option("--parts", default=",".join(PARTS), show_default=True, help="Which, separated by commas.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
def memory(events: int, history: int, cache: int, parts: str, as_json: bool) -> None:
    """Measure bytes by customer in Redis, by size and by length of history, and in a worker."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.width = max(console.width, 118)  # for the tables, also where the output is no terminal
    wanted = [part.strip() for part in parts.split(",")]
    if not wanted or not set(wanted) <= set(PARTS):
        raise click.UsageError(f"--parts takes some of {', '.join(PARTS)}")
    report(lambda: _run(events, history, cache, wanted, console), show, console, as_json, "memory-")


def _run(events: int, history: int, cache: int, parts: list[str], console: Console) -> Numbers:
    told: Numbers = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "partitions": DEFAULT_PARTITIONS,
    }
    with LocalStack() as stack:
        bench = _Bench(stack, console)
        told["redis"] = bench.server()
        if "sizes" in parts:
            told["sizes"] = {str(size): _size(bench, size, events) for size in SIZES}
        if "history" in parts:
            told["history"] = _history(bench, history)
        if "worker" in parts:
            told["worker"] = _worker(bench, cache)
    return told


class _Worker(WorkerProcess):
    """One that keeps in mind how much memory it had when it was asked to stop, and at most."""

    rss = peak = 0

    def stop(self, timeout: float = 20.0) -> None:
        if self.running:
            self.rss, self.peak = psutil.Process(self.pid).memory_info().rss, peak_memory(self.pid)
        super().stop(timeout)


class _Bench:
    """The servers of a run, on which one worker after the other reads a flow of its own."""

    def __init__(self, stack: LocalStack, console: Console) -> None:
        self._stack, self._console = stack, console
        self.redis: Any = Redis.from_url(stack.redis_url)

    def server(self) -> Numbers:
        """Which server it is, and how it takes memory."""
        told: Any = {**self.redis.info("server"), **self.redis.info("memory")}
        names = ("server_name", "valkey_version", "redis_version", "mem_allocator")
        return {name: told[name] for name in names if name in told}

    def say(self, what: str) -> None:
        """Tell how far it is."""
        self._console.print(what)

    def program(self, name: str, window: int, ledger: int) -> Path:
        """A program of so many days."""
        return write_program(self._stack.data_dir / f"{name}.toml", window, ledger)

    def read(
        self, name: str, program: Path, events: Iterable[Event], customers: list[str], cache: int = 1_000_000
    ) -> tuple[Holdings, Numbers]:
        """A worker reads all of it, in topics and a store of its own; what Redis then holds, and the worker's numbers.

        Raises BenchmarkError where it did not count every event.
        """
        forget(self.redis)
        settings = settings_on(self._stack, str(program)).but(
            topic_prefix=f"{name}.", group=name, redis_prefix="loyalty", cache_customers=cache
        )
        create_all(settings, DEFAULT_PARTITIONS)
        count = 0
        for part in in_parts(events):
            asyncio.run(Publisher(settings, DEFAULT_PARTITIONS, part).run())
            count += len(part)
        worker = _Worker(self._stack.data_dir / name, settings, RESULTS / "logs" / f"memory-{name}.log")
        told = asyncio.run(
            measure(
                self._stack,
                settings,
                read_program(settings.program),
                DEFAULT_PARTITIONS,
                count,
                worker,
                settle=True,
            )
        )
        found = take_holdings(self.redis, settings.redis_prefix, DEFAULT_PARTITIONS, customers)
        with administration(settings) as admin:
            admin.delete_topics([topic for topic in admin.list_topics() if topic.startswith(f"{name}.")])
        return found, {
            "events": count,
            "whole_per_second": told["whole_per_second"],
            "rss": worker.rss,
            "peak": worker.peak,
        }


def _names(count: int) -> list[str]:
    return [f"c{number:07d}" for number in range(count)]


def at_random(
    customers: list[str], orders: int, days: float, seed: int, *, exactly: bool
) -> Iterable[tuple[str, int]]:
    """So many orders of each customer, or in the mean, in order of time, over so many days."""
    draw = np.random.Generator(np.random.PCG64(seed))
    count = len(customers) * orders
    if exactly:
        who = draw.permutation(np.repeat(np.arange(len(customers)), orders))
    else:
        who = draw.integers(len(customers), size=count)
        who[: len(customers)] = draw.permutation(len(customers))  # nobody is left out
    times = np.sort((draw.random(count) * days * DAY_MS).astype(np.int64)) + _BEGIN
    return zip((customers[number] for number in who.tolist()), times.tolist(), strict=True)


def _size(bench: _Bench, size: int, events: int) -> Numbers:
    customers = _names(max(1, events // size))
    bench.say(f"{size} orders in the window: {len(customers):,} customers")
    program = bench.program("sizes", _WINDOW, _WINDOW)
    buys = at_random(customers, size, _SPREAD, 1, exactly=True)
    found, worker = bench.read(f"size-{size}", program, purchases(buys, "o"), customers)
    told = found.told() | {"orders": size, "worker": worker}
    bench.say(f"  {told['used']:,.0f} bytes each, {told['ratio_content']:.2f} of what was put there")
    return told


def _history(bench: _Bench, count: int) -> Numbers:
    """Once: twice as long as the ledger and the window together; and ten times that. As much is forgotten as comes only
    when the first pages have been given up, each of which is as long as a page's entries are in coming."""
    customers = _names(count)
    program = bench.program("history", _SHORT_WINDOW, _SHORT_LEDGER)
    once = 2 * (_SHORT_WINDOW + _SHORT_LEDGER)
    told: Numbers = {"window_days": _SHORT_WINDOW, "ledger_days": _SHORT_LEDGER, "runs": {}}
    for times in (1, 10):
        days = once * times
        bench.say(f"a history of {days} days: {count:,} customers")
        buys = at_random(customers, round(days * _PER_DAY), days, times, exactly=False)
        found, worker = bench.read(f"history-{times}", program, mixed(buys, "o"), customers)
        told["runs"][str(times)] = found.told() | {"days": days, "worker": worker}
        bench.say(f"  {found.used / count:,.0f} bytes each")
    first, last = told["runs"]["1"], told["runs"]["10"]
    return told | {"ratio": last["used"] / first["used"], "ratio_content": last["content"] / first["content"]}


def _worker(bench: _Bench, cache: int) -> Numbers:
    """The memory of a worker whose cache takes a fifth of the customers, a tenth, and all of them."""
    program = bench.program("worker", _WINDOW, _WINDOW)
    told: Numbers = {"cache": cache, "orders": _CACHED_ORDERS, "runs": {}}
    fifth, tenth = 5 * cache, 10 * cache
    for name, limit, count in (("fifth", cache, fifth), ("tenth", cache, tenth), ("all", 2 * fifth, fifth)):
        customers = _names(count)
        bench.say(f"a cache of {limit:,}, {count:,} customers")
        buys = at_random(customers, _CACHED_ORDERS, _SPREAD, 1, exactly=True)
        _, worker = bench.read(f"worker-{name}", program, purchases(buys, "o"), customers, limit)
        told["runs"][name] = worker | {"limit": limit, "customers": count}
        bench.say(f"  {worker['rss'] / 1e6:,.0f} MB, {worker['peak'] / 1e6:,.0f} at most")
    rss = {name: one["rss"] for name, one in told["runs"].items()}
    each = (rss["all"] - rss["fifth"]) / (fifth - cache)
    return told | {
        "ratio": rss["tenth"] / rss["fifth"],
        "bytes_by_cached_customer": each,
        "bytes_without_cache": rss["fifth"] - each * cache,
    }
