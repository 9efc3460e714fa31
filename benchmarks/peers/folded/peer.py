"""(b) with Kizuna's own decoding, fold and packing: what the worker would do were there nothing to guarantee. After
each batch one pipelined call to Redis writes who has changed; no fencing, no offsets with the state, no outbox, no due
times and no readable hashes, a plain producer."""

import gc
import sys
from collections.abc import Iterable
from typing import Any, cast

import uvloop
from redis.asyncio import Redis

from benchmarks.peers.consuming import Publishing, batches
from benchmarks.peers.work import Change, Place, Work, tell, tell_invalid
from cli.local_jars import ROOT
from loyalty.customer import Customer
from loyalty.packing import Packing, page_numbers
from loyalty.rules import Rules
from schemas.decoding import EventDecoder
from schemas.events import PurchaseMade
from schemas.rejection import RejectedError
from streams.preflight import read_program

#: As the worker's.
_CACHED = 200_000


class States:
    """Customers in memory and in Redis, as the worker packs them."""

    def __init__(self, redis: Redis, rules: Rules) -> None:
        self._redis = redis
        self._packing = Packing(rules)
        self._cache: dict[str, Customer] = {}

    async def load(self, ids: Iterable[str]) -> dict[str, Customer]:
        """Customers by id."""
        cache = self._cache
        held = {customer_id: cache.get(customer_id) for customer_id in ids}
        missing = [customer_id for customer_id, customer in held.items() if customer is None]
        if missing:
            heads = await self._redis.mget(missing)
            pages = await self._pages(missing, heads)
            for customer_id, head in zip(missing, heads, strict=True):
                customer = self._packing.unpack(customer_id, head, pages.get(customer_id, {}))
                held[customer_id] = cache[customer_id] = customer
        return cast("dict[str, Customer]", held)

    async def _pages(self, ids: list[str], heads: list[bytes | None]) -> dict[str, dict[int, bytes]]:
        names = [
            (customer_id, number)
            for customer_id, head in zip(ids, heads, strict=True)
            if head is not None
            for number in page_numbers(head)
        ]
        pages: dict[str, dict[int, bytes]] = {}
        if names:
            found: list[Any] = await self._redis.mget(
                [f"{customer_id} {number}" for customer_id, number in names]
            )
            for (customer_id, number), page in zip(names, found, strict=True):
                pages.setdefault(customer_id, {})[number] = page
        return pages

    async def save(self, changed: dict[str, Customer], newest: int | None) -> None:
        """Write them, and keep no more in memory than the worker does."""
        written: dict[str, bytes] = {}
        dropped: list[str] = []
        for customer_id, customer in changed.items():
            packed = self._packing.pack(customer, newest, None)
            written[customer_id] = packed.head
            written.update((f"{customer_id} {number}", page) for number, page in packed.written.items())
            dropped += [f"{customer_id} {number}" for number in packed.dropped]
        pipe = self._redis.pipeline(transaction=False)
        pipe.mset(written)
        if dropped:
            pipe.delete(*dropped)
        await pipe.execute()
        if len(self._cache) > _CACHED:
            for customer_id in list(self._cache)[: len(self._cache) - _CACHED]:
                del self._cache[customer_id]


async def main() -> None:
    """Read on until it is stopped."""
    place = Place.read()
    program = read_program(str(ROOT / "benchmarks" / "peers" / "program.toml"))
    decoder, rules, work = EventDecoder(program), Rules(program), Work(place.program)
    states, publishing = States(Redis.from_url(place.redis_url), rules), Publishing(place)
    await publishing.start()
    newest: dict[int, int] = {}
    started = False
    async for partition, records in batches(place):
        if not started:
            tell("started")
            started = True
        events = [event for record in records if (event := _purchase(decoder, record)) is not None]
        customers = await states.load({event.customer_id for event in events})
        clock = newest.get(partition)
        changed: dict[str, Customer] = {}
        changes: list[Change] = []
        for event in events:
            customer = customers[event.customer_id]
            before = customer.tier
            if rules.apply(customer, event, clock) is None:
                continue
            changed[event.customer_id] = customer
            if clock is None or event.occurred_at > clock:
                clock = event.occurred_at
            if customer.tier != before:
                changes.append(_change(customer, event, before))
        if clock is not None:
            newest[partition] = clock
        if changed:
            await states.save(changed, clock)
        for change in changes:
            await publishing.send(partition, change.customer_id, work.record(change))


def _purchase(decoder: EventDecoder, record: Any) -> PurchaseMade | None:
    try:
        event = decoder.purchase(record)
    except RejectedError as error:
        tell_invalid(record.value, ValueError(str(error)))
        return None
    return event if isinstance(event, PurchaseMade) else None


def _change(customer: Customer, event: PurchaseMade, before: int) -> Change:
    at, last = customer.time, customer.last_purchase_at
    assert at is not None
    assert last is not None
    told = customer.customer_id, event.order_id, before, customer.tier
    return Change(*told, at, last, customer.frequency, customer.monetary)


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    sys.setswitchinterval(0.0005)
    uvloop.run(main())
