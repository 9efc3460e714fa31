"""A broker that is gone must not fill the disk."""

import logging

import pytest

from streams import logs
from streams.logs import RateLimit


def record(message: str, *args: object, name: str = "aiokafka") -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 1, message, args, None)


class Time:
    now = 1000.0


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock.now)
    return clock


def test_the_same_message_passes_once_in_a_while(time: Time) -> None:
    limit = RateLimit(every=5)
    assert limit.filter(record("no connection to %s", "a"))
    assert not limit.filter(record("no connection to %s", "b"))
    time.now += 4.9
    assert not limit.filter(record("no connection to %s", "a"))
    time.now += 0.2
    assert limit.filter(record("no connection to %s", "a"))


def test_other_messages_and_other_loggers_pass(time: Time) -> None:
    limit = RateLimit()
    assert limit.filter(record("one"))
    assert limit.filter(record("two"))
    assert limit.filter(record("one", name="streams.shards"))


def test_what_is_remembered_is_bounded(time: Time) -> None:
    limit = RateLimit()
    for n in range(5_000):
        assert limit.filter(record(f"message {n}"))
    assert len(limit._passed) <= 1_001
