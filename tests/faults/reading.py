"""What the verifier reads, with plain clients: topics from Kafka, customers from Redis and from `kizuna state dump`."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, KafkaError, TopicPartition

from streams.inspection import Inspection
from streams.protocols import INPUTS
from tests.space import Read, Space, text_of

#: Rank and sequence of a customer: tier, tier_seq.
Standing = tuple[str, int]
#: What is told of bonds.
BOND_TOPICS = ("segment-changes", "nurturing-triggers", "attributions")


class Follower:
    """Reads a topic from its beginning to its present end, and later on from there."""

    def __init__(self, brokers: str, topic: str, isolation: str = "read_committed") -> None:
        self.records: list[Read] = []
        self._topic = topic
        self._next: dict[int, int] = {}
        self._config = {
            "bootstrap.servers": brokers,
            "group.id": "verifier",  # never joined: partitions are assigned by hand
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }

    def follow(self) -> list[Read]:
        """All that was ever read, by partition and offset; what Kafka has deleted since included."""
        consumer = confluent_kafka.Consumer(self._config)
        try:
            described = consumer.list_topics(self._topic, timeout=20).topics[self._topic]
            assert described.error is None, described.error
            open_ = set(described.partitions)
            consumer.assign(
                [TopicPartition(self._topic, p, self._next.get(p, OFFSET_BEGINNING)) for p in open_]
            )
            give_up_at = time.monotonic() + 60
            while open_:
                assert time.monotonic() < give_up_at, f"{self._topic}: no end after 60 s"
                for message in consumer.consume(5_000, 0.2):
                    partition = message.partition()
                    if message.error() is None:
                        self.records.append(_read(message))
                        self._next[partition] = message.offset() + 1
                    else:
                        assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                        open_.discard(partition)
        finally:
            consumer.close()
        self.records.sort(key=lambda r: (r.partition, r.offset))
        return self.records


def _read(message: Any) -> Read:
    return Read(
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        list(message.headers() or []),
    )


class Inputs:
    """The input topics of a space, as far as they were ever read."""

    def __init__(self, space: Space) -> None:
        self._followers = {topic: Follower(space.stack.brokers, space.topic(topic)) for topic in INPUTS}

    def follow(self) -> dict[str, list[Read]]:
        """Every record of each input up to its present end."""
        return {topic: follower.follow() for topic, follower in self._followers.items()}


@dataclass(slots=True)
class Found:
    """What came out of the pipeline, read after all of the input was."""

    #: tier-changes and customer-tiers, and all that was ever written to tier-changes, aborted or not.
    changes: list[Read] = field(default_factory=list)
    tiers: list[Read] = field(default_factory=list)
    uncommitted: list[Read] = field(default_factory=list)
    dead_letters: list[Read] = field(default_factory=list)
    #: What is told of bonds, by topic; and all that was ever written there, aborted or not.
    bonds: dict[str, list[Read]] = field(default_factory=dict)
    uncommitted_bonds: list[Read] = field(default_factory=list)
    #: `kizuna state dump --json` by customer, as of `as_of` (epoch milliseconds).
    as_of: int = 0
    dump: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: By customer: what is packed in Redis, and what the hash says that any client may read.
    stored: dict[str, Standing] = field(default_factory=dict)
    readable: dict[str, Standing] = field(default_factory=dict)
    #: The segment by customer, in both, where the program has segments; and how many records of the bond were decided.
    segments: dict[str, str | None] = field(default_factory=dict)
    readable_segments: dict[str, str | None] = field(default_factory=dict)
    decided: dict[str, int] = field(default_factory=dict)


async def read_found(space: Space, as_of: Callable[[], int]) -> Found:
    """Read all outputs and the state; where time brought something meanwhile (in the wall clock), once more.

    `as_of`: gives the instant of the dump, as time goes on.
    """
    while True:
        before = _told(space)
        found = await _read_once(space, as_of())
        if len(found.changes) + sum(map(len, found.bonds.values())) == before:
            return found


def _told(space: Space) -> int:
    return sum(len(_all(space, topic)) for topic in ("tier-changes", *_bond_topics(space)))


def _bond_topics(space: Space) -> tuple[str, ...]:
    return () if space.program.bonds is None else BOND_TOPICS


async def _read_once(space: Space, as_of: int) -> Found:
    found = Found(as_of=as_of)
    found.dump = {line["customer_id"]: line for line in map(json.loads, space.dump(text_of(as_of)))}
    inspection = await Inspection.open(space.settings, space.program)
    try:
        async for rules, customer in inspection.stored():
            tier = rules.program.tiers[customer.tier].name
            found.stored[customer.customer_id] = tier, customer.tier_seq
            found.segments[customer.customer_id] = customer.bond.segment
            found.decided[customer.customer_id] = customer.bond.seq
    finally:
        await inspection.close()
    _read_readable(space, found)
    found.changes = _all(space, "tier-changes")
    found.uncommitted = _all(space, "tier-changes", "read_uncommitted")
    found.tiers = _all(space, "customer-tiers")
    found.dead_letters = _all(space, "dead-letters")
    for topic in _bond_topics(space):
        found.bonds[topic] = _all(space, topic)
        found.uncommitted_bonds += _all(space, topic, "read_uncommitted")
    return found


def _all(space: Space, topic: str, isolation: str = "read_committed") -> list[Read]:
    return Follower(space.stack.brokers, space.topic(topic), isolation).follow()


def _read_readable(space: Space, found: Found) -> None:
    ids = list(found.stored)
    with space.redis.pipeline(transaction=False) as pipe:
        for customer_id in ids:
            key = f"{space.settings.redis_prefix}:{{{space.home(customer_id)}}}:customer:{customer_id}"
            pipe.hmget(key, ["tier", "tier_seq", "segment"])
        shown = pipe.execute()
    for customer_id, (tier, seq, segment) in zip(ids, shown, strict=True):
        if tier is not None:
            found.readable[customer_id] = tier, int(seq)
            found.readable_segments[customer_id] = segment
