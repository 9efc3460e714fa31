"""A store of twelve shards on the real server, with the workers of one program at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from loyalty import Customer, Packing
from schemas.murmur2 import home
from schemas.program import Program
from streams.program_change import Move, ProgramChange
from streams.program_rules import rules_of
from streams.protocols import INPUTS, PURCHASES, Batch, Binding, Mark, UnavailableError
from streams.redis_nodes import RedisNodes
from streams.redis_store import RedisStore
from streams.settings import Settings
from streams.shard import Shard
from tests.streams.conftest import PREFIX
from tests.streams.shard_world import PARTITIONS, MemoryWriter, bought, make_shard

Change = Callable[..., Awaitable[ProgramChange]]


def binding(program: Program) -> Binding:
    return Binding("cluster-a", "loyalty.", "kizuna", PARTITIONS, program.id, program.version)


class Workers:
    """Every shard, as workers with one program hold them."""

    def __init__(self, nodes: RedisNodes, program: Program, token: str = "one") -> None:
        self.program = program
        self.store = RedisStore(nodes, PREFIX, binding(program), program.text)
        self.token = token
        self.writer = MemoryWriter()
        self.shards: list[Shard] = []

    async def take_over(self) -> "Workers":
        self.shards = list(await asyncio.gather(*map(self._own, range(PARTITIONS))))
        return self

    async def _own(self, partition: int) -> Shard:
        begin = dict.fromkeys(INPUTS, 0)
        state, pending = await self.store.take_over(partition, self.token, begin, Mark())
        return make_shard(
            self.program,
            self.store,
            self.writer,
            state=state,
            pending=pending,
            partition=partition,
            token=self.token,
            bound=10_000,
        )

    def home(self, customer: str) -> Shard:
        return self.shards[home(customer.encode(), PARTITIONS)]

    def batches(self, *lines: tuple[str, int, str]) -> dict[Shard, Batch]:
        """Purchases for the shards of their customers: customer, epoch milliseconds, amount."""
        by_shard: dict[Shard, list[tuple[str, int, str]]] = {}
        for line in lines:
            by_shard.setdefault(self.home(line[0]), []).append(line)
        return {
            shard: bought(shard.state.offsets[PURCHASES], *part, partition=shard.partition)
            for shard, part in by_shard.items()
        }

    async def buy(self, *lines: tuple[str, int, str]) -> None:
        for shard, batch in self.batches(*lines).items():
            await shard.process(batch)

    async def move(self, clock: int, limit: int = 100) -> int:
        """Move everyone; how many were looked at."""
        looked_at = 0
        for shard in self.shards:
            while found := await shard.move(clock, limit):
                looked_at += found
        return looked_at

    async def customer(self, customer_id: str) -> Customer:
        partition = home(customer_id.encode(), PARTITIONS)
        state = await self.store.peek(partition)
        assert state is not None
        packing = Packing(rules_of(self.program, state))
        [customer] = await self.store.load(partition, [customer_id], packing)
        return customer

    async def fields(self, nodes: RedisNodes, field: str) -> list[Any]:
        """A field of every shard's hash."""
        return [await (await nodes.of(p)).hget(self.store.keys(p).shard, field) for p in range(PARTITIONS)]


def told(_: int) -> None:
    """Somebody who is told of the progress and does not care."""


async def apply(change: ProgramChange, protect_until: int | None = None) -> None:
    await change.begin(protect_until)
    await change.enlist(told)


def break_after(change: ProgramChange, calls: int) -> None:
    """Let the change lose its Redis after so many scripts."""
    run, left = change._run, iter(range(calls))

    async def breaking(*args: Any) -> Any:
        if next(left, None) is None:
            raise UnavailableError("gone")
        return await run(*args)

    change._run = breaking  # type: ignore[method-assign]


def numbers(moves: list[Move]) -> dict[tuple[str, str], int]:
    return {(move.before, move.after): move.customers for move in moves}


def settings(address: str, **given: Any) -> Settings:
    return Settings(redis_url=f"redis://{address}/0", redis_prefix=PREFIX, **given)
