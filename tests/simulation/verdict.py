"""What must hold when a schedule is over: the log computed a second time, and held against what came of it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from copy import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from loyalty.batch import Batch
from loyalty.packing import Packing
from loyalty.rules import Rules
from schemas.murmur2 import home
from schemas.rejection import Reason
from schemas.reroute import REROUTED_HEADER, rerouted_headers
from schemas.tier_change import TierEvent, decode
from schemas.times import parse_rfc3339
from streams.protocols import COMMANDS, INPUTS, PURCHASES
from streams.settings import ClockKind
from streams.topics import CUSTOMER_TIERS, DEAD_LETTERS
from tests.simulation.inputs import Event
from tests.simulation.kafka import Headers, LogRecord
from tests.simulation.verdict_bonds import judge_bonds

if TYPE_CHECKING:
    from tests.simulation.world import World

Place = tuple[str, int, int]


class Truth:
    """What follows from the input logs, by the contract: events, dead letters, records to send on."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.letters: dict[Place, Reason] = {}
        self.reroutes: Counter[tuple[Any, ...]] = Counter()
        self.batches: dict[int, Batch] = {}
        #: By partition, what counts, each topic's in its own order.
        self.counted: dict[int, list[tuple[str, LogRecord, Event]]] = {}
        #: Partitions in which what was counted came in time order, so that the changes are the batch computation's.
        self.ordered: set[int] = set()
        #: Customers for whom a command was read: when it comes among the purchases is nobody's promise.
        self.commanded: set[str] = set()
        self.newest = 0
        for partition in range(world.partitions):
            self._read(partition)

    def _read(self, partition: int) -> None:
        world, program = self.world, self.world.program
        batch = self.batches[partition] = Batch(program)
        counted = self.counted[partition] = []
        is_ordered, newest = True, 0
        for topic, record, event in self._events(partition):
            late = batch.too_late
            if not batch.read(event):
                if batch.too_late > late:
                    self.letters[topic, partition, record.offset] = Reason.TOO_LATE
                    is_ordered = is_ordered and topic != PURCHASES
                continue
            counted.append((topic, record, event))
            self.newest = max(self.newest, event.occurred_at)
            if topic == COMMANDS:
                self.commanded.add(event.customer_id)
            if topic == PURCHASES:
                is_ordered = is_ordered and event.occurred_at >= newest
                newest = event.occurred_at
                if world.scenario.clock is ClockKind.WALL:
                    behind = record.timestamp - event.occurred_at
                    is_ordered = is_ordered and behind <= program.allowed_lateness
        if is_ordered:
            self.ordered.add(partition)

    def _events(self, partition: int) -> Iterator[tuple[str, LogRecord, Event]]:
        """All valid, rightly placed events of a partition, each topic's in its own order."""
        found = []
        for topic in INPUTS:
            for record in self.world.kafka.log(topic, partition).committed():
                event = self._event(topic, partition, record)
                if event is not None:
                    found.append((record.timestamp, topic, record, event))
        # Between topics there is no order; that of the append times is as good as any.
        found.sort(key=lambda one: (one[0], INPUTS.index(one[1]), one[2].offset))
        return ((topic, record, event) for _, topic, record, event in found)

    def _event(self, topic: str, partition: int, record: LogRecord) -> Event | None:
        world = self.world
        place = topic, partition, record.offset
        said = world.scenario.truth[topic, record.value, _unmarked(record.headers)]
        event = said.event
        if event is None:
            assert said.reason is not None
            self.letters[place] = said.reason
            return None
        if event.occurred_at > record.timestamp + world.program.max_future:
            self.letters[place] = Reason.FUTURE_EVENT
            return None
        key = event.customer_id.encode()
        right = home(key, world.partitions)
        if partition == right and record.key == key:
            return event
        if any(name == REROUTED_HEADER for name, _ in record.headers):
            self.letters[place] = Reason.MISROUTED
        else:
            self.reroutes[topic, right, key, record.value, _frozen(rerouted_headers(record.headers))] += 1
        return None


def judge(world: "World") -> list[str]:
    """What does not hold, a line each."""
    truth = Truth(world)
    return [
        *_facts(world, truth),
        *_standing(world, truth),
        *_changes(world, truth),
        *_letters(world, truth),
        *_reroutes(world, truth),
        *_store(world),
        *(judge_bonds(world, truth) if world.program.bonds is not None else ()),
    ]


def _stored(world: "World", partition: int) -> Iterable[Any]:
    rules = Rules(world.program)
    packing = Packing(rules)
    for customer in world.store.load(partition, sorted(world.store.shard(partition).heads), packing):
        yield rules, customer


def _facts(world: "World", truth: Truth) -> Iterator[str]:
    """Metrics, as of one instant, are the batch computation's."""
    for partition, batch in truth.batches.items():
        times = [c.time for _, c in _stored(world, partition) if c.time is not None]
        at = max([world.now(), truth.newest, *times])
        ours = {c.customer_id: r.dump_line(r.view(c, at)) for r, c in _stored(world, partition)}
        theirs = {customer_id: customer._line(at) for customer_id, customer in batch.customers.items()}
        if set(ours) != set(theirs):
            yield f"customers: {sorted(ours)} are stored, the log has {sorted(theirs)}"
        for customer_id in sorted(set(ours) & set(theirs)):
            for name, value in theirs[customer_id].items():
                if name not in ("tier", "tier_seq") and ours[customer_id][name] != value:
                    yield f"facts: {customer_id} {name} is {ours[customer_id][name]}, the log says {value}"


def _standing(world: "World", truth: Truth) -> Iterator[str]:
    """In whatever order the events came: a tier that follows from metrics alone does, and one that is not kept in grace
    holds."""
    program = world.program
    is_plain = all(
        tier.stays_at == (tier.min_monetary, tier.min_frequency)
        and not tier.grace_period
        and tier.downgrade == "requalify"
        for tier in program.tiers
    )
    for partition, batch in truth.batches.items():
        for _, customer in _stored(world, partition):
            if customer.time is None or customer.customer_id not in batch.customers:
                continue
            theirs = copy(batch.customers[customer.customer_id])
            theirs.earned = customer.earned
            world.count("standings judged")
            if is_plain and theirs._enters(customer.time) != customer.earned:
                yield (
                    f"standing: {customer.customer_id} has earned tier {customer.earned}, its orders say "
                    f"{theirs._enters(customer.time)}"
                )
            elif customer.grace is None and not theirs._retains(customer.time):
                yield f"standing: {customer.customer_id} has earned tier {customer.earned}, which does not hold"


def _changes(world: "World", truth: Truth) -> Iterator[str]:
    told: dict[str, list[TierEvent]] = {}
    ids: dict[str, bytes | None] = {}
    copies = Counter((r.key, r.value, r.transaction) for _, r in world.kafka.published(CUSTOMER_TIERS))
    for partition, record in world.kafka.published():
        change = decode(record.value or b"")
        told.setdefault(change.customer_id, []).append(change)
        if change.event_id in ids:
            same = "the same" if ids[change.event_id] == record.value else "ANOTHER"
            yield f"published twice: {change.event_id}, with {same} body"
        ids[change.event_id] = record.value
        if dict(record.headers)["ce_id"] != change.event_id.encode():
            yield f"header: {change.event_id} has ce_id {dict(record.headers)['ce_id']!r}"
        if record.key != change.customer_id.encode() or home(record.key, world.partitions) != partition:
            yield f"placed: {change.event_id} stands in partition {partition} under {record.key!r}"
        if copies[record.key, record.value, record.transaction] != 1:
            yield f"copy: {change.event_id} has no copy in customer-tiers in its transaction"
    if sum(copies.values()) != sum(map(len, told.values())):
        yield "copy: customer-tiers holds other records than tier-changes"
    newest = {r.key: r.value for _, r in world.kafka.published(CUSTOMER_TIERS)}
    for customer_id, changes in sorted(told.items()):
        yield from _chain(world, customer_id, changes)
        if newest.get(customer_id.encode()) != ids[changes[-1].event_id]:
            yield f"compacted: the newest of {customer_id} in customer-tiers is not its last change"
    yield from _last(world, told)
    yield from _exact(world, truth, told)


def _chain(world: "World", customer_id: str, changes: list[TierEvent]) -> Iterator[str]:
    numbers = [change.tier_seq for change in changes]
    if numbers != list(range(1, len(changes) + 1)):
        yield f"holes: {customer_id} has tier_seq {numbers}"
    for before, after in pairwise(changes):
        if after.previous_tier != before.tier:
            yield f"chain: {after.event_id} comes from {after.previous_tier}, {before.event_id} led to {before.tier}"
        if after.effective_at < before.effective_at:
            yield f"time: {after.event_id} at {after.effective_at}, {before.event_id} at {before.effective_at}"


def _last(world: "World", told: dict[str, list[TierEvent]]) -> Iterator[str]:
    """The last change is what the state says."""
    names = [tier.name for tier in world.program.tiers]
    found: set[str] = set()
    for partition in range(world.partitions):
        shard = world.store.shard(partition)
        for rules, customer in _stored(world, partition):
            customer_id = customer.customer_id
            found.add(customer_id)
            changes = told.get(customer_id, [])
            tier, number = names[customer.tier], customer.tier_seq
            if number != len(changes):
                yield f"last: {customer_id} has tier_seq {number}, {len(changes)} are published"
            elif changes and changes[-1].tier != tier:
                yield f"last: {customer_id} is in {tier}, the last change says {changes[-1].tier}"
            if changes and customer.at_risk != _at_risk(changes[-1]) and world.program.publish_from is None:
                yield f"last: {customer_id} is at risk until {customer.at_risk}, told was {_at_risk(changes[-1])}"
            readable = shard.readable[customer_id]
            if (readable["tier"], readable["tier_seq"]) != (tier, str(number)):
                yield f"readable: {customer_id} is {tier} {number}, readable is {readable}"
            if not _is_due(world, shard.due.get(customer_id), rules.next_due(customer)):
                yield f"due: {customer_id} at {shard.due.get(customer_id)}, {rules.next_due(customer)} is next"
    if told.keys() - found:
        yield f"last: {sorted(told.keys() - found)} have changes and no state"


def _is_due(world: "World", stored: int | None, due: int | None) -> bool:
    """Of a bond it may be found that nothing turns at an instant that was written as one: too early is
    no harm."""
    if world.program.bonds is None or stored == due:
        return stored == due
    return stored is not None and (due is None or stored < due)


def _at_risk(change: TierEvent) -> int | None:
    return None if change.at_risk_until is msgspec.UNSET else parse_rfc3339(change.at_risk_until)


def _exact(world: "World", truth: Truth, told: dict[str, list[TierEvent]]) -> Iterator[str]:
    """Where input came in time order, the changes are the batch computation's, but for contacts and segment."""
    for partition in () if world.drops else sorted(truth.ordered):
        clock = world.clock_of(partition)
        batch = truth.batches[partition]
        if clock is not None:
            batch.let_fall(before=clock - world.program.allowed_lateness)
        for customer_id, customer in sorted(batch.customers.items()):
            if customer_id in truth.commanded:
                continue
            world.count("customers held exactly")
            ours = [_of_purchases(change) for change in told.get(customer_id, [])]
            theirs = [_of_purchases(change) for change in customer.changes]
            if ours != theirs:
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
                if at is None:
                    yield f"exact: {customer_id} has {len(ours)} changes, the log has {len(theirs)}"
                else:
                    yield f"exact: {customer_id} was told {ours[at]}, the log has {theirs[at]}"


def _of_purchases(change: TierEvent) -> TierEvent:
    """Without what rests on another input."""
    return msgspec.structs.replace(change, contacts={}, segment=msgspec.UNSET)


def _letters(world: "World", truth: Truth) -> Iterator[str]:
    prefix = world.settings.topic_prefix
    found: Counter[Place] = Counter()
    for _, record in world.kafka.published(DEAD_LETTERS):
        told = dict(record.headers)
        topic = (told["dlq-topic"] or b"").decode().removeprefix(prefix)
        place = topic, int(told["dlq-partition"] or 0), int(told["dlq-offset"] or 0)
        found[place] += 1
        expected = truth.letters.get(place)
        if expected is None or told["dlq-reason"] != expected.value.encode():
            yield f"dead letter: {place} for {told['dlq-reason']!r}, expected {expected}"
        else:
            log = world.kafka.log(topic, place[1])
            original = log.records[place[2] - log.start]
            if (original.key, original.value) != (record.key, record.value):
                yield f"dead letter: {place} has other content"
    for place in sorted(truth.letters):
        if not found[place]:
            yield f"dead letter: {place} is missing, {truth.letters[place]}"
        elif found[place] > 1 and not world.lost_writes:
            yield f"dead letter: {place} came {found[place]} times"


def _reroutes(world: "World", truth: Truth) -> Iterator[str]:
    found: Counter[tuple[Any, ...]] = Counter()
    for (topic, partition), log in world.kafka.logs.items():
        if topic in INPUTS:
            for record in log.committed():
                if record.ours:
                    found[topic, partition, record.key, record.value, _frozen(record.headers)] += 1
    for sent in truth.reroutes | found:
        wanted, came = truth.reroutes[sent], found[sent]
        if came < wanted or (came > wanted and (not wanted or not world.lost_writes)):
            yield f"sent on: {sent[:3]} {came} times, {wanted} were misplaced"


def _store(world: "World") -> Iterator[str]:
    for partition in range(world.partitions):
        shard = world.store.shard(partition)
        if int(shard.hash.get("customers", 0)) != len(shard.heads):
            yield f"count: {shard.hash.get('customers')} customers are counted, {len(shard.heads)} stored"


def _unmarked(headers: Headers) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, value) for name, value in headers if name != REROUTED_HEADER)


def _frozen(headers: Headers) -> tuple[tuple[str, bytes | None], ...]:
    return tuple((name, value) for name, value in headers)
