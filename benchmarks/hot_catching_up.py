"""Neighbours catch up beside a hot customer: the same flow, with and without its events."""

import asyncio
import heapq
from collections.abc import Iterator
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis

from benchmarks.backlog import Backlog
from benchmarks.group import Group
from benchmarks.holdings import forget
from benchmarks.orders import DAY_MS, purchases
from benchmarks.results import Numbers
from benchmarks.worker import BenchmarkError, create_all, settings_on
from cli.local_stack import LocalStack
from schemas.murmur2 import home
from streams.keys import ShardKeys
from streams.settings import Settings
from streams.topics import administration

HOT = "hot"

_BEGIN = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1000)
_YEAR_MS = 365 * DAY_MS
#: Purchases of a neighbour in the flow, on average.
_EACH = 15


def orders_in_window(redis: Any, settings: Settings, partitions: int) -> int:
    """Of the hot customer, as everybody may read it."""
    keys = ShardKeys(settings.redis_prefix, home(HOT.encode(), partitions))
    return int(redis.hget(keys.customer(HOT), "frequency") or 0)


class CatchingUp:
    """All rounds of one number of partitions."""

    def __init__(
        self, stack: LocalStack, program: Path, partitions: int, orders: int, share: float, events: int
    ) -> None:
        self._stack, self._program, self._partitions = stack, program, partitions
        self._orders = orders
        #: Milliseconds between two orders of the hot customer: as many enter its window as leave it.
        self._gap = _YEAR_MS / orders
        self._hot_events = max(1, round(events * share))
        draw = np.random.Generator(np.random.PCG64(1))
        span = self._gap * self._hot_events
        self._times = (np.sort(draw.random(events)) * span).astype(np.int64).tolist()
        self._who = draw.integers(max(1, events // _EACH), size=events).tolist()
        self._redis: Any = Redis.from_url(stack.redis_url)

    def run(self, with_hot: bool, number: int) -> Numbers:
        """One round, in topics and a store of its own. The worker has read the hot customer's year before, and waits.

        Raises BenchmarkError where the hot customer does not have its orders in the window, before or after.
        """
        mark = f"hot-{self._partitions}-{'with' if with_hot else 'without'}-{number}"
        settings = settings_on(self._stack, str(self._program)).but(
            topic_prefix=f"{mark}.", group=mark, redis_prefix=mark
        )
        forget(self._redis)
        create_all(settings, self._partitions)
        before = Backlog(settings, self._partitions, f"{mark}-before").hold(purchases(self._year(), "h"))
        group = Group(self._stack, self._stack.redis, settings, self._partitions, 1, mark)
        try:
            group.start()
            asyncio.run(group.catch_up(before))
            self._check(settings)
            flow = Backlog(settings, self._partitions, f"{mark}-flow")
            flow.hold(purchases(self._flow(with_hot), "f"))
            told = asyncio.run(group.catch_up(flow))
            self._check(settings)
        finally:
            group.stop()
            with administration(settings) as admin:
                own = [topic for topic in admin.list_topics() if topic.startswith(settings.topic_prefix)]
                admin.delete_topics(own)
        return told

    def _check(self, settings: Settings) -> None:
        held = orders_in_window(self._redis, settings, self._partitions)
        if abs(held - self._orders) > 1:
            raise BenchmarkError(f"the hot customer has {held:,} orders in the window, not {self._orders:,}")

    def _year(self) -> Iterator[tuple[str, int]]:
        """The hot customer's year up to the flow."""
        for order in range(self._orders):
            yield HOT, _BEGIN + round((order + 1) * self._gap)

    def _flow(self, with_hot: bool) -> Iterator[tuple[str, int]]:
        start = _BEGIN + _YEAR_MS
        neighbours = ((f"c{who:07d}", start + at) for who, at in zip(self._who, self._times, strict=True))
        if not with_hot:
            return neighbours
        own = ((HOT, start + round((order + 1) * self._gap)) for order in range(self._hot_events))
        return heapq.merge(neighbours, own, key=itemgetter(1))
