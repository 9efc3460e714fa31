"""Positions without records: markers, aborted records, compaction. No false alarm, and nothing aborted counts."""

import asyncio
import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from streams.topics import administration
from tests.faults.load import START, STEP, Load, Sent, stream
from tests.faults.processes import evict, launch, metric, stepped
from tests.faults.reading import Follower
from tests.faults.stepped import Step
from tests.faults.verifier import verify
from tests.space import Space, Worker, purchase, wait_until


class Shop:
    """A producer that sends in transactions."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self.aborted = 0
        self._producer = space.confluent(
            **{
                "transactional.id": f"{space.name}-shop",
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                "log_level": 0,
            }
        )
        self._producer.init_transactions(30)

    def begin(self, events: Iterable[Sent]) -> None:
        self._producer.begin_transaction()
        for sent in events:
            self._producer.produce(self._space.topic(sent.topic), sent.value, sent.key)
        assert self._producer.flush(30) == 0

    def commit(self) -> None:
        self._producer.commit_transaction(30)

    def abort(self) -> None:
        self._producer.abort_transaction(30)
        self.aborted += 1


def never(number: int) -> Iterator[Sent]:
    """Events that would make everybody gold, at once; to be aborted."""
    for customer in (f"c{n}" for n in range(250)):
        event = purchase(customer, f"never{number}-{customer}", "9999.00", START + STEP)
        yield Sent("purchases", customer.encode(), json.dumps(event).encode())


def purchases_read(space: Space) -> int:
    """Up to where purchases are committed, over all shards."""
    tags = [f"{space.name}:{{{p}}}:shard" for p in range(space.partitions)]
    return sum(int(space.redis.hget(tag, "offset:purchases") or 0) for tag in tags)


def is_unalarmed(worker: Worker) -> None:
    """Nothing was lost or taken over again, and nobody was warned of anything."""
    assert metric(worker, "kizuna_shards_lost_total") == 0
    assert metric(worker, "kizuna_take_overs_total") == metric(worker, "kizuna_shards")
    assert " lost " not in worker.log.read_text()


async def test_markers_and_aborted_records_alarm_nobody_and_count_nothing(space: Space) -> None:
    random_ = random.Random(90)
    events = stream(90)
    shop = Shop(space)
    # Partitions that begin, and later end, with nothing but what was aborted.
    shop.begin(never(0))
    shop.abort()
    doomed = stepped(space, Step.BEFORE_COMMIT, 25, after=1)
    for number in range(1, 1_000):
        if number % 4 == 0:
            shop.begin(never(number))
            shop.abort()
        else:
            shop.begin(next(events) for _ in range(random_.randrange(1, 80)))
            shop.commit()
        if number > 60 and doomed.has_bitten:
            break
    doomed.wait_bitten(1)
    assert not space.all_is_read()
    evict(space)
    worker = launch(space).wait_ready()
    space.wait_read()

    # What stands behind an open transaction is unread, though it is committed, and nothing is wrong.
    shop.begin(never(1_000))
    plain = Load(space, events)
    plain.send(500)
    committed = purchases_read(space)
    await asyncio.sleep(2)
    assert purchases_read(space) == committed
    assert not space.all_is_read()
    assert metric(worker, "kizuna_lag_records") >= 500
    assert worker.get("/readyz")[0] == 200
    shop.abort()
    wait_until(lambda: purchases_read(space) > committed, 20, "what stood behind it is read")
    shop.begin(never(2_000))
    shop.abort()
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict
    assert shop.aborted > 15
    assert not any("never" in str(body["cause_event_id"]) for body in space.changes())
    is_unalarmed(worker)


def set_configs(space: Space, topic: str, **configs: Any) -> None:
    named = {name.replace("_", "."): str(value) for name, value in configs.items()}
    resource = ConfigResource(ConfigResourceType.TOPIC, space.topic(topic), configs=named)
    with administration(space.settings) as admin:
        admin.alter_configs([resource])


def left(space: Space, topic: str) -> tuple[int, int]:
    """Records of a topic, and positions between the first and the last of each partition that hold none."""
    records = Follower(space.stack.brokers, space.topic(topic)).follow()
    holes = 0
    for partition in range(space.partitions):
        offsets = [r.offset for r in records if r.partition == partition]
        holes += 1 + offsets[-1] - offsets[0] - len(offsets) if offsets else 0
    return len(records), holes


@pytest.mark.long
async def test_holes_of_compaction_and_a_log_that_begins_late_alarm_nobody(space: Space) -> None:
    """A worker refuses an input that is compacted; one that was, once, has holes all the same."""
    compacts = {"segment_ms": 1_000, "min_cleanable_dirty_ratio": 0.0, "max_compaction_lag_ms": 1_000}
    set_configs(space, "purchases", cleanup_policy="compact", **compacts)
    load = Load(space, stream(91, customers=400))
    load.send(4_000)
    await asyncio.sleep(1.5)
    load.send(2_000)  # in another segment: only what lies before the newest is compacted

    def has_holes() -> bool:
        load.send(50)
        return left(space, "purchases")[1] > 500

    wait_until(has_holes, 120, "holes")
    set_configs(space, "purchases", cleanup_policy="delete", segment_ms=604_800_000)
    with administration(space.settings) as admin:
        admin.delete_records({TopicPartition(space.topic("purchases"), 0): 300})
    records, holes = left(space, "purchases")
    assert records > 200
    assert holes > 500

    doomed = stepped(space, Step.AFTER_COMMIT, 3).wait_bitten()
    assert doomed.worker.process.returncode == -9
    assert not space.all_is_read()
    evict(space)
    worker = launch(space).wait_ready()
    load.send(6_000)
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert min(verdict.promised, verdict.bonded) > 10, verdict
    is_unalarmed(worker)
