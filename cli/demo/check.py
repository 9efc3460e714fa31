"""Whether the stream said what the batch computation says of the same events."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
from kafka import KafkaConsumer, TopicPartition
from redis import Redis, RedisCluster

from cli.demo.data import Event
from loyalty.batch import Batch, BatchCustomer, batch
from loyalty.batch_facts import Converted
from schemas.dead_letter import REASON_HEADER
from schemas.decoding import EventDecoder
from schemas.events import PurchaseMade, RefundMade, TouchpointMade
from schemas.money import format_minor
from schemas.murmur2 import home
from schemas.program import Program
from schemas.times import format_ms
from streams.inspection import Inspection
from streams.keys import ShardKeys
from streams.protocols import PURCHASES
from streams.settings import Settings, each_host
from streams.topics import CUSTOMER_TIERS, DEAD_LETTERS, TIER_CHANGES

#: What tells in a tier change what had been read of another topic by then.
_NOT_PROMISED = ("contacts", "segment")
#: A record's time in this decoding: so late that nothing is from the future.
_LATE = 2**52


class Published(NamedTuple):
    """What came out of the pipeline, as any `read_committed` client reads it."""

    #: Every tier change's body, by customer, in the order of the log.
    changes: dict[str, list[dict[str, Any]]]
    #: The newest record of each customer in the compacted topic.
    newest: dict[str, dict[str, Any]]
    #: Tier and tier_seq in the hash that any client of Redis may read, by customer.
    shown: dict[str, tuple[str, str]]
    #: How many dead letters, by reason.
    dead_letters: Counter[str]
    #: Changes that stand in another partition than their customer's.
    misplaced: int


class Expected(NamedTuple):
    """What the batch computation says."""

    changes: dict[str, list[dict[str, Any]]]
    #: `state dump` lines by customer, as of the newest purchase of all.
    states: dict[str, dict[str, Any]]
    dead_letters: Counter[str]
    #: Each customer's segment at the end, where the program has any.
    segments: dict[str, str | None]
    #: What holds at the end of each conversion that has a touch, by `conversion_key`.
    attributions: dict[str, dict[str, Any]]


@dataclass(slots=True)
class Verdict:
    """How many were compared, and what differs, a line each."""

    compared: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether nothing differs, of something."""
        return self.compared > 0 and not self.differences

    def expect(self, what: str, found: object, expected: object) -> None:
        """Note a difference."""
        if found != expected:
            self.differences.append(f"{what}: {_short(found)}, batch: {_short(expected)}")


def read_published(settings: Settings, partitions: int) -> Published:
    """Read the output topics from their beginning to their end, with a client of its own."""
    changes: dict[str, list[dict[str, Any]]] = {}
    newest: dict[str, dict[str, Any]] = {}
    dead: Counter[str] = Counter()
    misplaced = 0
    for record in records(settings, TIER_CHANGES):
        body = json.loads(record.value)
        changes.setdefault(body["customer_id"], []).append(body)
        misplaced += record.partition != home(body["customer_id"].encode(), partitions)
    for record in records(settings, CUSTOMER_TIERS):
        newest[record.key.decode()] = json.loads(record.value)
    for record in records(settings, DEAD_LETTERS):
        dead[dict(record.headers)[REASON_HEADER].decode()] += 1
    shown = read_shown(settings, partitions, changes, ("tier", "tier_seq"))
    return Published(changes, newest, shown, dead, misplaced)


def read_shown(
    settings: Settings, partitions: int, customer_ids: Iterable[str], fields: tuple[str, str]
) -> dict[str, tuple[str, str]]:
    """Two fields of the hash that any client of Redis may read, by customer; several hosts are a cluster."""
    ids, hosts = list(customer_ids), each_host(settings.redis_url)
    kind: Any = Redis if len(hosts) == 1 else RedisCluster
    with kind.from_url(hosts[0], decode_responses=True) as redis:
        pipe = redis.pipeline(transaction=False)
        for customer_id in ids:
            keys = ShardKeys(settings.redis_prefix, home(customer_id.encode(), partitions))
            pipe.hmget(keys.customer(customer_id), fields)
        found = zip(ids, pipe.execute() if ids else [], strict=True)
        return {customer_id: (str(one), str(other)) for customer_id, (one, other) in found}


def records(settings: Settings, name: str) -> Iterable[Any]:
    """A topic from its beginning to its end, by the contract's name."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.broker_list(),
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        topic = settings.topic(name)
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for records in consumer.poll(timeout_ms=500).values():
                yield from records
    finally:
        consumer.close()


async def read_states(settings: Settings, program: Program) -> dict[str, dict[str, Any]]:
    """Every customer's `state dump` line, as of the newest purchase of all."""
    inspection = await Inspection.open(settings, program)
    try:
        return {view.customer_id: inspection.line(view) async for view in inspection.dump()}
    finally:
        await inspection.close()


def compute(
    program: Program, events: Sequence[Event], partitions: int, progress: Callable[[int], None]
) -> Expected:
    """The batch computation, partition by partition; `progress` is told how many are done.

    Tiers are computed in order, event by event. Segments and attributions at the end follow from the facts alone,
    whatever order they came in: they are asked once, at the end, and not at each event.
    """
    plain = msgspec.structs.replace(program, bonds=None)
    logs = _logs(program, events, partitions)
    newest = [
        max((e.occurred_at for e in log if not isinstance(e, TouchpointMade)), default=0) for log in logs
    ]
    expected = Expected({}, {}, Counter(), {}, {})
    for partition, log in enumerate(logs):
        computed: Batch = batch(plain, log, until=newest[partition])
        expected.states.update((line["customer_id"], line) for line in computed.lines(max(newest)))
        expected.dead_letters.update({"too_late": computed.too_late} if computed.too_late else {})
        for customer in computed.customers.values():
            if customer.changes:
                expected.changes[customer.customer_id] = [msgspec.to_builtins(c) for c in customer.changes]
        if program.bonds is not None:
            last = {event.customer_id: event.occurred_at for event in log}
            clock = newest[partition] - program.allowed_lateness
            for customer in computed.customers.values():
                # What is due has fallen strictly before the clock, and at the customer's own last event.
                at = max(clock - 1, last[customer.customer_id])
                _ask_bond(program, customer, at, max(newest), expected)
        progress(partition + 1)
    return expected


def _ask_bond(program: Program, customer: BatchCustomer, at: int, newest: int, expected: Expected) -> None:
    """Segment and attributions, told as of `at`; the state's line shows the segment as of `newest`."""
    facts, bonds = customer.bond.facts, program.bonds
    assert bonds is not None
    if bonds.segments:
        expected.segments[customer.customer_id] = facts.segment(program, at)
        expected.states[customer.customer_id] |= {
            "segment": facts.segment(program, newest),
            "attachment": facts.attachment(program, newest),
        }
    if bonds.attribution is not None:
        for conversion in facts.conversions(bonds.attribution):
            if conversion.touch is not None:
                told = _attributed(program, conversion)
                expected.attributions[conversion_key(customer.customer_id, told["conversion"])] = told


def conversion_key(customer_id: str, conversion: dict[str, Any]) -> str:
    """What tells a conversion, as an attribution's body names it, from all others."""
    names = (conversion["kind"], conversion["order_id"], conversion["source"], conversion["event_id"])
    return json.dumps([customer_id, *names])


def _attributed(program: Program, converted: Converted) -> dict[str, Any]:
    event, order, touch = converted.event, converted.order, converted.touch
    assert touch is not None
    return {
        "conversion": {
            "kind": "visit" if order is None else "purchase",
            "order_id": None if order is None else order.order_id,
            "event_id": event.event_id if order is None else None,
            "source": event.source if order is None else None,
            "occurred_at": format_ms(event.occurred_at),
            "channel": event.channel,
            "store_id": event.store_id,
            "campaign_id": event.campaign_id,
        },
        "touch": {
            "event_id": touch.event_id,
            "source": touch.source,
            "channel": touch.channel,
            "direction": touch.direction,
            "action": touch.action,
            "campaign_id": touch.campaign_id,
            "occurred_at": format_ms(touch.occurred_at),
        },
        "match": converted.match,
        "lag_seconds": (event.occurred_at - touch.occurred_at) // 1000,
        "amount": None if order is None else format_minor(order.net, program.decimals),
    }


def compare_states(found: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> Verdict:
    """Byte for byte, as `state dump --json` would print them, contacts included."""
    verdict = Verdict(len(expected))
    for customer_id in sorted(found.keys() | expected.keys()):
        verdict.expect(
            f"customer {customer_id}", _line(found.get(customer_id)), _line(expected.get(customer_id))
        )
    return verdict


def compare_changes(found: Published, expected: dict[str, list[dict[str, Any]]]) -> Verdict:
    """Every change once, in order, without holes, and the same but for `contacts` and `segment`, which rest on
    another topic.

    The compacted topic and the readable hash in Redis must agree with the last one.
    """
    verdict = Verdict(sum(map(len, expected.values())))
    verdict.expect("changes in a wrong partition", found.misplaced, 0)
    for customer_id in sorted(found.changes.keys() | expected.keys() | found.newest.keys()):
        changes = found.changes.get(customer_id, [])
        verdict.expect(
            f"customer {customer_id}, tier_seq",
            [c["tier_seq"] for c in changes],
            list(range(1, len(changes) + 1)),
        )
        for before, after in pairwise(changes):
            verdict.expect(f"{after['event_id']}, previous_tier", after["previous_tier"], before["tier"])
        wanted = expected.get(customer_id, [])
        for number in range(max(len(changes), len(wanted))):
            verdict.expect(
                f"customer {customer_id}, change {number + 1}", _body(changes, number), _body(wanted, number)
            )
        last = changes[-1] if changes else None
        verdict.expect(f"customer {customer_id} in {CUSTOMER_TIERS}", found.newest.get(customer_id), last)
        if last is not None:
            shown = last["tier"], str(last["tier_seq"])
            verdict.expect(f"customer {customer_id} in Redis", found.shown.get(customer_id), shown)
    return verdict


def _logs(
    program: Program, events: Sequence[Event], partitions: int
) -> list[list[PurchaseMade | RefundMade | TouchpointMade]]:
    decoder = EventDecoder(program)
    logs: list[list[PurchaseMade | RefundMade | TouchpointMade]] = [[] for _ in range(partitions)]
    for event in events:
        decode = decoder.purchase if event.topic == PURCHASES else decoder.touchpoint
        logs[home(event.key, partitions)].append(decode(_AsRecord(event.key, event.value)))
    return logs


class _AsRecord(NamedTuple):
    key: bytes
    value: bytes
    headers: tuple[()] = ()
    timestamp: int = _LATE


def _line(state: dict[str, Any] | None) -> str:
    return "nothing" if state is None else json.dumps(state)


def _body(changes: Sequence[dict[str, Any]], number: int) -> str:
    if number >= len(changes):
        return "nothing"
    return json.dumps({name: value for name, value in changes[number].items() if name not in _NOT_PROMISED})


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 400 else text[:400] + "…"
