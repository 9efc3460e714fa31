"""`make bench ARGS=contact`: how long it takes to learn whether a customer may be contacted, while events flow at half
of the rate that the worker can do. See docs/performance.md."""

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from statistics import median
from typing import Any

import click
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from benchmarks.load import everything
from benchmarks.results import RESULTS, Numbers, machine, machine_line, report
from benchmarks.worker import BenchmarkError, catch_up, create_all, settings_on
from cli.demo.data import Event
from cli.demo.publisher import Publisher
from cli.demo.replay import Watermarks, WorkerProcess
from cli.local_jars import ROOT
from cli.local_stack import LocalStack
from streams.preflight import read_program
from streams.settings import Settings
from streams.topics import DEFAULT_PARTITIONS

#: Within how many milliseconds 99 of 100 plain questions are to be answered.
TARGET = 10.0

_PROGRAM = str(ROOT / "examples" / "loyal.toml")
#: Seconds of flow before the first question, between two sendings, and of a slice of the answers.
_WARM_UP = 5.0
_TICK = 0.02
_SLICE = 5.0
_BATCH_BYTES = 1_000_000
#: Seconds of flow by which a worker may be behind that has caught up, and seconds it may take to.
_CAUGHT_UP = 0.3
_CATCH_UP = 90.0
#: Events that the worker may be behind, in seconds of flow: beyond it half of the rate was too much for it.
_BEHIND = 2.0


@click.command()
@click.option(
    "--questions", type=click.IntRange(1_000), default=3_000, show_default=True, help="Of each kind."
)
@click.option("--per-second", type=click.IntRange(10), default=100, show_default=True, help="Questions.")
@click.option(
    "--events",
    type=click.IntRange(10_000),
    default=330_000,
    show_default=True,
    help="By which the full rate is measured.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, all else to stderr.")
def contact(questions: int, per_second: int, events: int, as_json: bool) -> None:
    """Measure how soon `GET /customers/<id>/contact` answers while events flow at half of the full rate."""
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    console.width = max(console.width, 110)  # for the table, also where the output is no terminal
    report(lambda: _run(questions, per_second, events, console), _show, console, as_json, "contact-")


class Flow(Publisher):
    """Publishes so many events in a second, in small parts, until it is ended."""

    def __init__(self, settings: Settings, events: Sequence[Event], rate: float) -> None:
        super().__init__(settings, DEFAULT_PARTITIONS, events)
        self._bootstrap, self._load, self._rate = settings.brokers, events, rate
        self.ended = False

    async def run(self) -> None:
        """Raises BenchmarkError where the events are at their end before."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, enable_idempotence=True, max_batch_size=_BATCH_BYTES
        )
        await producer.start()
        try:
            started = time.monotonic()
            while not self.ended:
                await asyncio.sleep(_TICK)
                wanted = int((time.monotonic() - started) * self._rate)
                if wanted > len(self._load):
                    raise BenchmarkError("the events are at their end before the questions are")
                if part := self._load[self.acknowledged : wanted]:
                    await asyncio.gather(*await self._send(producer, part))
                    self.acknowledged += len(part)
        finally:
            await producer.stop()


def _run(questions: int, per_second: int, events: int, console: Console) -> Numbers:
    found = machine()
    with LocalStack() as stack:
        settings = settings_on(stack, _PROGRAM)
        console.print(f"the full rate, by {events:,} events of the demo's year")
        catching_up = settings.but(topic_prefix="full.", group="full", redis_prefix="full")
        full = catch_up(stack, catching_up, everything(events), RESULTS / "contact-full.log")
        rate = full["whole_per_second"] / 2
        console.print(f"{full['whole_per_second']:,.0f} events/s; now {rate:,.0f} a second, and questions")
        seconds = _WARM_UP + 1.5 * questions / per_second
        # Twice what is needed: where the machine is busy, answers take their time.
        load = everything(int(rate * (2 * seconds + 60 + _CATCH_UP)))
        flowing = settings.but(topic_prefix="flow.", group="flow", redis_prefix="flow")
        create_all(flowing, DEFAULT_PARTITIONS)
        worker = WorkerProcess(stack.data_dir / "flow", flowing, RESULTS / "contact-flow.log")
        worker.launch()
        try:
            taken = asyncio.run(_Asking(flowing, worker, load, rate, questions, per_second, console).run())
        finally:
            worker.stop()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": found,
        "partitions": DEFAULT_PARTITIONS,
        "target_ms": TARGET,
        "full_per_second": full["whole_per_second"],
        "flow_per_second": rate,
        **taken,
    }


class _Asking:
    """The flow, and the questions beside it."""

    def __init__(
        self,
        settings: Settings,
        worker: WorkerProcess,
        load: Sequence[Event],
        rate: float,
        questions: int,
        per_second: int,
        console: Console,
    ) -> None:
        self._settings, self._worker, self._rate = settings, worker, rate
        self._questions, self._per_second, self._console = questions, per_second, console
        self._flow = Flow(settings, load, rate)
        self._ids = sorted({event.key.decode() for event in load[: int(rate * _WARM_UP)]})
        self._watermarks = Watermarks(settings, read_program(settings.program), DEFAULT_PARTITIONS)
        # Seconds of flow by which the worker is behind, and was at most; whether it has begun.
        self._now = self._most = 0.0
        self._seen = False

    async def run(self) -> Numbers:
        """Ask while events flow, reserve while they flow, and ask when all is quiet."""
        flow = asyncio.create_task(self._flow.run())
        behind: asyncio.Task[float] = asyncio.create_task(self._watch())
        try:
            # The worker begins some seconds after the flow, and first makes that up.
            await self._while(flow, self._caught_up())
            await self._while(flow, asyncio.sleep(_WARM_UP))
            self._most = 0.0
            asked = await self._while(flow, self._ask(self._questions, self._per_second, reserve=False))
            # Fewer: each is a commit and a record.
            reserved = await self._while(
                flow, self._ask(self._questions // 8, self._per_second // 4, reserve=True)
            )
            self._flow.ended = True
            await flow
            quiet = await self._quiet()
        finally:
            flow.cancel()
            behind.cancel()
            with suppress(asyncio.CancelledError):
                await flow
            with suppress(asyncio.CancelledError):
                most = await behind
            await self._watermarks.close()
        return {"flowing": asked, "reserving": reserved, "quiet": quiet, "behind_seconds": most}

    async def _while(self, flow: "asyncio.Task[None]", doing: Any) -> Any:
        """What is done beside the flow, which must not end before it."""
        task = asyncio.ensure_future(doing)
        await asyncio.wait((flow, task), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await flow
        return await task

    async def _quiet(self) -> Numbers:
        while (await self._watermarks.look()).committed < self._flow.acknowledged:
            self._worker.check()
            await asyncio.sleep(0.1)
        return await self._ask(self._questions, self._per_second, reserve=False)

    async def _caught_up(self) -> None:
        until = time.monotonic() + _CATCH_UP
        while not self._seen or self._now > _CAUGHT_UP:
            self._worker.check()
            if time.monotonic() > until:
                raise BenchmarkError(f"the worker is {self._now:.1f} s behind half of its own rate")
            await asyncio.sleep(0.1)

    async def _watch(self) -> float:
        """By how many seconds of the flow the worker was behind it, at most."""
        try:
            while not self._flow.ended:
                await asyncio.sleep(0.25)
                sent = self._flow.acknowledged
                committed = (await self._watermarks.look()).committed
                self._now, self._seen = (sent - committed) / self._rate, committed > 0
                self._most = max(self._most, self._now)
        except asyncio.CancelledError:
            pass
        return self._most

    async def _ask(self, count: int, per_second: int, *, reserve: bool) -> Numbers:
        asking = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.asking"),
            *(str(self._worker.port), str(count), str(per_second), str(int(reserve))),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            out, _ = await asking.communicate("\n".join(self._ids).encode())
        except asyncio.CancelledError:
            asking.kill()
            await asking.wait()
            raise
        if asking.returncode:
            raise BenchmarkError(f"a question was not answered{self._worker.last_words()}")
        told = json.loads(out)
        numbers = summary([(asked, took * 1000) for asked, took in told["took"]])
        kind = "places" if reserve else "questions"
        self._console.print(f"{count:,} {kind}: p99 {numbers['p99']:.1f} ms, {told['decisions']}")
        return numbers | {"decisions": told["decisions"], "load": os.getloadavg()[0]}


def summary(took: Sequence[tuple[float, float]]) -> Numbers:
    """Milliseconds by rank, and the p99 of slices of time; of when each question was asked and how long it took."""
    slices: dict[int, list[float]] = {}
    for asked, ms in took:
        slices.setdefault(int((asked - took[0][0]) / _SLICE), []).append(ms)
    by_slice = [rank(part, 0.99) for part in slices.values() if len(part) >= 100]
    every = [ms for _, ms in took]
    return {
        "count": len(every),
        **{name: rank(every, share) for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))},
        "longest": max(every),
        "p99_by_slice": [min(by_slice), median(by_slice), max(by_slice)] if by_slice else [],
    }


def rank(values: Sequence[float], share: float) -> float:
    """The least value that so large a share of all does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _show(told: Numbers, console: Console) -> None:
    table = Table(title="milliseconds from a question to its answer")
    columns = ("", "questions", "p50", "p90", "p99", "p99 by slice, min – median – max", "longest")
    for column in columns:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for key, name in (
        ("quiet", "questions, nothing flows"),
        ("flowing", "questions, half rate"),
        ("reserving", "places, half rate"),
    ):
        numbers = told[key]
        table.add_row(
            name,
            f"{numbers['count']:,}",
            *(f"{numbers[p]:.1f}" for p in ("p50", "p90", "p99")),
            " – ".join(f"{ms:.1f}" for ms in numbers["p99_by_slice"]),
            f"{numbers['longest']:.1f}",
        )
    console.print(table)
    verdict = "reached" if told["flowing"]["p99"] <= told["target_ms"] else "[red]missed[/red]"
    console.print(
        f"full rate {told['full_per_second']:,.0f} events/s, flow {told['flow_per_second']:,.0f}, "
        f"the worker behind it by {told['behind_seconds']:.2f} s at most"
    )
    if told["behind_seconds"] > _BEHIND:
        console.print(
            "[red]the worker did not keep up: what was measured is more than half of its rate[/red]"
        )
    console.print(f"target of {told['target_ms']:g} ms at p99: {verdict} ({told['flowing']['p99']:.1f})")
    console.print(machine_line(told["machine"]))
