"""Alerts of a real Prometheus that scrapes real workers: they come with the fault, and go when it is healed."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from kafka import TopicPartition
from redis import Redis

from cli.local_stack import LocalStack, ValkeyServer
from streams.topics import administration
from tests.faults.prometheus import DEPLOYED, Prometheus, faster
from tests.space import DAY, Space, Worker, now_ms, purchase, wait_until

START = 1_500_000_000_000

Watched = Callable[..., tuple[Worker, Prometheus]]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A worker of a space, and a Prometheus that finds all well."""
    started: list[Prometheus] = []

    def start(space: Space, **env: Any) -> tuple[Worker, Prometheus]:
        worker = space.worker(**env)
        prometheus = Prometheus(tmp_path / "prometheus", worker.port)
        started.append(prometheus)
        prometheus.start()
        prometheus.wait_calm()
        return worker, prometheus

    yield start
    for prometheus in started:
        prometheus.stop()


def again(space: Space, worker: Worker, **env: Any) -> Worker:
    """The same worker, started once more: its page is where Prometheus looks for it."""
    log = space.directory / f"worker{len(space.workers)}.log"
    anew = Worker(space.env(KIZUNA_WEB_PORT=worker.port, **env), worker.port, log)
    space.workers.append(anew)
    return anew


def test_the_rules_are_those_that_are_deployed_but_for_their_patience() -> None:
    deployed = yaml.safe_load((DEPLOYED / "alerts.yml").read_text())
    waits = []
    for group, here in zip(deployed["groups"], faster(deployed)["groups"], strict=True):
        for rule, fast in zip(group["rules"], here["rules"], strict=True):
            waits.append((rule.pop("for", None), fast.pop("for", None)))
            assert rule == fast
    assert ("2m", "2000ms") in waits
    assert all((slow is None) == (fast is None) for slow, fast in waits)


def test_where_redis_is_away_shards_are_held_by_nobody_until_it_is_back(
    stack: LocalStack, tmp_path: Path, watched: Watched
) -> None:
    own = ValkeyServer(tmp_path / "valkey")
    own.start()
    try:
        # Kafka is everybody's, Redis is this test's.
        place = SimpleNamespace(brokers=stack.brokers, redis_url=f"redis://{own.address}/0")
        with Space(cast(LocalStack, place), tmp_path) as space:
            _, prometheus = watched(space)
            space.publish([purchase("a", 1, "5.00", now_ms())])
            space.wait_read()
            own.stop()
            space.publish([purchase(f"c{n}", n, "5.00", now_ms()) for n in range(50)])
            assert prometheus.wait_firing("KizunaShardsNotHeld") == [
                "3 shards of kizuna are held by no worker"
            ]
            own.start()
            space.wait_read()
            prometheus.wait_calm()
            assert space.readable("c49")["lifetime_orders"] == "1"
    finally:
        own.stop()


def test_a_flood_of_dead_letters_is_told_until_what_can_be_used_prevails(
    new_space: Callable[..., Space], watched: Watched
) -> None:
    space = new_space(partitions=1, clock="event")
    _, prometheus = watched(space)
    bad = [purchase("a", n, "five", START) for n in range(1_000)]
    space.publish([purchase("a", "first", "5.00", START), *bad])
    (said,) = prometheus.wait_firing("KizunaDeadLetterFlood")
    assert said.endswith("% of purchases are dead letters")
    assert prometheus.wait_firing("KizunaDeadLetters")[0].endswith(
        "of purchases within an hour (invalid_event)"
    )
    space.publish([purchase(f"c{n % 100}", f"good{n}", "5.00", START) for n in range(12_000)])
    space.wait_read()
    wait_until(lambda: "KizunaDeadLetterFlood" not in prometheus.firing(), 60, "the flood is over")
    # Each of them still waits for somebody to mend it.
    assert "KizunaDeadLetters" in prometheus.firing()


@pytest.mark.long
def test_a_worker_that_stops_as_the_log_is_shorter_than_the_watermark_tells_why_until_the_store_is_mended(
    new_space: Callable[..., Space], watched: Watched
) -> None:
    space = new_space(partitions=1, clock="event")
    worker, prometheus = watched(space)
    backups = []
    for first in (0, 5):
        space.publish([purchase("a", n, "5.00", START) for n in range(first, first + 5)])
        space.wait_read()
        backups.append(backup(space))
    with administration(space.settings) as admin:
        admin.delete_records({TopicPartition(space.topic("purchases"), 0): 8})
    # The wrong backup: its watermark is 5.
    restore(space, backups[0])
    (said,) = prometheus.wait_firing("KizunaStopped")
    assert said == f"127.0.0.1:{worker.port} (kizuna) stopped: records-gone"
    assert worker.process.wait(30) == 1
    assert "the store has read up to 5, the log begins at 8" in worker.log.read_text()
    prometheus.wait_firing("KizunaWorkerDown")
    prometheus.wait_firing("KizunaShardsNotHeld")
    assert "KizunaStopped" in prometheus.firing(), "why is told for longer than the worker is there"

    restore(space, backups[1])
    again(space, worker).wait_ready()
    prometheus.wait_calm()
    space.publish([purchase("a", 10, "5.00", START)])
    space.wait_read()
    assert space.readable("a")["lifetime_orders"] == "11"


def backup(space: Space) -> dict[str, bytes]:
    """All of the space's keys, as Redis itself writes them."""
    with Redis.from_url(space.settings.redis_url) as redis:
        keys = redis.keys(f"{space.name}:*")
        return {key.decode(): cast(bytes, redis.dump(key)) for key in keys}


def restore(space: Space, kept: dict[str, bytes]) -> None:
    """Those keys and no others, at once, as a restored backup would have them."""
    with space.redis.pipeline(transaction=True) as pipe:
        for key in space.redis.keys(f"{space.name}:*"):
            pipe.delete(key)
        for key, dumped in kept.items():
            pipe.restore(key, 0, dumped, replace=True)
        pipe.execute()


def test_paused_publishing_is_told_until_somebody_decides(
    new_space: Callable[..., Space], watched: Watched
) -> None:
    space = new_space(partitions=1, clock="event", window="30d", ledger="120d")
    _, prometheus = watched(space, KIZUNA_FALLS_LIMIT="0.5")
    space.publish([purchase(f"c{n}", 1, "150.00", START) for n in range(40)])
    space.wait_read()
    # It moves the clock beyond the window of the forty: all of them fall.
    space.publish([purchase("late", 2, "150.00", START + 31 * DAY)])
    (said,) = prometheus.wait_firing("KizunaPublishingPaused")
    assert said == "Shard 0 of kizuna publishes nothing until somebody decides"
    assert space.kizuna("outbox", "release").returncode == 0
    prometheus.wait_calm()
    space.wait_read()
    assert len(space.changes("c0")) == 2


@pytest.mark.long
def test_where_kafka_does_not_answer_the_worker_says_so_and_its_last_sweep_stands_still(
    stack: LocalStack, new_space: Callable[..., Space], watched: Watched
) -> None:
    worker, prometheus = watched(new_space(partitions=1))
    # What the alert KizunaSweepsStandStill looks at. It waits for three minutes, in which no other one fires.
    silence = "time() - kizuna_last_sweep_timestamp_seconds and on (job, instance) kizuna_shards > 0"
    wait_until(lambda: (prometheus.value(silence) or 9) < 3, 30, "sweeps")
    kafka = stack.kafka.pid
    assert kafka is not None
    os.kill(kafka, signal.SIGSTOP)
    try:
        wait_until(lambda: (prometheus.value(silence) or 0) > 5, 60, "a silence")
        status, said = worker.get("/readyz")
        assert (status, b"Kafka did not answer" in said) == (503, True)
    finally:
        os.kill(kafka, signal.SIGCONT)
    wait_until(lambda: (prometheus.value(silence) or 9) < 3, 60, "sweeps again")
    worker.wait_ready()
