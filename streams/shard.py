"""One shard: its lane, in which batches and sweeps go through one after another, and its outbox.

The way of an event: `Intake.read` → `_customers` → the fold → `Store.commit` → `publish`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from itertools import islice
from typing import Any

from loyalty.bond import BondChange
from loyalty.customer import Customer
from loyalty.folding import Folding
from loyalty.packing import Packing
from loyalty.saving import Saving
from loyalty.views import Change, Decision
from schemas.events import InputEvent
from schemas.program import Program
from schemas.rejection import Reason
from streams.adoption import adopt_bonds, adopt_tiers
from streams.breaker import Breaker, fallen
from streams.flood import Flood
from streams.healing import Healing
from streams.intake import Intake
from streams.metrics import Metrics
from streams.outbox import Entry, Outbox, decision_entry, decode, encode, watermarks, whole
from streams.pacing import Pace
from streams.parts import Parts
from streams.program_rules import rules_of
from streams.protocols import (
    COMMANDS,
    INPUTS,
    PURCHASES,
    TOUCHPOINTS,
    Batch,
    Commit,
    Mark,
    RefusedError,
    ShardState,
    Store,
    Writer,
)

log = logging.getLogger(__name__)

#: How many due customers one sweep takes into the lane at a time: so long a batch waits behind it, and that twelvefold
#: where as many shards are swept, as one thread works for all.
_SWEEP_CUSTOMERS = 100
#: Entries in the outbox from which on a sweep waits for the next one: what an event brings goes out behind them.
_SWEEP_PENDING = 1_000
#: Published records that are looked at in one commit.
_ADOPT_CUSTOMERS = 500
#: One transaction publishes about this many entries, and about this many bytes.
_PUBLISH_ENTRIES = 5_000
_PUBLISH_BYTES = 4 * 1024 * 1024

#: Decisions from which on the rest of a batch is for the next commit: they are published in one transaction.
_COMMIT_DECISIONS = 5_000
#: Events that are folded before the clock is asked whether the slice is over.
_FOLD_EVENTS = 8

#: Customers that are packed before it is asked again.
_SAVE_CUSTOMERS = 8


class Domain:
    """What all shards share: the program, how its records are read, which share of a shard's customers may fall
    within an hour, and how many dead letters an input may bring within a minute (0: any); and the thread."""

    def __init__(
        self, program: Program, intake: Intake, falls_limit: float = 0.0, dead_letters_limit: int = 0
    ) -> None:
        self.program = program
        self.intake = intake
        self.falls_limit = falls_limit
        self.dead_letters_limit = dead_letters_limit
        self.pace = Pace()
        #: Shards that go on with a sweep at a time: were it all of them, each event would wait for all of their lanes.
        self.sweeping = asyncio.Semaphore(2)


class Shard:
    """One partition of every input, held by this worker under `token`.

    Every method raises a ShardLostError where the store or the log does not take this worker's word any more; the
    shard must then be dropped, for what it holds in memory may be ahead of the store.
    """

    def __init__(
        self,
        partition: int,
        token: str,
        state: ShardState,
        outbox: Outbox,
        writer: Writer,
        store: Store,
        domain: Domain,
        metrics: Metrics,
        cache_customers: int,
    ) -> None:
        self.partition = partition
        self.state = state
        self.outbox = outbox
        #: What was published and the state may not know; set at a take-over.
        self.healing = Healing({})
        #: By output topic: up to where the state knows all that was published, once nothing is pending. The store is
        #: told all of them with each trim: a customer's records stand in several topics, and a trim may be lost.
        self.outputs = dict(state.outputs)
        self._token = token
        self._writer = writer
        self._store = store
        self._domain = domain
        self._metrics = metrics
        #: The rules that hold for this shard's customers.
        self.rules = rules_of(domain.program, state, self._was_moved)
        self._packing = Packing(self.rules)
        self._breaker = Breaker(domain.falls_limit, state.falls)
        #: Who was moved to the program since the last commit: from which tier to which.
        self._moves: dict[str, tuple[str, str]] = {}
        self._lane = asyncio.Lock()
        #: A batch may have to wait before it enters the lane; those behind it of the same input wait for it.
        self.turns = {topic: asyncio.Lock() for topic in INPUTS}
        self._flood = {topic: Flood(domain.dead_letters_limit) for topic in INPUTS}
        self._broken = False
        #: Whether it is known that the shard has to be taken over again.
        self.is_lost = False
        self._closed = False
        # Decoded customers, least recently used first. What is in here has been committed, or the shard is lost.
        self._cache: dict[str, Customer] = {}
        self._cache_limit = cache_customers
        rules = self.rules
        self._apply: dict[str, Callable[[Customer, Any, int | None], Sequence[Decision] | None]] = {
            PURCHASES: rules.apply,
            TOUCHPOINTS: rules.touch,
            COMMANDS: rules.command,
        }
        metrics.paused.labels(partition).set(state.held is not None)

    async def process(self, batch: Batch) -> None:
        """Fold one batch and commit it, with all it changes, as one; one of very many customers in several parts."""
        topic = batch.topic
        async with self._in_lane():
            if batch.start != self.state.offsets[topic]:
                raise RefusedError(
                    f"{topic}: a batch starts at {batch.start}, not at {self.state.offsets[topic]}"
                )
            parts = Parts(self._domain.intake, batch)
            while parts:
                await self._process(topic, parts)
            if self.healing:
                await self._adopt()

    async def _process(self, topic: str, parts: Parts) -> None:
        """As much as one commit takes. All in one turn: each is waited for behind other lanes."""
        async with self._domain.pace as pace:
            customers = await self._customers(await parts.read(pace))
            ledger, newest = self._domain.program.ledger, self.state.newest.get(topic)
            folding = Folding(self._apply[topic], ledger, newest, self.healing.holds)
            while len(folding.decided) < _COMMIT_DECISIONS and (events := parts.take()) is not None:
                for first in range(0, len(events), _FOLD_EVENTS):
                    if pace.is_over():
                        await pace.rest()
                    folding.fold(events[first : first + _FOLD_EVENTS], customers)
            self.healing.stirred |= folding.stirred
            batch, entries = parts.taken()
            counts = self._metrics.batch(batch)
            counts.duplicates = folding.duplicates
            entries += [self._too_late(topic, record, event) for record, event in folding.late]
            self._flood[topic].check(batch, entries)
            commit = Commit(topic, batch.start, batch.end, folding.newest)
            if batch.records:
                commit.appended = batch.records[-1].timestamp
            # A touchpoint mostly changes nothing of what the readable hash says.
            shown = folding.changed if topic == TOUCHPOINTS else None
            await self._commit(commit, folding.touched, folding.decided, entries, shown)
        counts.done(entries)

    async def heal(self) -> None:
        """Take over from the output what the store has lost, as far as its inputs have been read again."""
        async with self._in_lane():
            await self._adopt()

    async def _adopt(self) -> None:
        healing, offsets = self.healing, self.state.offsets
        pending = len(healing)
        while reached := healing.tiers.reached(offsets, _ADOPT_CUSTOMERS):
            customers = await self._customers(reached)
            await self._commit_adopted(adopt_tiers(healing, reached, customers, self.rules), [])
            healing.tiers.settle(reached)
        # No bond before its customer's tier.
        while unheld := healing.bonds.reached(offsets, _ADOPT_CUSTOMERS):
            customers = await self._customers(unheld)
            await self._commit_adopted(*adopt_bonds(healing, unheld, customers, self.rules))
            healing.bonds.settle(unheld)
        if pending and not healing:
            log.info("shard %d knows again all that was published", self.partition)

    async def _commit_adopted(self, adopted: Mapping[str, Customer], decided: Sequence[Decision]) -> None:
        if adopted:
            await self._commit(Commit(), adopted, decided, [])
            self._metrics.adoptions.inc(len(adopted))

    async def sweep(self, until: int, clock: int) -> None:
        """Let fall due, strictly before `until`, what time alone brings, as far as the outbox has room.

        Asks the store whether the shard is still ours, too. `clock` is up to when it should have fallen due by
        the time it is, for telling how far behind the shard is: `until` may lie before it. Both are epoch milliseconds.
        """
        overdue = True
        goes_on: AbstractAsyncContextManager[None] = nullcontext()
        while overdue:
            async with goes_on, self._in_lane():
                # While the store does not know all that was published, what time brings may be out already.
                heals = bool(self.healing)
                has_room = self.outbox.has_room and len(self.outbox) < _SWEEP_PENDING
                limit = _SWEEP_CUSTOMERS if has_room and not heals else 0
                due = await self._store.due(self.partition, self._token, self.state.version, until, limit)
                self._metrics.overdue(self.partition, 0 if due.first is None else clock - due.first)
                if due.decision:
                    await self._carry_out(due.decision)
                overdue = bool(due.customers)
                if overdue:
                    customers = await self._customers(due.customers)
                    decided: list[Decision] = []
                    async with self._domain.pace as pace:
                        for customer in customers.values():
                            if pace.is_over():
                                await pace.rest()
                            decided += self.rules.advance(customer, until)
                    await self._commit(Commit(), customers, decided, [])
            goes_on = self._domain.sweeping

    async def move(self, clock: int, limit: int) -> int:
        """Move up to `limit` customers to the present program, if its instant has come; how many were looked at.

        `clock` is the time up to which all has been read.
        """
        if not self.state.is_moving or clock < self.state.program_at or not self.outbox.has_room:
            return 0
        if self.healing:
            return 0
        async with self._in_lane():
            ids, self.state.moved = await self._store.unmoved(self.partition, self._token, limit)
            if ids:
                customers = await self._customers(ids)
                unmoved = {i: c for i, c in customers.items() if not self.rules.is_moved(c)}
                decided: list[Decision] = []
                for customer in unmoved.values():
                    decided += self.rules.move(customer)
                await self._commit(Commit(moved=ids), unmoved, decided, [])
        return len(ids)

    async def decide(self, customer_id: str, decide: Callable[[Customer], list[Decision]]) -> None:
        """Let somebody decide of one customer, and commit that; `decide` may raise nothing."""
        async with self._in_lane():
            customers = await self._customers([customer_id])
            made = decide(customers[customer_id])
            if made:
                await self._commit(Commit(), customers, made, [])

    async def newest(self, customer_id: str) -> Customer:
        """A customer to look at, as it was between the last two events, be they committed or not; a new one where
        nobody knows it. To be used without a pause."""
        while (customer := self._cache.get(customer_id)) is None:
            version = self.state.version
            (customer,) = await self._store.load(self.partition, [customer_id], self._packing)
            # Meanwhile it may have come into the cache, and even have been committed and left it again.
            if customer_id not in self._cache and self.state.version == version:
                break
        return customer

    def cannot_tell(self, customer_id: str) -> str:
        """Why what is known of a customer may not be all that it was told; empty where it is."""
        if self._broken or self._closed or self.is_lost:
            return "the shard is being taken over"
        if self.healing.holds(customer_id) or customer_id in self.healing.bonds:
            return "the store has lost what the customer was told, and it is read again"
        return ""

    async def publish(self) -> None:
        """Publish what is in the outbox, for as long as the shard is held."""
        while not self._closed:
            entries, upto = await self.outbox.take(_PUBLISH_ENTRIES, _PUBLISH_BYTES)
            started = time.perf_counter()
            records = (record for entry in entries for record in entry.records())
            self.outputs |= await self._writer.publish(records, Mark(upto, self.state.reign))
            # While something is pending, the next take-over must find it again.
            known = {} if self.healing else self.outputs
            await self._store.trim(self.partition, self._token, self.state.version, upto, known)
            self.outbox.drop(upto)
            self._metrics.published(self.partition, len(self.outbox), time.perf_counter() - started)

    async def close(self) -> None:
        """Leave the writer; the store's token stays until somebody else takes over."""
        # A cancelled publisher may not notice: on Python 3.11 asyncio.wait_for, through which redis-py writes, can
        # swallow a cancellation.
        self._closed = True
        await self._writer.close()

    @asynccontextmanager
    async def _in_lane(self) -> AsyncIterator[None]:
        """One batch or sweep at a time, and none after one that failed.

        What failed may have left customers in the cache ahead of the store: a later commit would write them.
        """
        async with self._lane:
            if self._broken:
                raise RefusedError("something failed in the lane before")
            try:
                yield
            except BaseException:
                self._broken = True
                raise

    async def _customers(self, ids: Iterable[str]) -> dict[str, Customer]:
        """The customers by id, from the cache or the store."""
        cache = self._cache
        held: dict[str, Customer] = {}
        missing: list[str] = []
        for customer_id in ids:
            customer = cache.pop(customer_id, None)
            if customer is None:
                missing.append(customer_id)
            else:
                cache[customer_id] = held[customer_id] = customer
        if missing:
            async with self._domain.pace.left():
                loaded = await self._store.load(self.partition, missing, self._packing)
            if self.healing:
                for customer in loaded:
                    customer.bond_held = customer.customer_id in self.healing.bonds
            found = dict(zip(missing, loaded, strict=True))
            cache |= found
            held |= found
        return held

    async def _commit(
        self,
        commit: Commit,
        touched: Mapping[str, Customer],
        decided: Sequence[Decision],
        entries: list[Entry],
        shown: Container[str] | None = None,
    ) -> None:
        """`shown`: of those who are touched, of whom the readable hash may say something else now; None: of all."""
        state, rules = self.state, self.rules
        offsets = state.offsets if commit.topic is None else state.offsets | {commit.topic: commit.end}
        read_up_to = watermarks(offsets, state.rebuilt) if decided else b""
        changes = [decision for decision in decided if not isinstance(decision, BondChange)]
        newest = dict(state.newest)
        if commit.topic is not None and commit.newest is not None:
            newest[commit.topic] = commit.newest
        horizons = newest.get(PURCHASES), newest.get(TOUCHPOINTS), newest.get(COMMANDS)
        saving, customers = Saving(self._packing, *horizons, shown), [*touched.values()]
        async with self._domain.pace as pace:
            started = time.perf_counter()
            for decision in decided:
                if pace.is_over():
                    await pace.rest()
                entries.append(decision_entry(decision, rules.change_body, self.partition, read_up_to))
            for first in range(0, len(customers), _SAVE_CUSTOMERS):
                if pace.is_over():
                    await pace.rest()
                saving.save(customers[first : first + _SAVE_CUSTOMERS])
            commit.customers = saving.writes
            for made in whole(entries):
                if pace.is_over():
                    await pace.rest()
                commit.outbox.append(encode(made))
        self._add_up(commit, saving.born)
        self._count_falls(commit, changes, saving.born)
        packed = time.perf_counter()
        await self._store.commit(self.partition, self._token, state.version, commit)
        self._metrics.committed(packed - started, time.perf_counter() - packed)
        state.version += 1
        state.offsets, state.newest = offsets, newest
        if commit.topic is not None and commit.appended is not None:
            state.appended[commit.topic] = commit.appended
        state.customers += saving.born
        self._metrics.decided(decided)
        self._metrics.moves.inc(len(self._moves))
        self._moves.clear()
        for number, entry in commit.replaced.items():
            self.outbox.replace(number, decode(entry))
        if (held := commit.fields.get("held")) is not None:
            self._hold(int(held) if held != "" else None)
        self.outbox.add(entries)
        self._evict()

    def _was_moved(self, customer_id: str, before: str, after: str) -> None:
        self._moves[customer_id] = before, after

    def _add_up(self, commit: Commit, born: int) -> None:
        """What the commit adds to the shard's counts."""
        if born:
            commit.added["customers"] = born
        for customer_id, (before, after) in self._moves.items():
            field = move_field(self.state.generation, before, after)
            commit.added[field] = commit.added.get(field, 0) + 1
            if customer_id not in commit.moved:
                commit.moved.append(customer_id)

    # -- the circuit breaker ---------------------------------------------------------------------------------------

    def _count_falls(self, commit: Commit, changes: Sequence[Change], born: int) -> None:
        """Note the falls of a commit with it, and pause publishing before it where they are too many."""
        if not self._breaker.is_on or not any(change.direction == "downgrade" for change in changes):
            return
        commit.fields["falls"] = self._breaker.count(changes)
        if self.state.held is None and self._breaker.trips(self.state.customers + born):
            commit.fields["held"] = self.outbox.last

    def _hold(self, behind: int | None) -> None:
        self.state.held = behind
        self.outbox.hold(behind)
        self._metrics.paused.labels(self.partition).set(behind is not None)
        if behind is not None:
            log.error(
                "shard %d: more than the allowed share of its customers fell within an hour: publishing is paused "
                "until `kizuna outbox release` or `kizuna outbox drop`",
                self.partition,
            )

    async def _carry_out(self, decision: str) -> None:
        """Publish again; where the falls are to be dropped, withdraw first what is held of those who fell."""
        commit = Commit(fields={"decision": "", "held": "", "falls": self._breaker.forget()})
        customers: dict[str, Customer] = {}
        decided: list[Decision] = []
        word, _, until = decision.partition(" ")
        if self.state.held is not None and word == "drop":
            withdrawn = fallen(self.outbox.behind(self.state.held))
            customers = await self._customers(withdrawn)
            for customer_id, held in withdrawn.items():
                told = self.rules.withdraw(customers[customer_id], held.tier, held.tier_seq, int(until))
                if told:  # else the program does not have the tier any more: what was decided goes out
                    decided += told
                    commit.replaced |= {n: encode(self.outbox.withdrawn(n)) for n in held.numbers}
        await self._commit(commit, customers, decided, [])

    def _evict(self) -> None:
        cache = self._cache
        # Looked for once: what was deleted before the first one is skipped at each look.
        for customer_id in [*islice(cache, max(0, len(cache) - self._cache_limit))]:
            del cache[customer_id]

    def _too_late(self, topic: str, record: Any, event: InputEvent) -> Entry:
        detail = "occurred_at: expected a time within the program's ledger before the newest of its partition"
        return self._domain.intake.dead_letter(topic, self.partition, record, Reason.TOO_LATE, detail)


def move_field(generation: int, before: str, after: str) -> str:
    """The field of a shard's hash that counts who was moved to a generation, from tier to tier."""
    return f"moves:{generation}:{before}\x1f{after}"
