"""One shard: its lane, in which batches and sweeps go through one after another, and its outbox.

The way of an event: `Intake.read` → `_customers` → the fold → `Store.commit` → `publish`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from loyalty.customer import Customer
from loyalty.fold import Fold
from loyalty.packing import Packing
from loyalty.views import Change
from schemas.program import Program
from schemas.rejection import Reason
from streams.intake import Event, Intake
from streams.metrics import Metrics
from streams.outbox import Entry, Outbox, change_entry, encode, watermarks
from streams.protocols import (
    COMMANDS,
    PURCHASES,
    TOUCHPOINTS,
    Batch,
    Commit,
    CustomerWrite,
    RefusedError,
    ShardState,
    Store,
    Writer,
)

#: How many due customers one sweep takes into the lane at a time.
_SWEEP_CUSTOMERS = 500
#: One transaction publishes at most this many entries, and about this many bytes.
_PUBLISH_ENTRIES = 5_000
_PUBLISH_BYTES = 4 * 1024 * 1024

#: Instant that no customer has in the store: whatever is next due must be written.
_UNKNOWN = -1


class Domain:
    """What all shards share: the program and what is built from it."""

    def __init__(self, program: Program, intake: Intake) -> None:
        self.program = program
        self.intake = intake
        self.fold = Fold(program)
        self.packing = Packing(program)


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
        self._token = token
        self._writer = writer
        self._store = store
        self._domain = domain
        self._metrics = metrics
        self._lane = asyncio.Lock()
        self._broken = False
        self._closed = False
        # Decoded customers, least recently used first. What is in here has been committed, or the shard is lost.
        self._cache: dict[str, Customer] = {}
        self._cache_limit = cache_customers
        # The instant that stands in the store's `due`, for the customers of the cache.
        self._due: dict[str, int | None] = {}
        fold = domain.fold
        self._apply: dict[str, Callable[[Customer, Any, int | None], Sequence[Change] | None]] = {
            PURCHASES: fold.apply,
            TOUCHPOINTS: lambda customer, event, newest: () if fold.touch(customer, event, newest) else None,
            COMMANDS: _no_command,
        }

    async def process(self, batch: Batch) -> None:
        """Fold one batch and commit it, with all it changes, as one."""
        topic = batch.topic
        async with self._in_lane():
            if batch.start != self.state.offsets[topic]:
                raise RefusedError(
                    f"{topic}: a batch starts at {batch.start}, not at {self.state.offsets[topic]}"
                )
            events, entries = self._domain.intake.read(batch)
            customers = await self._customers({event.customer_id for _, event in events})
            counts = self._metrics.batch(batch)
            touched: dict[str, Customer] = {}
            changes: list[Change] = []
            apply, ledger = self._apply[topic], self._domain.program.ledger
            newest = self.state.newest.get(topic)
            for record, event in events:
                occurred_at = event.occurred_at
                if newest is not None and occurred_at < newest - ledger:
                    entries.append(self._too_late(topic, record, event))
                    continue
                customer = customers[event.customer_id]
                made = apply(customer, event, newest)
                if made is None:
                    counts.duplicates += 1
                    continue
                touched[event.customer_id] = customer
                if newest is None or occurred_at > newest:
                    newest = occurred_at
                if made:
                    changes += made
            commit = Commit(topic, batch.start, batch.end, newest)
            if batch.records:
                commit.appended = batch.records[-1].timestamp
            await self._commit(commit, touched, changes, entries)
            counts.done(entries, changes)

    async def sweep(self, until: int, clock: int) -> None:
        """Let fall due, strictly before `until`, what time alone brings, as far as the outbox has room.

        Asks the store whether the shard is still ours, too. `clock` is the time it is, for telling how far behind the
        shard is: `until` may lie before it. Both are epoch milliseconds.
        """
        overdue = True
        while overdue and self.outbox.has_room:
            async with self._in_lane():
                ids, first = await self._store.due(
                    self.partition, self._token, self.state.version, until, _SWEEP_CUSTOMERS
                )
                self._metrics.overdue(self.partition, 0 if first is None else clock - first)
                overdue = bool(ids)
                if overdue:
                    customers = await self._customers(ids)
                    changes: list[Change] = []
                    for customer in customers.values():
                        changes += self._domain.fold.advance(customer, until)
                    await self._commit(Commit(), customers, changes, [])
                    self._metrics.swept(changes)

    async def publish(self) -> None:
        """Publish what is in the outbox, for as long as the shard is held."""
        while not self._closed:
            entries, upto = await self.outbox.take(_PUBLISH_ENTRIES, _PUBLISH_BYTES)
            started = time.perf_counter()
            records = (record for entry in entries for record in entry.records())
            output = await self._writer.publish(records, upto)
            await self._store.trim(self.partition, self._token, upto, output)
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
        for customer_id, customer in zip(
            missing, await self._store.load(self.partition, missing), strict=True
        ):
            cache[customer_id] = held[customer_id] = customer
            self._due[customer_id] = _UNKNOWN
        return held

    async def _commit(
        self, commit: Commit, touched: Mapping[str, Customer], changes: Sequence[Change], entries: list[Entry]
    ) -> None:
        state, fold, pack = self.state, self._domain.fold, self._domain.packing.pack
        started = time.perf_counter()
        offsets = state.offsets if commit.topic is None else state.offsets | {commit.topic: commit.end}
        if changes:
            read_up_to = watermarks(offsets)
            entries += (
                change_entry(fold.change_body(change), self.partition, read_up_to) for change in changes
            )
        # Touchpoints change neither what time brings nor, but for a newcomer, what the readable hash says.
        moved = commit.topic != TOUCHPOINTS
        newest = dict(state.newest)
        if commit.topic is not None and commit.newest is not None:
            newest[commit.topic] = commit.newest
        horizons = newest.get(PURCHASES), newest.get(TOUCHPOINTS)
        due: dict[str, int | None] = {}
        for customer_id, customer in touched.items():
            before = self._due[customer_id]
            due[customer_id] = instant = fold.next_due(customer)
            commit.customers.append(
                CustomerWrite(
                    customer_id,
                    pack(customer, *horizons),
                    fold.readable(customer) if moved or before == _UNKNOWN else None,
                    instant,
                    instant != before,
                )
            )
        commit.outbox = [encode(entry) for entry in entries]
        packed = time.perf_counter()
        await self._store.commit(self.partition, self._token, state.version, commit)
        self._metrics.committed(packed - started, time.perf_counter() - packed)
        state.version += 1
        state.offsets, state.newest = offsets, newest
        if commit.topic is not None and commit.appended is not None:
            state.appended[commit.topic] = commit.appended
        self._due |= due
        self.outbox.add(entries)
        self._evict()

    def _evict(self) -> None:
        cache = self._cache
        while len(cache) > self._cache_limit:
            customer_id = next(iter(cache))
            del cache[customer_id], self._due[customer_id]

    def _too_late(self, topic: str, record: Any, event: Event) -> Entry:
        detail = "occurred_at: expected a time within the program's ledger before the newest of its partition"
        return self._domain.intake.dead_letter(topic, self.partition, record, Reason.TOO_LATE, detail)


def _no_command(customer: Customer, event: Any, newest: int | None) -> None:
    raise AssertionError("no command is valid yet, so none comes this far")
