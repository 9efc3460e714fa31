"""The simulator's store answers as the scripts on the real server do, call by call, and holds the same in the end."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
from redis.asyncio import Redis

from loyalty import Customer, Packing, Rules
from loyalty.heads import Packed
from loyalty.saving import CustomerWrite
from schemas.program import Program
from streams.protocols import INPUTS, Commit, FatalError, Mark, ShardLostError
from streams.redis_store import RedisStore
from tests.loyalty.worlds import purchase
from tests.simulation.store import MemoryStore, Partition, Server
from tests.streams.conftest import BINDING, PREFIX, MakeStore

CUSTOMERS = ["a", "b", "{3}", "märta"]
#: A customer of more entries begins anew: the pages here are made up, and those of its own would contradict them.
_ENTRIES = 8
TOKENS = ["one", "two"]


class Calls:
    """Draws calls: mostly such as a worker would make, now and then one that must be refused."""

    def __init__(self, rng: Random, program: Program) -> None:
        self._rng = rng
        self._rules = Rules(program)
        self._packing = Packing(self._rules)
        self._customers: dict[str, Customer] = {}
        self._made = 0

    def draw(self, shard: Partition) -> tuple[str, tuple[Any, ...]]:
        """The next call, by what the twin holds now."""
        rng, held = self._rng, shard.hash
        token = held.get("owner", "one") if rng.random() < 0.9 else rng.choice(TOKENS)
        version = int(held.get("version", 0)) + (rng.random() < 0.07)
        newest = int(held.get("outbox_last", 0))
        match rng.choices(
            ["take_over", "restore", "commit", "trim", "due", "load", "peek", "unmoved"],
            [2, 1, 8, 3, 3, 2, 1, 1],
        )[0]:
            case "take_over":
                begin = {topic: rng.randrange(9) for topic in INPUTS}
                mark = Mark(
                    max(0, newest + rng.randint(-4, 3)), int(held.get("reign", 0)) + rng.choice((0, 0, -1, 1))
                )
                return "take_over", (
                    3,
                    rng.choice(TOKENS),
                    begin,
                    mark if held or rng.random() < 0.2 else Mark(),
                )
            case "restore":
                entries = [b"r%d" % rng.randrange(99) for _ in range(rng.randrange(3))]
                return "restore", (3, token, entries, Mark(newest + rng.randint(-3, 3), rng.randrange(9)))
            case "commit":
                return "commit", (3, token, version, self._commit(held, newest, len(shard.outbox)))
            case "trim":
                outputs = {
                    t: rng.randrange(99) for t in ("tier-changes", "attributions") if rng.random() < 0.5
                }
                return "trim", (
                    3,
                    token,
                    max(0, version - rng.randrange(3)),
                    max(0, newest - rng.randint(-1, 5)),
                    outputs,
                )
            case "due":
                return "due", (3, token, version, rng.randrange(9), rng.choice((0, 1, 10, 10)))
            case "load":
                return "load", (3, rng.sample(CUSTOMERS, rng.randint(0, 4)), self._packing)
            case "unmoved":
                return "unmoved", (3, token, 10)
        return "peek", (3,)

    def _commit(self, held: dict[str, str], newest: int, pending: int) -> Commit:
        rng = self._rng
        commit = Commit(customers=[self._write(name) for name in rng.sample(CUSTOMERS, rng.randint(0, 3))])
        if rng.random() < 0.8:
            commit.topic = rng.choice(INPUTS)
            commit.start = int(held.get(f"offset:{commit.topic}", 0)) + (rng.random() < 0.07)
            commit.end = commit.start + rng.randrange(5)
            commit.newest = rng.choice((None, rng.randrange(999)))
            commit.appended = rng.choice((None, rng.randrange(999)))
        commit.outbox = [b"e%d" % rng.randrange(999) for _ in range(rng.randrange(4))]
        if pending and rng.random() < 0.3:
            commit.replaced = {newest - rng.randrange(pending + 1): b"other"}
        if rng.random() < 0.3:
            commit.fields = rng.choice(({"held": newest}, {"held": "", "falls": "3=1"}, {"decision": ""}))
        if rng.random() < 0.3:
            commit.added = {"customers": rng.randrange(3), "moves:1:a\x1fb": 1}
        return commit

    def _write(self, customer_id: str) -> CustomerWrite:
        rng = self._rng
        customer = self._customers.setdefault(customer_id, self._rules.new_customer(customer_id))
        if len(customer.open.entries) >= _ENTRIES:
            customer = self._customers[customer_id] = self._rules.new_customer(customer_id)
        self._made += 1
        self._rules.apply(
            customer, purchase(self._made * 1000, f"o{self._made}", customer_id=customer_id), None
        )
        packed = self._packing.pack(customer, self._made * 1000, None)
        written = {rng.randrange(4): b"\x02page" for _ in range(rng.randrange(3))}
        packed = Packed(
            packed.head, written, [n for n in range(4) if n not in written and rng.random() < 0.5]
        )
        return CustomerWrite(
            customer_id,
            packed,
            rng.choice((None, (("tier", "as_of"), [str(self._made), ""]), (("frequency",), ["2"]))),
            rng.choice((None, rng.randrange(9))),
            rng.random() < 0.7,
        )


async def answer(call: Callable[[], Any]) -> Any:
    """What a call gives or raises."""
    try:
        found = call()
        if isinstance(found, Awaitable):
            found = await found
    except (ShardLostError, FatalError) as error:
        return type(error), str(error).split(": restore")[0]
    if isinstance(found, list) and found and isinstance(found[0], Customer):
        return [(one.customer_id, one.time, one.lifetime_orders) for one in found]
    return found


async def content(redis: Redis) -> dict[str, Any]:
    """All that stands on the server, by the last part of its key."""
    found: dict[str, Any] = {}
    async for key in redis.scan_iter():
        match await redis.type(key):
            case b"string":
                value: Any = await redis.get(key)
            case b"hash":
                value = await redis.hgetall(key)
            case b"list":
                value = await redis.lrange(key, 0, -1)
            case _:
                value = dict(await redis.zrange(key, 0, -1, withscores=True))
        found[key.decode().removeprefix(f"{PREFIX}:{{3}}:")] = value
    return found


def twins(shard: Partition) -> dict[str, Any]:
    """The same of the twin."""

    def encoded(held: dict[Any, Any]) -> dict[bytes, bytes]:
        return {str(k).encode(): v if isinstance(v, bytes) else str(v).encode() for k, v in held.items()}

    found: dict[str, Any] = {"shard": encoded(shard.hash)} if shard.hash else {}
    if shard.outbox:
        found["outbox"] = list(shard.outbox)
    if shard.due:
        found["due"] = {customer_id.encode(): float(at) for customer_id, at in shard.due.items()}
    found |= {f"state:{customer_id}": head for customer_id, head in shard.heads.items()}
    found |= {f"pages:{customer_id}": encoded(pages) for customer_id, pages in shard.pages.items()}
    found |= {f"customer:{customer_id}": encoded(fields) for customer_id, fields in shard.readable.items()}
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_the_twin_answers_as_the_server_does(
    seed: int, redis: Redis, make_store: MakeStore, grocery: Program
) -> None:
    rng = Random(seed)
    real: RedisStore = make_store()
    server = Server()
    twin = MemoryStore(server, PREFIX, BINDING)
    shard, calls = twin.shard(3), Calls(rng, grocery)
    refused = 0
    for number in range(150):
        name, args = calls.draw(shard)
        if name == "load":
            # Pages that were drawn here belong to no head.
            args = (3, [c for c in args[1] if not shard.pages.get(c)], args[2])
        theirs = await answer(lambda n=name, a=args: getattr(real, n)(*a))  # type: ignore[misc]
        ours = await answer(lambda n=name, a=args: getattr(twin, n)(*a))  # type: ignore[misc]
        assert ours == theirs, (number, name, args)
        refused += isinstance(ours, tuple) and isinstance(ours[0], type)
        if number % 10 == 9:
            assert twins(shard) == await content(redis), (number, name, args)
    assert 5 < refused < 100
    assert len(server.journal.writes) > 40
