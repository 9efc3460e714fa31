"""The replay: the year goes into Kafka in order of time, while a real worker process reads it."""

import asyncio
import math
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from redis.asyncio import Redis

from cli.demo.data import Event
from cli.demo.publisher import REPLAYED, Publisher
from cli.local_server import HOST, Server
from cli.local_stack import LocalStack
from schemas.program import Program
from streams.keys import ShardKeys
from streams.protocols import PURCHASES
from streams.settings import Settings

#: Seconds between two looks at what is committed, and where the worker is to be killed at the right moment.
_LOOK = 0.05
_LOOK_TO_KILL = 0.005
#: So many events the publisher is ahead where the program keeps bonds. What is decided of a bond on the way rests on
#: what was read by then of two topics, and in life neither of them is months ahead.
_AHEAD = 4_000
#: Without any progress for so long, something is wrong.
_STALLED = 90.0


class ReplayError(Exception):
    """The replay cannot go on; the message says why."""


class WorkerProcess(Server):
    """`kizuna worker` as a process of its own, with all its settings by variables; never left behind."""

    name = "the worker"

    def __init__(self, directory: Path, settings: Settings, log: Path) -> None:
        super().__init__(directory, settings.web_port)
        self._settings = settings
        self._file = log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)

    def last_words(self) -> str:
        """The end of its log, a line each, after a newline."""
        return self._last_words()

    @property
    def _output(self) -> Path:
        return self._file

    def _command(self) -> list[str]:
        env = shutil.which("env")
        kizuna = Path(sys.executable).with_name("kizuna")
        if env is None or not os.access(kizuna, os.X_OK):
            raise ReplayError(f"the command is not installed: there is no {kizuna} (make setup)")
        variables = [
            f"KIZUNA_{name.upper()}={getattr(self._settings, name)}" for name in Settings.__dataclass_fields__
        ]
        # Whatever it writes besides goes with the stack's own data, even where it is killed.
        return [env, f"TMPDIR={self.directory}", *variables, str(kizuna), "worker"]

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the store is, over all shards: events committed, falls due but not yet made, outbox entries."""

    committed: int
    overdue: int
    unpublished: int
    #: The newest purchase that was read, epoch ms.
    newest: int | None


class Watermarks:
    """Looks into the store for how far the worker is: what counts is what is committed there."""

    def __init__(self, settings: Settings, program: Program, partitions: int) -> None:
        self._redis = Redis.from_url(settings.redis_url)
        self._lateness = program.allowed_lateness
        self._shards = [ShardKeys(settings.redis_prefix, partition) for partition in range(partitions)]

    async def look(self) -> Standing:
        """All shards.

        Where everything is committed the clocks stand still; then, with nothing overdue, nothing new comes
        into the outbox; then, with the outbox empty, all is published. It is looked at in that order.
        """
        fields = [*(f"offset:{topic}" for topic in REPLAYED), f"newest:{PURCHASES}"]
        pipe = cast(Any, self._redis.pipeline(transaction=False))
        for keys in self._shards:
            pipe.hmget(keys.shard, fields)
        shards: list[list[bytes | None]] = await pipe.execute()
        clocks = [int(newest) for *_, newest in shards if newest is not None]
        for keys, (*_, newest) in zip(self._shards, shards, strict=True):
            if newest is not None:
                pipe.zcount(keys.due, "-inf", f"({int(newest) - self._lateness}")
        for keys in self._shards:
            pipe.llen(keys.outbox)
        counts: list[int] = await pipe.execute()
        return Standing(
            # A topic begins at 0 and holds whole records only, so the next offset is how many were read.
            committed=sum(int(offset or 0) for *offsets, _ in shards for offset in offsets),
            overdue=sum(counts[: len(clocks)]),
            unpublished=sum(counts[len(clocks) :]),
            newest=max(clocks, default=None),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()


@dataclass(frozen=True, slots=True)
class Kill:
    """A worker that was killed: how much was committed when it was dead.

    `unread` is how much of what had been published before was still to be read.
    """

    pid: int
    committed: int
    unread: int


@dataclass(slots=True)
class Replayed:
    """What the replay was."""

    events: int
    #: From the first record published until the last was committed.
    seconds: float | None = None
    kills: list[Kill] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / (self.seconds or math.inf)


#: Told now and then: how far it is.
Progress = Callable[[Standing], None]


class Replay:
    """One replay of `events` through `worker`, which must be ready."""

    def __init__(
        self,
        stack: LocalStack,
        settings: Settings,
        program: Program,
        partitions: int,
        worker: WorkerProcess,
        events: Sequence[Event],
    ) -> None:
        self._stack = stack
        self._worker = worker
        self._publisher = Publisher(settings, partitions, events)
        self._watermarks = Watermarks(settings, program, partitions)
        self._ahead = len(events) if program.bonds is None else _AHEAD
        self._done = Replayed(len(events))

    async def run(self, kills: int, progress: Progress, told: Callable[[Kill], None]) -> Replayed:
        """Publish everything, and return when all of it is committed, swept and published.

        The worker is killed `kills` times on the way, and another one started.

        Raises ReplayError where it stalls or too few of the kills hit the middle, LocalStackError where the
        worker or a server ends by itself.
        """
        done = self._done
        publishing = asyncio.create_task(self._publisher.run())
        try:
            await self._watch(publishing, kills, progress, told)
            held = await self._publisher.held()
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            await self._watermarks.close()
        if held != done.events:
            raise ReplayError(
                f"{done.events} events were published, and the input topics hold {held} records"
            )
        if len(done.kills) < kills:
            raise ReplayError(
                f"the worker was quicker than the kills: {len(done.kills)} of {kills} hit it with work unread"
            )
        return done

    async def _watch(
        self,
        publishing: "asyncio.Task[None]",
        kills: int,
        progress: Progress,
        told: Callable[[Kill], None],
    ) -> None:
        done, started = self._done, time.monotonic()
        before, moved = None, started
        while True:
            self._stack.check()
            self._worker.check()
            if publishing.done():
                publishing.result()
            now = await self._watermarks.look()
            progress(now)
            if now.committed >= done.events:
                done.seconds = done.seconds or time.monotonic() - started
                if not now.overdue and not now.unpublished:
                    return
            if now != before:
                before, moved = now, time.monotonic()
            elif time.monotonic() - moved > _STALLED:
                raise ReplayError(f"nothing has moved for {_STALLED:g} s: {now}{self._worker.last_words()}")
            kill_at = self._kill_at(kills)
            limit = kill_at + done.events // 10
            self._publisher.keep_to(now.committed, min(limit, now.committed + self._ahead))
            if kill_at <= now.committed < self._publisher.acknowledged:
                kill = await self._kill()
                if kill is not None:
                    done.kills.append(kill)
                    told(kill)
            await asyncio.sleep(_LOOK_TO_KILL if kill_at < done.events else _LOOK)

    def _kill_at(self, kills: int) -> int:
        """How much must be committed for the next kill: evenly spread, and something new since the last one.

        All of it and more where no kill is left.
        """
        done = self._done
        if len(done.kills) == kills:
            return done.events
        share = done.events // (kills + 1)
        last = done.kills[-1].committed if done.kills else 0
        return max(share * (len(done.kills) + 1), last + share // 4)

    async def _kill(self) -> Kill | None:
        """`kill -9`, and a new worker; None where it cannot be shown that the old one had work unread."""
        published, pid = self._publisher.acknowledged, self._worker.pid
        self._worker.kill()
        # It is dead: this is what it left, and what had been acknowledged before was there to read.
        left = await self._watermarks.look()
        self._worker.launch()
        unread = published - left.committed
        return Kill(pid, left.committed, unread) if pid is not None and unread > 0 else None
