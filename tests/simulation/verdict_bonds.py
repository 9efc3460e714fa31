"""What must hold of bonds when a schedule is over."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import msgspec

from loyalty.batch_facts import Converted
from loyalty.bond import BondMark
from loyalty.packing import Packing
from loyalty.rules import Rules
from schemas.bond_records import (
    AttributionEvent,
    BondEvent,
    HoldoutDraw,
    SegmentEvent,
    TriggerEvent,
    decode,
)
from schemas.event_key import event_key
from schemas.events import PurchaseMade, RefundMade, TouchpointMade
from schemas.murmur2 import home
from schemas.program_bonds import MILLION, Bonds, Cap
from schemas.times import parse_rfc3339
from streams.outbox import BOND_TOPIC_OF
from streams.protocols import PURCHASES
from tests.simulation.kafka import LogRecord

if TYPE_CHECKING:
    from tests.simulation.verdict import Truth
    from tests.simulation.world import World


@dataclass(slots=True)
class Told:
    """One published record, its mark, and where it stands."""

    mark: BondMark
    body: Any
    partition: int
    record: LogRecord

    @property
    def at(self) -> int:
        return parse_rfc3339(self.body.effective_at)


@dataclass(slots=True)
class Of:
    """What was published of one customer's bond, in the order of its marks."""

    customer_id: str
    all: list[Told] = field(default_factory=list)

    def only(self, kind: type[BondEvent]) -> list[Told]:
        return [told for told in self.all if isinstance(told.body, kind)]


def judge_bonds(world: "World", truth: "Truth") -> Iterator[str]:
    """What does not hold, a line each."""
    told: dict[str, Of] = {}
    yield from _records(world, told)
    for of in told.values():
        world.count("bonds judged")
        world.counts["triggers judged"] += len(of.only(TriggerEvent))
        world.counts["attributions judged"] += len(of.only(AttributionEvent))
        yield from _chain(of)
        yield from _runs(world, of)
        yield from _draws(world, of)
        yield from _caps(world, truth, of)
        yield from _goals(world, truth, of)
    yield from _final(world, truth, told)


def _records(world: "World", told: dict[str, Of]) -> Iterator[str]:
    """Each once, in its place, with the headers that say what it is."""
    bodies: dict[str, bytes | None] = {}
    for kind, topic in BOND_TOPIC_OF.items():
        for partition, record in world.kafka.published(topic):
            body = decode(kind, record.value or b"")
            header = dict(record.headers)
            if body.event_id in bodies:
                same = "the same" if bodies[body.event_id] == record.value else "ANOTHER"
                yield f"bond published twice: {body.event_id}, with {same} body"
            bodies[body.event_id] = record.value
            if header["ce_id"] != body.event_id.encode():
                yield f"bond header: {body.event_id} has ce_id {header['ce_id']!r}"
            if record.key != body.customer_id.encode() or home(record.key, world.partitions) != partition:
                yield f"bond placed: {body.event_id} stands in partition {partition} under {record.key!r}"
            mark = msgspec.json.decode(header["loyalty-bond"] or b"", type=BondMark)
            of = told.setdefault(body.customer_id, Of(body.customer_id))
            of.all.append(Told(mark, body, partition, record))
    for of in told.values():
        of.all.sort(key=lambda one: one.mark.seq)


def _chain(of: Of) -> Iterator[str]:
    """One sequence for all, one for each kind; each segment comes from the one before; time does not go back."""
    for what, numbers in (
        ("seq", [told.mark.seq for told in of.all]),
        ("segment_seq", [told.body.segment_seq for told in of.only(SegmentEvent)]),
        ("attribution_seq", [told.body.attribution_seq for told in of.only(AttributionEvent)]),
    ):
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"bond holes: {of.customer_id} has {what} {numbers}"
    for before, after in pairwise(of.all):
        if after.at < before.at:
            yield f"bond time: {after.body.event_id} is before {before.body.event_id}"
        if after.record.transaction < before.record.transaction:
            yield f"bond order: {after.body.event_id} was published before {before.body.event_id}"
    for first, second in pairwise(of.only(SegmentEvent)):
        if second.body.previous_segment != first.body.segment:
            yield f"bond chain: {second.body.event_id} comes from {second.body.previous_segment}"


def _key(body: AttributionEvent) -> tuple[str, Any]:
    """A conversion."""
    told = body.conversion
    if told.kind == "purchase":
        return "purchase", told.order_id
    return "visit", event_key(told.source or "", told.event_id or "")


def _runs(world: "World", of: Of) -> Iterator[str]:
    """A run's steps come one after another, and runs no faster than the scenario cools down."""
    for scenario in _bonds(world).scenarios:
        last: TriggerEvent | None = None
        for told in of.only(TriggerEvent):
            body: TriggerEvent = told.body
            if body.scenario != scenario.name:
                continue
            if last is None or body.run != last.run:
                if body.step != 1:
                    yield f"run: {body.event_id} is the first of its run"
                if last is not None and body.run < last.run:
                    yield f"run: {body.event_id} comes after {last.event_id}"
                if last is not None and _started(body) < _started(last) + scenario.cool_down:
                    yield f"run: {body.event_id} began too soon after {last.event_id}"
            elif body.step != last.step + 1:
                yield f"run: {body.event_id} comes after {last.event_id}"
            if (body.steps, body.channel) != (len(scenario.steps), scenario.steps[body.step - 1].channel):
                yield f"run: {body.event_id} is not what the program says"
            last = body


def _started(body: TriggerEvent) -> int:
    return parse_rfc3339(body.run_started_at or "")


def _draws(world: "World", of: Of) -> Iterator[str]:
    """Who is held out is drawn by the salted hash, and gets nothing sent."""
    bonds = _bonds(world)
    scenarios = {scenario.name: scenario for scenario in bonds.scenarios}
    for told in of.only(TriggerEvent):
        body: TriggerEvent = told.body
        draw = None
        if (holdout := bonds.holdout) is not None:
            salt = f"{holdout.salt}:{holdout.version}"
            share = scenarios[body.scenario or ""].holdout
            draw = HoldoutDraw(
                _is_drawn(f"{salt}::{of.customer_id}", holdout.share),
                _is_drawn(f"{salt}:{body.scenario}:{of.customer_id}", share),
                holdout.salt,
                holdout.version,
            )
        if body.holdout != draw:
            yield f"holdout: {body.event_id} bears {body.holdout}, drawn was {draw}"
        is_out = draw is not None and (draw.overall or draw.scenario)
        if is_out != (body.status == "held_out"):
            yield f"holdout: {body.event_id} is {body.status}, drawn was {draw}"
        world.counts[f"triggers {body.status}"] += 1


def _is_drawn(text: str, share: int) -> bool:
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return number * MILLION < share * 2**64


def _caps(world: "World", truth: "Truth", of: Of) -> Iterator[str]:
    """No trigger that was sent exceeds a cap, given those sent before it that had not lapsed.

    Touches count too, and one that comes back keeps a place that would lapse; both make it only stricter.
    """
    policy = _bonds(world).contact_policy
    if policy is None:
        return
    zone = ZoneInfo(world.program.timezone)
    partition = home(of.customer_id.encode(), world.partitions)
    is_local = not any(
        isinstance(event, TouchpointMade) and event.timezone is not None
        for _, _, event in truth.counted[partition]
        if event.customer_id == of.customer_id
    )

    def day(at: int) -> date:
        return datetime.fromtimestamp(at / 1000, UTC).astimezone(zone).date()

    def counts(cap: Cap, before: Told, at: int) -> bool:
        if at >= before.at + policy.lapse or cap.channel not in (None, before.body.channel):
            return False
        if cap.within is not None:
            return before.at > at - cap.within
        return cap.days is not None and is_local and (day(at) - day(before.at)).days < cap.days

    sent = [told for told in of.only(TriggerEvent) if told.body.status == "sent"]
    for number, told in enumerate(sent):
        for cap in policy.caps:
            if cap.channel not in (None, told.body.channel):
                continue
            count = sum(counts(cap, before, told.at) for before in sent[:number])
            world.counts["caps that were full"] += count + 1 == cap.most
            if count >= cap.most:
                yield f"cap: {told.body.event_id} is one more than {count}, {cap} allows {cap.most}"


def _goals(world: "World", truth: "Truth", of: Of) -> Iterator[str]:
    """A run whose goal was met, by what had been read when it was decided at the latest, goes no further."""
    goals = {scenario.name: scenario.goal for scenario in _bonds(world).scenarios}
    for told in of.only(TriggerEvent):
        body: TriggerEvent = told.body
        goal = goals[body.scenario or ""]
        if goal not in ("order", "visit"):
            continue
        read = world.known[told.record.value or b""]
        events = [
            event
            for topic, record, event in truth.counted[told.partition]
            if event.customer_id == of.customer_id and record.offset < read[topic]
        ]
        world.count("goals judged")
        met = _ordered(events) if goal == "order" else _visited(events)
        # An order that has left the window counts no more.
        if met is not None and met > max(_started(body), told.at - world.program.window):
            yield f"goal: {body.event_id} of a run that began at {body.run_started_at} met its goal at {met}"


def _ordered(events: Iterable[Any]) -> int | None:
    """When the newest order was made that counts."""
    orders: dict[str, list[int]] = {}
    for event in events:
        if isinstance(event, PurchaseMade | RefundMade):
            paid = orders.setdefault(event.order_id, [0, 0, -1])
            if isinstance(event, RefundMade):
                paid[1] += event.amount
            else:
                paid[0] += event.amount
                paid[2] = event.occurred_at if paid[2] < 0 else min(paid[2], event.occurred_at)
    made = [at for paid, refunded, at in orders.values() if at >= 0 and (not refunded or refunded < paid)]
    return max(made, default=None)


def _visited(events: Iterable[Any]) -> int | None:
    """When the newest visit to a store was."""
    return max(
        (
            event.occurred_at
            for event in events
            if isinstance(event, TouchpointMade)
            and event.direction == "inbound"
            and (event.channel == "store" or event.store_id is not None)
        ),
        default=None,
    )


# -- what follows from the log alone -------------------------------------------------------------------------------


def _final(world: "World", truth: "Truth", told: Mapping[str, Of]) -> Iterator[str]:
    """The last segment, and what was told last of each conversion, are the batch computation's; the state knows its
    records."""
    rules, program = Rules(world.program), world.program
    is_all_told = program.publish_from is None
    for partition, batch in truth.batches.items():
        clock, shard = world.clock_of(partition), world.store.shard(partition)
        forgotten = _forgotten(world, truth, partition)
        for customer in world.store.load(partition, sorted(shard.heads), Packing(rules)):
            customer_id = customer.customer_id
            of, bond = told.get(customer_id, Of(customer_id)), customer.bond
            if bond.seq != len(of.all):
                yield f"bond last: {customer_id} has seq {bond.seq}, {len(of.all)} are published"
                continue
            theirs = batch.customers[customer_id].bond
            # What falls due strictly before that has.
            at = max(rules.bond_time(customer) or 0, (clock or 0) - program.allowed_lateness - 1)
            segment = theirs.segment_at(program, at)
            if bond.segment != segment:
                yield f"bond final: {customer_id} is in {bond.segment}, the log says {segment}"
            if shard.readable[customer_id].get("segment", "") != (bond.segment or ""):
                yield f"bond readable: {customer_id} is in {bond.segment}: {shard.readable[customer_id]}"
            segments = of.only(SegmentEvent)
            if is_all_told and bond.segment != (segments[-1].body.segment if segments else None):
                yield f"bond last: {customer_id} is in {bond.segment}, its last record says otherwise"
            if is_all_told:
                wanted = {_conversion(one): _expected(one) for one in theirs.attributions(program)}
                yield from _attributions(customer_id, wanted, of.only(AttributionEvent), forgotten)


def _forgotten(world: "World", truth: "Truth", partition: int) -> set[tuple[str, str]]:
    """Whose orders the ledger has forgotten, maybe before the touches were read, as inputs are read at their own pace:
    what is told of such an order is not told any more, or begins anew where its id is used again."""
    ledger, newest = world.program.ledger, 0
    found: set[tuple[str, str]] = set()
    times: dict[tuple[str, str], int] = {}
    for topic, _, event in truth.counted[partition]:
        if topic == PURCHASES:
            newest = max(newest, event.occurred_at)
            order = event.customer_id, event.order_id
            if isinstance(event, PurchaseMade):
                times[order] = min(event.occurred_at, times.get(order, event.occurred_at))
            if times.get(order, newest) < newest - ledger:
                found.add(order)
    return found | {order for order, at in times.items() if at < newest - ledger}


def _attributions(
    customer_id: str,
    wanted: Mapping[Any, tuple[Any, ...]],
    told: Sequence[Told],
    forgotten: set[tuple[str, str]],
) -> Iterator[str]:
    revisions: dict[Any, int] = defaultdict(int)
    for one in told:
        revisions[key := _key(one.body)] += 1
        if one.body.revision != revisions[key] and (customer_id, key[1]) not in forgotten:
            yield f"attribution: {one.body.event_id} has revision {one.body.revision}"
    last = {_key(one.body): _said(one.body) for one in told}
    # One that was attributed on the way, and withdrawn, need not have been on another way.
    ours = {key: said for key, said in last.items() if said[0] is not None}
    for key in sorted(ours.keys() | wanted.keys(), key=str):
        if (customer_id, key[1]) not in forgotten and ours.get(key) != wanted.get(key):
            yield f"attribution: {customer_id} {key}: {ours.get(key)}, the log says {wanted.get(key)}"


def _conversion(found: Converted) -> tuple[str, Any]:
    event = found.event
    if isinstance(event, PurchaseMade):
        return "purchase", event.order_id
    return "visit", event_key(event.source, event.event_id)


def _expected(found: Converted) -> tuple[Any, ...]:
    touch, order = found.touch, found.order
    assert touch is not None
    return (
        event_key(touch.source, touch.event_id),
        found.match,
        found.event.occurred_at,
        found.event.store_id,
        0 if order is None else order.net,
    )


def _said(body: AttributionEvent) -> tuple[Any, ...]:
    touch, told = body.touch, body.conversion
    return (
        None if touch is None else event_key(touch.source, touch.event_id),
        body.match,
        parse_rfc3339(told.occurred_at),
        told.store_id,
        0 if body.amount is None else int(body.amount.replace(".", "")),
    )


def _bonds(world: "World") -> Bonds:
    bonds = world.program.bonds
    assert bonds is not None
    return bonds
