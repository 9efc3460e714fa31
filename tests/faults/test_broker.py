"""Kafka goes away while a worker works, or does not take what it must publish: input waits, nothing is lost."""

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from cli.local_stack import LocalStack
from streams.topics import administration
from tests.faults.load import Load, Sent, stream
from tests.faults.processes import launch, metric, progress
from tests.faults.sections import BONDED
from tests.faults.verifier import verify
from tests.space import Space, Worker, wait_until

BOUND = 500


@pytest.fixture(scope="module")
def own_stack() -> Iterator[LocalStack]:
    """A Kafka that only the tests of this file use."""
    with LocalStack() as running:
        yield running


@pytest.fixture
def own_space(own_stack: LocalStack, new_space: Callable[..., Space]) -> Space:
    if not own_stack.kafka.running:
        own_stack.kafka.start()
    return new_space(servers=own_stack, partitions=4, **BONDED)


def outbox(space: Space) -> int:
    """Entries of the fullest outbox."""
    return max(space.redis.llen(f"{space.name}:{{{p}}}:outbox") for p in range(space.partitions))


def log_bytes(worker: Worker) -> int:
    return worker.log.stat().st_size


def stopped(stack: LocalStack) -> None:
    stack.kafka.stop()


def killed(stack: LocalStack) -> None:
    stack.kafka.kill()


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("end", "seconds"),
    [(stopped, 0), (killed, 0), (stopped, 120)],
    ids=["stopped", "killed", "gone for 2 minutes"],
)
async def test_kafka_is_away_and_comes_back(
    own_stack: LocalStack, own_space: Space, end: Callable[[LocalStack], None], seconds: int
) -> None:
    space = own_space
    load = Load(space, stream(70))
    load.send(2_000)
    worker = launch(space, KIZUNA_OUTBOX_BOUND=BOUND).wait_ready()
    with load:
        wait_until(progress(space), 40, "progress")
        logged = log_bytes(worker)
        space.leave_kafka()
        end(own_stack)
        gone_at, sent = time.monotonic(), load.sent
        while time.monotonic() < gone_at + seconds:
            assert worker.process.poll() is None, worker.log.read_text()
            assert outbox(space) <= BOUND + 2_000
            await asyncio.sleep(1)
        own_stack.kafka.start()
        wait_until(progress(space), 120, "progress after it came back")
        took = time.monotonic() - gone_at
        load.stop()
        assert load.sent > sent
    verdict = await verify(space, seconds=150)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict
    logged = log_bytes(worker) - logged
    print(f"away for {took:.0f} s, {logged} bytes of log")
    # A line of a library passes once in five seconds, however often it repeats.
    assert logged < 20_000 + 1_500 * took, f"{logged} bytes of log in {took:.0f} s"


def set_size(space: Space, size: int) -> None:
    """How large a record of the dead-letter topic may be."""
    resource = ConfigResource(
        ConfigResourceType.TOPIC, space.topic("dead-letters"), configs={"max.message.bytes": str(size)}
    )
    with administration(space.settings) as admin:
        admin.alter_configs([resource])


@pytest.mark.long
async def test_while_the_dead_letter_topic_takes_nothing_the_outbox_stays_bounded_and_input_waits(
    space: Space,
) -> None:
    def with_bad_ones() -> Iterator[Sent]:
        for number, sent in enumerate(stream(71)):
            yield sent
            if number % 4 == 0:
                yield Sent("purchases", sent.key, b"{bad %d" % number)

    load = Load(space, with_bad_ones(), rate=1_500)
    load.send(2_000)
    worker = launch(space, KIZUNA_OUTBOX_BOUND=BOUND).wait_ready()
    with load:
        wait_until(progress(space), 40, "progress")
        logged = log_bytes(worker)
        set_size(space, 100)
        began = time.monotonic()

        def full() -> bool:
            return all(
                space.redis.llen(f"{space.name}:{{{p}}}:outbox") >= BOUND for p in range(space.partitions)
            )

        wait_until(full, 60, "full outboxes")

        def is_still() -> bool:
            before = outbox(space), space.committed()
            time.sleep(1)
            return before == (outbox(space), space.committed())

        wait_until(is_still, 20, "what was in hand already is done")
        assert outbox(space) <= BOUND + 2_000
        most, committed = outbox(space), space.committed()
        for _ in range(50):
            assert outbox(space) == most, "an outbox that is full grows"
            assert space.committed() == committed, "input is read on"
            await asyncio.sleep(0.1)
        assert not space.all_is_read()
        took = time.monotonic() - began
        logged = log_bytes(worker) - logged
        set_size(space, 1_114_124)
        wait_until(progress(space), 60, "progress after the repair")
        load.stop()
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.dead_letters) > 100, verdict
    assert metric(worker, 'kizuna_shards_lost_total{cause="unavailable"}') > 0
    print(f"full outboxes of up to {most} entries, {logged} bytes of log in {took:.0f} s")
    assert logged < 20_000 + 1_500 * took, f"{logged} bytes of log in {took:.0f} s"
