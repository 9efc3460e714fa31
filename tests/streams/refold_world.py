"""A log with its workers, its output and its losses, all in memory, around the fold of a rebuild.

Workers here do what `streams.shard` does to a batch, without Kafka and Redis. What they have decided is lost at will.
"""

from __future__ import annotations

from ast import literal_eval
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from loyalty import Customer, Rules
from schemas.bond_records import SegmentEvent
from schemas.murmur2 import home
from schemas.program import Program
from schemas.rejection import Reason, RejectedError
from schemas.reroute import is_rerouted, rerouted_headers
from schemas.tier_change import TierEvent, decode
from streams.bonds_told import BondRecord, read_bond
from streams.outbox import Entry, decision_entry, watermarks
from streams.protocols import COMMANDS, INPUTS, PURCHASES, TOUCHPOINTS, Published
from streams.refold import Before, Decided, Merged, OfBond, Refold
from streams.telling import OvertakenError, Telling, read_bond_told, read_told
from streams.topics import BOND_TOPICS, DEAD_LETTERS, TIER_CHANGES
from tests.loyalty.worlds import Event, is_blank

DEAD = "dead"
Key = tuple[str, int]


class Written(NamedTuple):
    """A record of an input; `event` None is one that cannot be decoded."""

    offset: int
    timestamp: int
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    event: Event | None
    value: bytes | None = None


class StubIntake:
    """Decoding, without bytes; a dead letter carries where its record stood."""

    def decode(self, topic: str, record: Any) -> Any:
        if record.event is None:
            raise RejectedError(Reason.NOT_JSON, "it is none")
        return record.event

    def dead_letter(self, topic: str, partition: int, record: Any, reason: Reason, detail: str) -> Entry:
        place = topic, partition, record.offset, record.timestamp
        return Entry(DEAD_LETTERS, None, record.key, repr(place).encode(), (), reason)


@dataclass
class Worked:
    """One shard as its worker has it; commits that are not published yet."""

    offsets: dict[str, int] = field(default_factory=lambda: dict.fromkeys(INPUTS, 0))
    newest: dict[str, int] = field(default_factory=dict)
    customers: dict[str, Customer] = field(default_factory=dict)
    outbox: list[list[Entry]] = field(default_factory=list)


class World:
    """Everything. `partitions` is how many there are now."""

    def __init__(self, program: Program, partitions: int) -> None:
        self.program, self.rules, self.partitions = program, Rules(program), partitions
        #: How many the topics have, and so shops write to: more than the workers know of, before a rebuild.
        self.written = partitions
        self.logs: dict[Key, list[Written]] = defaultdict(list)
        self.shards = {p: Worked() for p in range(partitions)}
        self.output: list[tuple[int, Published]] = []
        self.bonds: list[tuple[int, Published]] = []
        self.dead: list[bytes] = []
        self.rebuilt = 0
        self.now = 1_000
        self.overtaken = 0
        #: Events of records that wait to be sent on.
        self._sent_on: list[Event] = []

    # -- shops and workers -----------------------------------------------------------------------------------------

    def append(
        self,
        topic: str,
        event: Event | None,
        partition: int,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        wait: int = 1,
    ) -> None:
        """Append a record; `wait` milliseconds after the last one, whichever partition that was in."""
        self.now += wait
        log = self.logs[topic, partition]
        log.append(Written(len(log), self.now, key, headers, event))

    def place(self, event: Event, partitions: int) -> tuple[int, bytes]:
        key = event.customer_id.encode()
        return home(key, partitions), key

    def unread(self, partition: int, topic: str) -> list[Written]:
        return self.logs[topic, partition][self.shards[partition].offsets[topic] :]

    def first(self, partition: int) -> str | None:
        """The input in which the oldest unread record stands."""
        waiting = [
            (self.unread(partition, t)[0].timestamp, i)
            for i, t in enumerate(INPUTS)
            if self.unread(partition, t)
        ]
        return INPUTS[min(waiting)[1]] if waiting else None

    def read(self, partition: int, topic: str, most: int) -> None:
        """One batch, and its commit."""
        shard, rules = self.shards[partition], self.rules
        batch = self.unread(partition, topic)[:most]
        entries: list[Entry] = []
        changes = []
        for record in batch:
            if record.event is None:
                entries.append(StubIntake().dead_letter(topic, partition, record, Reason.NOT_JSON, ""))
                continue
            event: Any = record.event
            place, key = self.place(event, self.partitions)
            if (place, key) != (partition, record.key):
                if is_rerouted(record.headers):
                    entries.append(StubIntake().dead_letter(topic, partition, record, Reason.MISROUTED, ""))
                else:
                    entries.append(
                        Entry(
                            topic,
                            place,
                            key,
                            len(self._sent_on).to_bytes(4),
                            rerouted_headers(record.headers),
                        )
                    )
                    self._sent_on.append(event)
                continue
            newest = shard.newest.get(topic)
            if newest is not None and event.occurred_at < newest - self.program.ledger:
                entries.append(StubIntake().dead_letter(topic, partition, record, Reason.TOO_LATE, ""))
                continue
            customer = shard.customers.setdefault(event.customer_id, rules.new_customer(event.customer_id))
            apply: Any = {PURCHASES: rules.apply, TOUCHPOINTS: rules.touch, COMMANDS: rules.command}[topic]
            made = apply(customer, event, newest)
            if made is not None:
                shard.newest[topic] = max(event.occurred_at, newest or event.occurred_at)
                changes += made
        shard.offsets[topic] += len(batch)
        self._commit(partition, entries, changes)

    def sweep(self, partition: int, until: int | None = None) -> None:
        """In the event clock, unless told until when."""
        shard = self.shards[partition]
        if until is None:
            until = shard.newest.get(PURCHASES)
        if until is not None:
            made = [self.rules.advance(customer, until) for customer in shard.customers.values()]
            self._commit(partition, [], [change for one in made for change in one])

    def _commit(self, partition: int, entries: list[Entry], changes: list[Any]) -> None:
        shard = self.shards[partition]
        known = watermarks(shard.offsets, self.rebuilt)
        entries += [decision_entry(change, self.rules.change_body, partition, known) for change in changes]
        if entries:
            shard.outbox.append(entries)

    def publish(self, partition: int, commits: int = 1_000) -> None:
        shard = self.shards[partition]
        for entries in shard.outbox[:commits]:
            for entry in entries:
                self._out(partition, entry)
        del shard.outbox[:commits]

    def _out(self, partition: int, entry: Entry) -> None:
        if entry.topic == TIER_CHANGES:
            self.output.append((partition, Published(len(self.output), entry.value, entry.headers)))
        elif entry.topic in BOND_TOPICS:
            self.bonds.append((partition, Published(len(self.bonds), entry.value, entry.headers)))
        elif entry.topic == DEAD_LETTERS:
            self.dead.append(entry.value or b"")
        else:
            assert entry.partition is not None
            event = self._sent_on[int.from_bytes(entry.value or b"")]
            self.append(entry.topic, event, entry.partition, entry.key, entry.headers)

    def drain(self, until: int | None = None) -> None:
        """Read and publish all there is, and let time do the rest."""
        while any(self.first(p) or self.shards[p].outbox for p in self.shards):
            for p in self.shards:
                while topic := self.first(p):
                    self.read(p, topic, 1)
                self.publish(p)
        for p in self.shards:
            self.sweep(p, until)
            self.publish(p)

    # -- the rebuild -----------------------------------------------------------------------------------------------

    def rebuild(
        self,
        partitions: int,
        chunk: int,
        *,
        lost: bool,
        meanwhile: Callable[[], None] = lambda: None,
        flushed: bool = True,
    ) -> None:
        """As `streams.rebuild` does it: `lost`, where there is no store any more; `flushed`, where workers publish
        what they had decided before it begins to fold."""
        fenced = lost
        self.written = partitions
        while True:
            attempt = Attempt(self, partitions, chunk, lost)
            try:
                if not fenced:
                    attempt.beside(flushed, meanwhile)
                attempt.end()
                break
            except OvertakenError:
                assert not fenced, "nobody publishes while all are fenced"
                self.overtaken += 1
                fenced = True
        self.partitions, self.rebuilt = partitions, attempt.refold.rebuilt
        self.shards = {p: Worked() for p in range(partitions)}
        for p, shard in self.shards.items():
            shard.offsets = {topic: len(self.logs[topic, p]) for topic in INPUTS}
            shard.newest = attempt.refold.newest[p]
        for customer_id, customer in attempt.customers.items():
            if not is_blank(customer):
                self.shards[home(customer_id.encode(), partitions)].customers[customer_id] = customer
        for part in attempt.staged:
            by_shard: dict[int, list[Entry]] = {}
            for decided in part:
                by_shard.setdefault(decided.shard, []).append(decided.entry)
            for p, entries in by_shard.items():
                self.shards[p].outbox.append(entries)

    # -- what must hold --------------------------------------------------------------------------------------------

    def bodies(self) -> dict[str, list[TierEvent]]:
        found: dict[str, list[TierEvent]] = {}
        for _, record in self.output:
            body = decode(record.value or b"")
            found.setdefault(body.customer_id, []).append(msgspec.structs.replace(body, contacts={}))
        return found

    @property
    def has_sent_on(self) -> bool:
        """Whether a worker found a record in the wrong place. Its copy is read later than it was written."""
        return bool(self._sent_on)

    def customers(self) -> dict[str, Customer]:
        return {i: c for shard in self.shards.values() for i, c in shard.customers.items() if not is_blank(c)}

    def check(self) -> None:
        """What must hold of the output, and of the state once all is published."""
        bodies, customers = self.bodies(), self.customers()
        for customer_id, told in bodies.items():
            assert [body.tier_seq for body in told] == list(range(1, len(told) + 1))
            for before, after in pairwise(told):
                assert after.previous_tier == before.tier
                assert after.effective_at >= before.effective_at
            shown = self.rules.shown(customers[customer_id])
            assert shown[:2] == (told[-1].tier, told[-1].tier_seq)
        for customer_id, customer in customers.items():
            assert customer.tier_seq == len(bodies.get(customer_id, []))
        assert len(self.dead) == len(set(self.dead))

    def check_bonds(self) -> None:
        """What must hold of what was told of bonds, and of the state once all is published."""
        told: dict[str, list[BondRecord]] = {}
        for _, record in self.bonds:
            one = read_bond(record)
            told.setdefault(one.body.customer_id, []).append(one)
        for customer_id, customer in self.customers().items():
            records = told.get(customer_id, [])
            assert [one.mark.seq for one in records] == list(range(1, len(records) + 1))
            assert customer.bond.seq == len(records)
            ids = [one.body.event_id for one in records]
            assert len(set(ids)) == len(ids)
            segments = [one.body for one in records if isinstance(one.body, SegmentEvent)]
            assert [one.segment_seq for one in segments] == list(range(1, len(segments) + 1))
            for before, after in pairwise(segments):
                assert after.previous_segment == before.segment
            for earlier, later in pairwise(records):
                assert later.body.effective_at >= earlier.body.effective_at

    def bond_facts(self) -> dict[str, Any]:
        """What follows from the set of events alone, of bonds: the segment, and what holds of each conversion."""
        return {
            customer_id: (
                customer.bond.segment,
                {
                    one.key: (one.told.touch, one.told.match, one.told.store, one.told.amount)
                    for one in (*customer.orders.values(), *customer.touches)
                    if one.told is not None and one.told.touch is not None
                },
            )
            for customer_id, customer in self.customers().items()
        }

    def facts(self) -> dict[str, Any]:
        """What follows from the set of events alone."""
        return {
            customer_id: (
                {name: (order.paid, order.refunded, order.time) for name, order in customer.orders.items()},
                sorted(customer.ids),
                sorted(customer.touch_ids),
                sorted(customer.commands),
                customer.lifetime_orders,
                customer.lifetime_monetary,
                customer.override,
            )
            for customer_id, customer in self.customers().items()
        }


class Attempt:
    """One attempt at a rebuild, its store in memory."""

    def __init__(self, world: World, partitions: int, chunk: int, lost: bool) -> None:
        self.world, self.partitions, self.chunk, self.lost = world, partitions, chunk, lost
        self.telling, self.dead = Telling(), set[Any]()
        self.read_up_to: dict[Key, int] = {}
        before = None if lost else Before(world.partitions, world.rebuilt, self.read_up_to)
        intake: Any = StubIntake()
        self.refold = Refold(world.program, intake, partitions, self.telling, self.dead, True, before)
        self.customers: dict[str, Customer] = {}
        self.staged: list[list[Decided]] = []
        self.seen = [0, 0, 0]

    def ends(self) -> dict[Key, int]:
        return {(t, p): len(self.world.logs[t, p]) for t in INPUTS for p in range(self.partitions)}

    def cut(self) -> dict[Key, int]:
        """Where the old store stands."""
        for p, shard in self.world.shards.items():
            self.read_up_to.update({(topic, p): at for topic, at in shard.offsets.items()})
        return dict.fromkeys(self.ends(), 0) | self.read_up_to

    def news(self) -> None:
        """What was published since."""
        world, seen = self.world, self.seen
        for partition, record in world.output[seen[0] :]:
            told = read_told(partition, record)
            if self.telling.tell(told, self.refold.cursor):
                self._withdraw(told.event.customer_id)
        for partition, record in world.bonds[seen[2] :]:
            customer_id, bond = read_bond_told(partition, record)
            self.telling.tell_bond(customer_id, bond, self.refold.cursor)
            self._withdraw(OfBond(customer_id))
        for raw in world.dead[seen[1] :]:
            place = literal_eval(raw.decode())
            if place not in self.dead:
                self.dead.add(place)
                self._withdraw(place)
        seen[:] = len(world.output), len(world.dead), len(world.bonds)

    def _withdraw(self, of: Any) -> None:
        self.staged = [[decided for decided in part if decided.of != of] for part in self.staged]

    def fold(self, upto: dict[Key, int]) -> None:
        """The log up to there, in chunks."""
        refold = self.refold
        cursor = dict.fromkeys(upto, 0) | refold.cursor
        found = [
            (
                record.timestamp,
                INPUTS.index(topic),
                partition,
                record.offset,
                Merged(topic, partition, record),
            )
            for (topic, partition), end in upto.items()
            for record in self.world.logs[topic, partition][cursor[topic, partition] : end]
        ]
        found.sort(key=lambda one: one[:4])
        for start in range(0, len(found), self.chunk):
            part = found[start : start + self.chunk]
            for _, _, partition, offset, merged in part:
                cursor[merged.topic, partition] = offset + 1
            self._step([merged for *_, merged in part], cursor, part[-1][0])
        self._step([], upto, float("inf"))
        self._step([], upto, float("inf"))

    def _step(self, records: list[Merged], cursor: dict[Key, int], merged_to: float) -> None:
        ready = self.refold.ready()
        events = self.refold.read(records)
        self._know({*ready.customers, *(read.event.customer_id for read in events)})
        self.staged.append(self.refold.fold(ready, events, self.customers, cursor, merged_to).entries)

    def _know(self, ids: set[str]) -> None:
        for customer_id in ids:
            self.customers.setdefault(customer_id, self.refold.rules.new_customer(customer_id))

    def beside(self, flushed: bool, meanwhile: Callable[[], None]) -> None:
        """As far as the old store is, twice, as it goes on."""
        for _ in range(2):
            cut = self.cut()
            if flushed:
                for p in self.world.shards:
                    self.world.publish(p)
            self.news()
            self.fold(cut)
            meanwhile()

    def end(self) -> None:
        """Under the fence: all the rest."""
        if not self.lost:
            self.cut()
        self.news()
        self.fold(self.ends())
        assert len(self.telling) == 0, "all that was told is adopted"
        self._know({read.event.customer_id for read in self.refold.leftovers()})
        self.staged.append(self.refold.settle(self.customers).entries)
