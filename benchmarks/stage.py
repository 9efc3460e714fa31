"""What a benchmark of live events stands on: servers, a store and its worker, and the looks at them."""

import os
import time
from collections.abc import Callable
from typing import Any

from redis import Redis
from rich.console import Console

from benchmarks.results import RESULTS
from benchmarks.sampling import Sampler
from benchmarks.worker import BenchmarkError
from cli.demo.replay import WorkerProcess
from cli.local_stack import LocalStack
from streams.keys import ShardKeys
from streams.protocols import PURCHASES
from streams.settings import Settings
from streams.topics import DEFAULT_PARTITIONS

#: Seconds between two looks; without progress after which something is wrong; between two lines that tell of it.
_LOOK = 0.05
_STALLED = 120.0
_TELL = 10.0


class Stage:
    """On a stack that runs. `name` is what the worker's log begins with."""

    def __init__(self, stack: LocalStack, console: Console, settings: Settings, name: str) -> None:
        self._stack = stack
        self._console = console
        self._settings = settings
        self._name = name
        self._redis = Redis.from_url(stack.redis_url)
        self._shards = [ShardKeys(settings.redis_prefix, p) for p in range(DEFAULT_PARTITIONS)]
        self._worker = self._new_worker(1, settings)
        self._sampler = Sampler(self._pids)

    def _new_worker(self, number: int, settings: Settings) -> WorkerProcess:
        return WorkerProcess(
            self._stack.data_dir / "worker", settings, RESULTS / f"{self._name}-worker-{number}.log"
        )

    def _pids(self) -> dict[str, int | None]:
        """The processes whose CPU is told of."""
        return {
            "worker": self._worker.pid,
            "broker": self._stack.kafka.pid,
            "redis": self._stack.redis.pid,
            "bench": os.getpid(),
        }

    def _say(self, what: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')}  {what}")

    # -- looking ---------------------------------------------------------------------------------------------------

    def _look(self) -> tuple[int, int]:
        """How many purchases are committed, and how many outbox entries are not published, over all shards."""
        pipe = self._redis.pipeline(transaction=False)
        for keys in self._shards:
            pipe.hget(keys.shard, f"offset:{PURCHASES}")
            pipe.llen(keys.outbox)
        found: list[Any] = pipe.execute()
        return sum(int(at or 0) for at in found[::2]), sum(found[1::2])

    def _wait_read(self, events: int) -> None:
        """Until so many purchases are committed and all that came of them is published, however long that takes while
        it goes on."""
        began = told = moved = time.monotonic()
        before: tuple[int, int] | None = None
        while (now := self._look()) != (events, 0):
            self._check()
            at = time.monotonic()
            if now != before:
                before, moved = now, at
            elif at - moved > _STALLED:
                raise BenchmarkError(
                    f"nothing has moved for {_STALLED:g} s: {now[0]:,} of {events:,} purchases are committed, "
                    f"{now[1]:,} outbox entries are not published{self._worker.last_words()}"
                )
            if at - told > _TELL:
                told = at
                self._say(f"{now[0]:,} of {events:,} purchases committed after {at - began:.0f} s")
            time.sleep(_LOOK)

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self._wait_for(lambda: time.monotonic() >= until, "", seconds + 60)
        self._worker.check()

    def _wait_for(self, condition: Callable[[], bool], what: str, seconds: float = _STALLED) -> None:
        give_up_at = time.monotonic() + seconds
        while not condition():
            self._check()
            if time.monotonic() > give_up_at:
                raise BenchmarkError(f"not within {seconds:g} s: {what}{self._worker.last_words()}")
            time.sleep(_LOOK)

    def _check(self) -> None:
        self._stack.check()
        self._sampler.look()

    def _end(self) -> None:
        self._worker.stop()
        self._redis.close()
