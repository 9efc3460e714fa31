"""How long brokers may hold back an empty answer: short while something comes, longer while nothing does."""

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher
from faust.types import TP

from streams import transport
from streams.transport import ReaderThread, batch_bytes

HERE = TP("purchases", 0)


class FakeFetcher:
    """aiokafka's, as far as `ReaderThread` looks at it: one partition, and records when told so."""

    def __init__(self) -> None:
        self._closed = False
        self._fetch_max_wait_ms = transport._FETCH_WAIT_MS
        self.state = SimpleNamespace(position=0, has_valid_position=True, timestamp=None)
        assignment = SimpleNamespace(tps=[HERE], state_value=lambda tp: self.state)
        self._subscriptions = SimpleNamespace(
            subscription=SimpleNamespace(assignment=assignment),
            reassignment_in_progress=False,
            fetch_context=nullcontext,
        )
        self.arrived: list[Any] = []

    async def fetched_records(self, wanted: Any, timeout: int) -> dict[TP, list[Any]]:
        found, self.arrived = self.arrived, []
        self.state.position += len(found)
        return {HERE: found} if found else {}

    def _create_fetch_waiter(self) -> "asyncio.Future[None]":
        return asyncio.get_running_loop().create_future()


@pytest.fixture
def fetcher() -> FakeFetcher:
    return FakeFetcher()


@pytest.fixture
def thread(fetcher: FakeFetcher, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(transport, "_LOOK", 0.02)
    made: Any = object.__new__(ReaderThread)
    made._heard = {}
    made.consumer = SimpleNamespace(flow_active=True)
    made._ensure_consumer = lambda: SimpleNamespace(_fetcher=fetcher, _closed=False)
    return made


async def test_after_a_while_without_anything_an_empty_answer_may_take_longer_until_something_comes(
    thread: Any, fetcher: FakeFetcher
) -> None:
    assert await thread._fetch({HERE}, 1.0) == (0, {})
    assert fetcher._fetch_max_wait_ms == transport._IDLE_WAIT_MS
    fetcher.arrived = ["a", "b"]
    assert await thread._fetch({HERE}, 1.0) == (0, {HERE: (0, 2, ["a", "b"])})
    assert fetcher._fetch_max_wait_ms == transport._FETCH_WAIT_MS


async def test_where_others_wait_for_room_a_short_look_does_not_count_as_a_while(
    thread: Any, fetcher: FakeFetcher
) -> None:
    assert await thread._fetch({HERE}, 0.001) == (0, {})
    assert fetcher._fetch_max_wait_ms == transport._FETCH_WAIT_MS


def test_a_partition_is_heard_of_often_enough_while_idle() -> None:
    assert transport._IDLE_WAIT_MS / 1000 + transport._LOOK < transport._SILENCE


def test_aiokafka_asks_with_what_is_set() -> None:
    assert "_fetch_max_wait_ms" in Fetcher._get_actions_per_node.__code__.co_names


def test_what_is_read_ahead_is_shared_by_the_shards_within_bounds() -> None:
    mib = 1024 * 1024
    assert [batch_bytes(96 * mib, shards) // mib for shards in (0, 1, 12, 24, 48, 96, 960)] == [
        *(8, 8, 8, 4, 2, 1, 1)
    ]
    assert batch_bytes(mib, 12) == mib
