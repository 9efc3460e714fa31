"""Any number of workers in one group, as they are deployed, and how long they take for a backlog that all of them find
at one instant."""

import asyncio
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import psutil

from benchmarks.backlog import Backlog
from benchmarks.results import RESULTS, Numbers
from benchmarks.worker import BenchmarkError, busy, metrics_of, outcomes_of
from cli.demo.replay import WorkerProcess
from cli.local_cluster import ValkeyCluster
from cli.local_server import Server, free_port
from cli.local_stack import LocalStack
from cli.local_valkey import ValkeyServer
from streams.keys import ShardKeys
from streams.protocols import PURCHASES
from streams.redis_nodes import connect
from streams.settings import Settings

#: Seconds between two looks; for which nobody's shards may change before the group counts as settled; without
#: progress after which something is wrong.
_LOOK = 0.05
_SETTLED = 1.0
_STALLED = 90.0

_SHARDS = re.compile(r"^kizuna_shards (\S+)", re.MULTILINE)


def redis_servers(redis: ValkeyServer | ValkeyCluster) -> list[ValkeyServer]:
    """The server, or all of a cluster."""
    return [*redis.nodes] if isinstance(redis, ValkeyCluster) else [redis]


class Seen(NamedTuple):
    """The store at one look: the watermark of purchases by shard, entries in all outboxes, changes ever decided."""

    watermarks: list[int]
    unpublished: int
    changes: int


class StoreWatch:
    """Looks into the store of a worker, one Redis or a cluster; to be closed."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self._nodes = connect(settings.redis_url)
        self._shards = [ShardKeys(settings.redis_prefix, partition) for partition in range(partitions)]

    async def look(self) -> Seen:
        """All shards. Watermarks first: what is committed then has its entries in the outbox, or published."""
        watermarks = dict.fromkeys(range(len(self._shards)), 0)
        changes = unpublished = 0
        servers = await self._nodes.by_server((keys.partition, keys) for keys in self._shards)
        for redis, shards in servers:
            pipe = cast(Any, redis.pipeline(transaction=False))
            for _, keys in shards:
                pipe.hmget(keys.shard, [f"offset:{PURCHASES}", "outbox_last"])
            for _, keys in shards:
                pipe.llen(keys.outbox)
            found = await pipe.execute()
            for (partition, _), (offset, last) in zip(shards, found, strict=False):
                watermarks[partition] = int(offset or 0)
                changes += int(last or 0)
            unpublished += sum(found[len(shards) :])
        return Seen(list(watermarks.values()), unpublished, changes)

    async def overdue(self, lateness: int) -> int:
        """Customers who are due by the clock of the events; `lateness` is the program's."""
        due = 0
        for redis, shards in await self._nodes.by_server((keys.partition, keys) for keys in self._shards):
            pipe = cast(Any, redis.pipeline(transaction=False))
            for _, keys in shards:
                pipe.hget(keys.shard, f"newest:{PURCHASES}")
            for (_, keys), newest in zip(shards, await pipe.execute(), strict=True):
                pipe.zcount(keys.due, "-inf", f"({int(newest or 0) - lateness}")
            due += sum(await pipe.execute())
        return due

    async def close(self) -> None:
        """Close the connections."""
        await self._nodes.aclose()


class Group:
    """So many workers with the same settings, each on a port of its own; their logs are kept."""

    def __init__(
        self,
        stack: LocalStack,
        redis: ValkeyServer | ValkeyCluster,
        settings: Settings,
        partitions: int,
        workers: int,
        name: str,
    ) -> None:
        self._stack, self._redis, self._partitions = stack, redis, partitions
        self.settings = settings
        self.members = [
            WorkerProcess(
                stack.data_dir / f"{name}-{number}",
                settings.but(web_port=free_port()),
                RESULTS / "logs" / f"{name}-{number}.log",
            )
            for number in range(1, workers + 1)
        ]

    def start(self) -> list[int]:
        """Start all, and return when each has had its shards for a while: how many each has.

        Raises BenchmarkError or LocalStackError where it does not come to that.
        """
        for member in self.members:
            member.launch()
        for member in self.members:
            member.wait_until_ready()
        give_up = time.monotonic() + _STALLED
        shards, since = self._shards(), time.monotonic()
        while sum(shards) != self._partitions or not all(shards) or time.monotonic() - since < _SETTLED:
            self.check()
            if time.monotonic() > give_up:
                raise BenchmarkError(f"after {_STALLED:g} s the workers have {shards} of all shards")
            time.sleep(_LOOK)
            if (now := self._shards()) != shards:
                shards, since = now, time.monotonic()
        return shards

    def _shards(self) -> list[int]:
        found = []
        for member in self.members:
            shards = _SHARDS.search(self._metrics(member))
            found.append(int(float(shards[1])) if shards else 0)
        return found

    def counted(self) -> list[int]:
        """Events that each has counted. Raises BenchmarkError where one of them made anything else of an event."""
        found = []
        for member in self.members:
            outcomes = outcomes_of(self._metrics(member))
            if any(count for outcome, count in outcomes.items() if outcome != "counted"):
                raise BenchmarkError(f"not all events were counted: {outcomes}")
            found.append(outcomes.get("counted", 0))
        return found

    def _metrics(self, member: WorkerProcess) -> str:
        try:
            return metrics_of(member)
        except OSError as error:
            self.check()
            raise BenchmarkError(
                f"a worker does not tell its metrics: {error}{member.last_words()}"
            ) from error

    def check(self) -> None:
        """Raise LocalStackError where a worker or a server has ended."""
        self._stack.check()
        self._redis.check()
        for member in self.members:
            member.check()

    def last_words(self) -> str:
        """The end of each worker's log."""
        return "".join(member.last_words() for member in self.members)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far: the workers', the broker's, Redis', and of the whole machine."""
        return {
            "workers": _cpu(self.members),
            "broker": _cpu([self._stack.kafka]),
            "redis": _cpu(redis_servers(self._redis)),
            "machine": busy(),
        }

    def stop(self) -> None:
        """Stop all, side by side."""
        for member in self.members:
            member.request_stop()
        for member in self.members:
            member.stop()

    async def catch_up(self, backlog: Backlog, lateness: int = 0) -> Numbers:
        """Release the backlog, and measure how long it takes until all of it is committed and published. Then wait for
        what falls due by the clock of the events: the changes are all that must come.

        Raises BenchmarkError where nothing moves, or the workers counted other events than those.
        """
        watch = StoreWatch(self.settings, self._partitions)
        try:
            before = await watch.look()
            if backlog.read(before.watermarks):
                raise BenchmarkError("something was read of purchases that nobody may read yet")
            counted, cpu, began = self.counted(), self.cpu(), time.monotonic()
            backlog.release()
            numbers = await self._follow(watch, backlog, before, counted, cpu, began)
            give_up = time.monotonic() + _STALLED
            while await watch.overdue(lateness) or (now := await watch.look()).unpublished:
                self.check()
                if time.monotonic() > give_up:
                    raise BenchmarkError(f"what falls due is not published after {_STALLED:g} s")
                await asyncio.sleep(_LOOK)
            return numbers | {"changes": now.changes - before.changes}
        finally:
            await watch.close()

    async def _follow(
        self,
        watch: StoreWatch,
        backlog: Backlog,
        before: Seen,
        counted: Sequence[int],
        cpu: Mapping[str, float],
        began: float,
    ) -> Numbers:
        events = backlog.events
        first = fifth = committed_at = None
        seen, moved = before, began
        while True:
            self.check()
            now, at = await watch.look(), time.monotonic()
            read = backlog.read(now.watermarks)
            if read and first is None:
                first = at
            if fifth is None and read >= events // 5:
                fifth = read, at
            if committed_at is None and read == events:
                committed_at = at
            if read == events and not now.unpublished:
                break
            if now != seen:
                seen, moved = now, at
            elif at - moved > _STALLED:
                raise BenchmarkError(
                    f"nothing has moved for {_STALLED:g} s: {read:,} read{self.last_words()}"
                )
            await asyncio.sleep(_LOOK)
        spent = {name: value - cpu[name] for name, value in self.cpu().items()}
        if first is None or fifth is None or committed_at is None:
            raise BenchmarkError("there was nothing to be read")
        by_worker = [now - then for now, then in zip(self.counted(), counted, strict=True)]
        if sum(by_worker) != events:
            raise BenchmarkError(f"of {events:,} events the workers counted {by_worker}")
        return _numbers(events, at - began, spent) | {
            "seconds_to_first_commit": first - began,
            "seconds_after_last_commit": at - committed_at,
            "steady_per_second": (events - fifth[0]) / max(1e-9, at - fifth[1]),
            "events_by_worker": by_worker,
        }


def _numbers(events: int, seconds: float, spent: dict[str, float]) -> Numbers:
    others = spent.pop("machine") - sum(spent.values())
    return {
        "events": events,
        "seconds": seconds,
        "whole_per_second": events / seconds,
        "cores": {name: value / seconds for name, value in spent.items()},
        "cpu_us_per_event": {name: value / events * 1e6 for name, value in spent.items()},
        "other_cores": max(0.0, others / seconds),
    }


def _cpu(servers: Iterable[Server]) -> float:
    """CPU seconds that processes have taken so far, user and system."""
    total = 0.0
    for server in servers:
        if server.pid is None:
            raise BenchmarkError(f"{server.name} has ended")
        times = psutil.Process(server.pid).cpu_times()
        total += times.user + times.system
    return total
