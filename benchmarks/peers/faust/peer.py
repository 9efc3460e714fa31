"""(c) A Faust agent as one writes it first: one event at a time, its orders in a sorted set of Redis, and one pipeline
for each event. uvloop and no web server, as Faust's documentation advises; nothing is batched."""

import faust
from faust.types import StreamT
from mode.loop import use
from redis.asyncio import Redis

from benchmarks.peers.work import Change, Decoder, Event, Place, Program, Work, tell, tell_invalid

use("uvloop")


class Orders:
    """A customer's orders in the window: members `amount order_id` by time, beside the tier it has."""

    def __init__(self, redis: Redis, program: Program) -> None:
        self._redis, self._window = redis, program.window_ms
        self._tiers = program.tiers

    async def add(self, event: Event) -> Change | None:
        """The change that an event brings."""
        customer_id, order_id, at, amount = event
        key = f"orders:{customer_id}"
        pipe = self._redis.pipeline(transaction=False)
        pipe.zremrangebyscore(key, "-inf", at - self._window)
        pipe.zadd(key, {f"{amount} {order_id}": at}, nx=True)
        pipe.zrange(key, 0, -1, withscores=True)
        pipe.get(f"tier:{customer_id}")
        _, added, members, known = await pipe.execute()
        time = int(members[-1][1])
        counted = [
            (member.split(b" ", 1), int(score)) for member, score in members if score > time - self._window
        ]
        ids = [order for (_, order), _ in counted]
        if not added or ids.count(order_id.encode()) != 1:
            if added:
                await self._redis.zrem(key, f"{amount} {order_id}")
            return None
        monetary = sum(int(paid) for (paid, _), _ in counted)
        before = int(known or 0)
        tier = max(
            index
            for index, tier in enumerate(self._tiers)
            if monetary >= tier.min_monetary and len(counted) >= tier.min_frequency
        )
        if tier == before:
            return None
        await self._redis.set(f"tier:{customer_id}", tier)
        return Change(customer_id, order_id, before, tier, time, time, len(counted), monetary)


def app(place: Place) -> faust.App:
    """The app with its one agent."""
    made = faust.App(
        place.group,
        broker=f"kafka://{place.brokers}",
        datadir=str(place.state),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="earliest",
        stream_wait_empty=False,
        producer_linger=0.005,
        worker_redirect_stdouts=False,
        autodiscover=False,
    )
    decode, work = Decoder(place.program).event, Work(place.program)
    orders = Orders(Redis.from_url(place.redis_url), place.program)
    purchases = made.topic(place.input, key_serializer="raw", value_serializer="raw")
    changes = made.topic(place.output, key_serializer="raw", value_serializer="raw")
    started = False

    @made.agent(purchases)
    async def on_purchase(stream: StreamT[bytes]) -> None:
        nonlocal started
        async for value in stream:
            if not started:
                tell("started")
                started = True
            try:
                event = decode(value)
            except ValueError as error:
                tell_invalid(value, error)
                continue
            change = await orders.add(event)
            if change is not None:
                await changes.send(key=change.customer_id.encode(), value=work.record(change))

    return made


if __name__ == "__main__":
    worker = faust.Worker(app(Place.read()), loglevel="WARN", redirect_stdouts=False)
    worker.spinner = None
    worker.execute_from_commandline()
