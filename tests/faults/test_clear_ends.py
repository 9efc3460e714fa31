"""Where going on would lose or double something, the worker stops by itself, and says what, why and what to do."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from cli.local_stack import KafkaServer, LocalStack
from streams.protocols import INPUTS, PURCHASES
from streams.topics import COPARTITIONED, TIER_CHANGES, administration
from tests.faults.ending import Logs, ended, ending, verdict_of, watermarks
from tests.faults.load import Load, stream
from tests.faults.processes import is_suspended, progress, resume
from tests.faults.reading import Follower, Inputs
from tests.faults.sections import BONDED
from tests.faults.valkey import OwnValkey
from tests.faults.verifier import is_settled, verify
from tests.space import Servers, Space, Worker, purchase, wait_until

EVENTS = 1_500


def worked(space: Space, seed: int) -> tuple[Worker, Load]:
    """A worker that has read and published all there was, and who sends more."""
    load = Load(space, stream(seed, customers=60))
    load.send(EVENTS)
    worker = ending(space).wait_ready()
    wait_until(lambda: is_settled(space, None), 60, "all read, fallen and published")
    return worker, load


def suspend(worker: Worker) -> None:
    worker.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: is_suspended(worker), 10, "a suspended worker")


def ends(space: Space, *topics: str) -> dict[TopicPartition, int]:
    places = [TopicPartition(space.topic(topic), p) for topic in topics for p in range(space.partitions)]
    return space._probe.end_offsets(places)


def starts(space: Space, topic: str) -> list[int]:
    places = [TopicPartition(space.topic(topic), p) for p in range(space.partitions)]
    return list(space._probe.beginning_offsets(places).values())


def delete_all(space: Space, *topics: str) -> None:
    """Every record there is, as a retention does, and at once."""
    with administration(space.settings) as admin:
        admin.delete_records(ends(space, *topics))


def make_anew(space: Space, topic: str) -> None:
    """Delete a topic, and make it with the settings it had."""
    name = space.topic(topic)
    with administration(space.settings) as admin:
        admin.delete_topics([name])
        wait_until(lambda: name not in admin.list_topics(), 20, "the topic is gone")
    space.create_topics()


def strangers(each: int) -> list[dict[str, Any]]:
    """So many purchases of each of some customers whom nobody knows; each of them would rise at the first one."""
    return [
        purchase(f"stranger{n % 40}", f"s{n}", "500.00", "2017-09-01T00:00:00Z") for n in range(40 * each)
    ]


# -- the log is shorter than what is to be read ----------------------------------------------------------------


async def test_what_was_read_may_be_deleted_but_not_what_a_worker_still_has_to_read(space: Space) -> None:
    """First under an idle worker, whom it must not disturb; then under one that lags."""
    inputs = Inputs(space)
    worker, load = worked(space, 80)
    inputs.follow()
    delete_all(space, *INPUTS)
    load.send(400)
    verdict = await verify(space, inputs=inputs)
    assert verdict.is_clean, verdict

    suspend(worker)
    before = watermarks(space)
    load.send(400)
    logs = inputs.follow()
    delete_all(space, PURCHASES)
    resume(worker)
    line = ended(worker, "records-gone")
    assert "the store has read up to" in line
    assert "records between are gone unread" in line
    assert "`kizuna rebuild`" in line
    assert space.topic(PURCHASES) in line
    assert any(
        watermarks(space)[PURCHASES, p] == before[PURCHASES, p] < at
        for p, at in enumerate(starts(space, PURCHASES))
    )
    verdict = await verdict_of(space, logs)
    assert verdict.is_clean, verdict
    assert ended(ending(space), "records-gone") == line


@pytest.mark.long
async def test_records_that_were_deleted_while_no_worker_ran(space: Space) -> None:
    inputs = Inputs(space)
    worker, load = worked(space, 81)
    worker.stop()
    load.send(400)
    logs = inputs.follow()
    delete_all(space, PURCHASES)
    line = ended(ending(space), "records-gone")
    assert "records between are gone unread" in line
    assert "`kizuna rebuild`" in line
    verdict = await verdict_of(space, logs)
    assert verdict.is_clean, verdict
    assert ended(ending(space), "records-gone") == line


class TidyKafka(KafkaServer):
    """Looks at what it may delete all the time: by default it does every five minutes."""

    def settings(self) -> dict[str, str]:
        return super().settings() | {
            "log.retention.check.interval.ms": "200",
            "log.initial.task.delay.ms": "200",
        }


@pytest.fixture
def tidy_kafka(tmp_path: Path) -> Iterator[TidyKafka]:
    server = TidyKafka(tmp_path / "kafka")
    server.start()
    yield server
    server.stop()


@pytest.mark.long
@pytest.mark.parametrize("runs", [True, False], ids=["under a worker that lags", "while no worker runs"])
async def test_a_retention_deletes_what_was_not_read(
    stack: LocalStack, tidy_kafka: TidyKafka, new_space: Callable[..., Space], runs: bool
) -> None:
    """By the broker itself; the space is left before the broker goes."""
    space = new_space(
        servers=Servers(tidy_kafka.address, stack.redis_url),
        partitions=2,
        **BONDED,
    )
    keep(space, **{"segment.ms": "500"})
    inputs = Inputs(space)
    worker, load = worked(space, 82)
    if runs:
        suspend(worker)
    else:
        worker.stop()
    load.send(400)
    logs = inputs.follow()
    keep(space, **{"retention.ms": "1000"})
    # The newest segment goes, too, when its newest record is too old.
    wait_until(
        lambda: starts(space, PURCHASES) == list(ends(space, PURCHASES).values()), 30, "all is deleted"
    )
    if runs:
        resume(worker)
    else:
        assert "retention.ms" in space.refusal()
        keep(space, **{"retention.ms": "-1"})
        worker = ending(space)
    line = ended(worker, "records-gone")
    assert "records between are gone unread" in line
    verdict = await verdict_of(space, logs)
    assert verdict.is_clean, verdict


def keep(space: Space, **configs: str) -> None:
    """Settings of the purchases topic, beside those it has."""
    with administration(space.settings) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, space.topic(PURCHASES), configs)])


# -- a topic is another ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("each", "sleeps"),
    [(1, False), (100, False), (100, True)],
    ids=["shorter", "longer", "longer, and the worker slept meanwhile"],
)
@pytest.mark.long
async def test_an_input_that_is_made_anew_under_a_worker(space: Space, each: int, sleeps: bool) -> None:
    """Where it is longer than the one before, only its id tells; nothing of it may count."""
    inputs = Inputs(space)
    worker, _ = worked(space, 83)
    logs, before = inputs.follow(), watermarks(space)
    slept = monotonic()
    if sleeps:
        suspend(worker)
    make_anew(space, PURCHASES)
    space.publish(strangers(each))
    if sleeps:
        wait_until(lambda: monotonic() > slept + 2, 10, "two seconds")
        resume(worker)
    line = ended(worker, "topic-remade")
    is_told(space, PURCHASES, line)
    assert watermarks(space) == before
    await nothing_counted_of_strangers(space, logs)
    # Who starts now does not even join the group.
    said = space.refusal()
    is_told(space, PURCHASES, said)
    assert space.refusal() == said


def is_told(space: Space, topic: str, line: str) -> None:
    assert space.topic(topic) in line
    assert "was deleted and made anew" in line
    assert "`kizuna rebuild`" in line


async def nothing_counted_of_strangers(space: Space, logs: Logs) -> None:
    records = Follower(space.stack.brokers, space.topic(TIER_CHANGES)).follow()
    assert not [r.key for r in records if (r.key or b"").startswith(b"stranger")]
    verdict = await verdict_of(space, logs)
    assert verdict.is_clean, verdict


@pytest.mark.parametrize("each", [pytest.param(1, marks=pytest.mark.long), 100], ids=["shorter", "longer"])
async def test_an_input_that_was_made_anew_while_no_worker_ran(space: Space, each: int) -> None:
    inputs = Inputs(space)
    worker, _ = worked(space, 84)
    logs = inputs.follow()
    worker.stop()
    make_anew(space, PURCHASES)
    space.publish(strangers(each))
    said = space.refusal()
    is_told(space, PURCHASES, said)
    await nothing_counted_of_strangers(space, logs)
    assert space.refusal() == said


@pytest.mark.long
@pytest.mark.parametrize("runs", [True, False], ids=["under a worker", "while no worker runs"])
async def test_tier_changes_is_made_anew(space: Space, runs: bool) -> None:
    """What was published is not there any more: nothing is added to what is left, as if it were all."""
    worker, load = worked(space, 85)
    load.send(400)  # so that the worker knows by what it published how long the topic is
    wait_until(lambda: is_settled(space, None), 60, "all read, fallen and published")
    if not runs:
        worker.stop()
    make_anew(space, TIER_CHANGES)
    load.send(400)
    line = ended(worker if runs else ending(space), "log-ends-before")
    assert f"{space.topic(TIER_CHANGES)}-" in line
    assert "the store knows what was published up to" in line
    assert "it lost records or is another; restore it" in line
    assert "`kizuna rebuild`" in line
    again = ended(ending(space), "log-ends-before")
    assert (
        again.partition(": the store")[2].partition(" up to ")[0]
        == line.partition(": the store")[2].partition(" up to ")[0]
    )
    assert Follower(space.stack.brokers, space.topic(TIER_CHANGES)).follow() == []


@pytest.mark.parametrize(
    "topics",
    [pytest.param((PURCHASES,), marks=pytest.mark.long), COPARTITIONED],
    ids=["one input", "all of them"],
)
async def test_more_partitions_under_a_worker(space: Space, topics: tuple[str, ...]) -> None:
    """Producers use them at once, and half the customers are at home elsewhere."""
    inputs = Inputs(space)
    worker, load = worked(space, 87)
    with administration(space.settings) as admin:
        admin.create_partitions({space.topic(topic): space.partitions + 2 for topic in topics})
    load.send(400)
    line = ended(worker, "store-bound")
    assert f"has {space.partitions + 2} partitions now, the store was built for {space.partitions}" in line
    assert "`kizuna rebuild`" in line
    verdict = await verdict_of(space, inputs.follow())
    assert verdict.is_clean, verdict
    said = space.refusal()
    assert "partitions" in said
    assert space.refusal() == said


# -- Redis is empty ----------------------------------------------------------------------------------------------


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[OwnValkey]:
    server = OwnValkey(tmp_path / "valkey")
    server.start()
    yield server
    server.kill()


@pytest.mark.long
@pytest.mark.parametrize("busy", [True, False], ids=["busy", "idle"])
async def test_redis_is_emptied_under_a_worker_and_restored(
    stack: LocalStack, valkey: OwnValkey, new_space: Callable[..., Space], busy: bool
) -> None:
    """It publishes nothing anew. With its store back, as the line advises, all is well."""
    space = new_space(servers=Servers(stack.brokers, valkey.url), partitions=3, **BONDED)
    worker, load = worked(space, 88)
    if busy:
        load.start()
        wait_until(progress(space), 40, "progress")
    with valkey.client() as redis:
        size = valkey.size()
        redis.flushall()
    line = ended(worker, "store-empty")
    load.stop()
    assert "the store is empty, but" in line
    assert "restore the store" in line
    assert "`kizuna rebuild`" in line
    out = Follower(space.stack.brokers, space.topic(TIER_CHANGES)).follow()
    again = ended(ending(space), "store-empty")
    assert again.partition(" up to ")[0] == line.partition(" up to ")[0]
    assert Follower(space.stack.brokers, space.topic(TIER_CHANGES)).follow() == out
    assert space.redis.dbsize() == 0

    valkey.kill()
    assert valkey.cut_to(size) > 0
    valkey.start()
    ending(space).wait_ready()
    verdict = await verify(space, lost_writes=True)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict
