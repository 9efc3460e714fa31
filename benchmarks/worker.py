"""One worker, as it is deployed, from the first committed record until all is committed and published."""

import asyncio
import re
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import psutil
from redis.asyncio import Redis

from cli.demo.data import Event
from cli.demo.publisher import Publisher
from cli.demo.replay import Watermarks, WorkerProcess
from cli.local_server import HOST, free_port
from cli.local_stack import LocalStack
from schemas.program import Program
from streams.keys import ShardKeys
from streams.preflight import read_program
from streams.settings import ClockKind, Settings
from streams.topics import (
    BOND_TOPICS,
    CUSTOMER_TIERS,
    DEFAULT_PARTITIONS,
    TIER_CHANGES,
    administration,
    create,
)

#: Seconds between two looks into the store, and without progress after which something is wrong.
_LOOK = 0.02
_STALLED = 60.0


class BenchmarkError(Exception):
    """A round that measured nothing; the message says why."""


def settings_on(stack: LocalStack, program: str = "") -> Settings:
    """Of a worker on these servers whose time goes by the events."""
    return Settings(
        brokers=stack.brokers,
        redis_url=stack.redis_url,
        program=program,
        clock=ClockKind.EVENT,
        web_port=free_port(),
    )


def live_settings(stack: LocalStack, program: str | Path) -> Settings:
    """Of a worker on these servers as it is deployed: in the time of the wall clock, all else at its default."""
    return settings_on(stack, str(program)).but(clock=ClockKind.WALL)


def create_all(settings: Settings, partitions: int) -> None:
    """Make all topics, which keep what they hold."""
    with administration(settings) as admin:
        create(admin, settings, partitions, replication=1, retention_ms=-1)


def forget_outputs(settings: Settings, partitions: int) -> None:
    """Make the output topics anew: what an earlier round published is the truth for a later one, which would take it
    over and publish nothing. Raises BenchmarkError where Kafka does not let go of them."""
    names = {settings.topic(name) for name in (TIER_CHANGES, CUSTOMER_TIERS, *BOND_TOPICS)}
    with administration(settings) as admin:
        admin.delete_topics(sorted(names & set(admin.list_topics())))
        give_up = time.monotonic() + _STALLED
        while names & set(admin.list_topics()):
            if time.monotonic() > give_up:
                raise BenchmarkError("Kafka does not delete the output topics")
            time.sleep(_LOOK)
        create(admin, settings, partitions, replication=1, retention_ms=-1)


def catch_up(stack: LocalStack, settings: Settings, load: Sequence[Event], log: Path) -> dict[str, Any]:
    """The full rate: one worker catches up with a load that is there, on topics that are made here."""
    create_all(settings, DEFAULT_PARTITIONS)
    asyncio.run(Publisher(settings, DEFAULT_PARTITIONS, load).run())
    process = WorkerProcess(stack.data_dir / "full", settings, log)
    program = read_program(settings.program)
    return asyncio.run(measure(stack, settings, program, DEFAULT_PARTITIONS, len(load), process))


async def measure(
    stack: LocalStack,
    settings: Settings,
    program: Program,
    partitions: int,
    events: int,
    worker: WorkerProcess,
    settle: bool = False,
    pause: float = _LOOK,
) -> dict[str, Any]:
    """Start the worker on `events` records that are there already, and stop it when all is done.

    The whole begins at the last look at which nothing was committed; steady state begins when a fifth was. `settle`:
    when all is measured, wait for what falls due by the clock of the events, too, and for its being published. `pause`:
    seconds between two looks.
    """
    worker.launch()
    watermarks = Watermarks(settings, program, partitions)
    try:
        measured = await _measure(stack, settings, partitions, events, worker, watermarks, pause)
        give_up = time.monotonic() + _STALLED
        while settle and ((now := await watermarks.look()).overdue or now.unpublished):
            worker.check()
            if time.monotonic() > give_up:
                raise BenchmarkError(f"what falls due is not published after {_STALLED:g} s: {now}")
            await asyncio.sleep(_LOOK)
        return measured
    finally:
        await watermarks.close()
        worker.stop()


async def _measure(
    stack: LocalStack,
    settings: Settings,
    partitions: int,
    events: int,
    worker: WorkerProcess,
    watermarks: Watermarks,
    pause: float,
) -> dict[str, Any]:
    began = cpu = others = None
    fifth: tuple[int, float] | None = None
    committed_at: float | None = None
    before, moved = None, time.monotonic()
    while True:
        stack.check()
        worker.check()
        at, used, worked = time.monotonic(), _cpu(stack, worker), busy()
        now = await watermarks.look()
        if not now.committed:
            began, cpu, others = at, used, worked
        elif began is None:
            raise BenchmarkError("records were committed before the first look")
        if fifth is None and now.committed >= events // 5:
            fifth = now.committed, time.monotonic()
        if committed_at is None and now.committed >= events:
            committed_at = time.monotonic()
        if now.committed >= events and not now.unpublished:
            break
        if now != before:
            before, moved = now, time.monotonic()
        elif time.monotonic() - moved > _STALLED:
            raise BenchmarkError(f"nothing has moved for {_STALLED:g} s: {now}{worker.last_words()}")
        await asyncio.sleep(pause)
    ended, used, worked = time.monotonic(), _cpu(stack, worker), busy()
    if began is None or cpu is None or others is None or fifth is None or committed_at is None:
        raise BenchmarkError("all was committed before the first look")
    seconds = ended - began
    changes = await _changes(settings, partitions)
    spent = {name: used[name] - cpu[name] for name in used}
    return {
        "seconds": seconds,
        "seconds_after_last_commit": ended - committed_at,
        "whole_per_second": events / seconds,
        "steady_per_second": (events - fifth[0]) / max(1e-9, ended - fifth[1]),
        "changes": changes,
        "changes_per_second": changes / seconds,
        "cpu_us_per_event": {name: value / events * 1e6 for name, value in spent.items()},
        # What everything else on the machine took meanwhile, this benchmark included.
        "other_cores": max(0.0, (worked - others - sum(spent.values())) / seconds),
        "outcomes": _outcomes(worker, events),
    }


def _cpu(stack: LocalStack, worker: WorkerProcess) -> dict[str, float]:
    """CPU seconds so far, of each process."""
    pids = {"worker": worker.pid, "broker": stack.kafka.pid, "redis": stack.redis.pid}
    taken = {}
    for name, pid in pids.items():
        if pid is None:
            raise BenchmarkError(f"the {name} has ended")
        times = psutil.Process(pid).cpu_times()
        taken[name] = times.user + times.system
    return taken


def busy() -> float:
    """CPU seconds that the machine has worked so far."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


async def _changes(settings: Settings, partitions: int) -> int:
    """How many records were committed to the outbox; all of them are published."""
    redis = Redis.from_url(settings.redis_url)
    try:
        pipe = cast(Any, redis.pipeline(transaction=False))
        for partition in range(partitions):
            pipe.hget(ShardKeys(settings.redis_prefix, partition).shard, "outbox_last")
        return sum(int(last or 0) for last in await pipe.execute())
    finally:
        await redis.aclose()


def _outcomes(worker: WorkerProcess, events: int) -> Mapping[str, int]:
    """What became of the records, by the worker's own count. Raises BenchmarkError where not all were counted."""
    outcomes = outcomes_of(metrics_of(worker))
    if outcomes.get("counted") != events:
        raise BenchmarkError(f"of {events} events the worker counted other than all: {outcomes}")
    return outcomes


def metrics_of(worker: WorkerProcess) -> str:
    """What a worker tells of itself. Raises OSError where it does not answer."""
    with urllib.request.urlopen(f"http://{HOST}:{worker.port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def outcomes_of(metrics: str) -> dict[str, int]:
    """Records by what became of them, over all inputs."""
    found = re.findall(
        r'^kizuna_events_total\{outcome="(\w+)",topic="[a-z-]+"\} (\S+)', metrics, re.MULTILINE
    )
    outcomes: dict[str, int] = {}
    for outcome, count in found:
        outcomes[outcome] = outcomes.get(outcome, 0) + int(float(count))
    return outcomes
