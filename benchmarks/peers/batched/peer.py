"""(b) The bare loop with the whole work: packed state of its own, kept in memory, and after each batch one pipelined
call to Redis that writes who has changed. No guarantees: no fencing, no offsets with the state, a plain producer."""

import uvloop
from redis.asyncio import Redis

from benchmarks.peers.consuming import Publishing, batches
from benchmarks.peers.work import Change, Decoder, Place, Work, tell

#: As many customers as Kizuna's worker keeps in memory.
_CACHED = 200_000


async def main() -> None:
    """Read on until it is stopped."""
    place = Place.read()
    decoder, work = Decoder(place.program), Work(place.program)
    apply = work.apply
    redis, publishing = Redis.from_url(place.redis_url), Publishing(place)
    await publishing.start()
    cache: dict[str, bytes] = {}
    started = False
    async for partition, records in batches(place):
        if not started:
            tell("started")
            started = True
        events = decoder.events(record.value for record in records)
        missing = list({event.customer_id for event in events if event.customer_id not in cache})
        if missing:
            found = await redis.mget(missing)
            cache.update({customer: state for customer, state in zip(missing, found, strict=True) if state})
        changed: dict[str, bytes] = {}
        changes: list[Change] = []
        for event in events:
            customer_id = event.customer_id
            before = cache.get(customer_id)
            after, change = apply(before, event)
            if after is not before:
                cache[customer_id] = changed[customer_id] = after
                if change is not None:
                    changes.append(change)
        if changed:
            await redis.mset(changed)
        for change in changes:
            await publishing.send(partition, change.customer_id, work.record(change))
        if len(cache) > _CACHED:
            for customer_id in list(cache)[: len(cache) - _CACHED]:
                del cache[customer_id]


if __name__ == "__main__":
    uvloop.run(main())
