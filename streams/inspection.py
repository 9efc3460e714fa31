"""What the store says of customers, for people and for comparing: reads only, worker or no worker."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from loyalty.fold import Fold
from loyalty.packing import Packing
from loyalty.views import CustomerView
from schemas.program import Program
from schemas.times import format_ms
from streams.keys import ShardKeys
from streams.placement import home
from streams.protocols import PURCHASES, Binding, FatalError, ShardState
from streams.redis_store import RedisStore, bound_elsewhere, connect, read_binding
from streams.settings import ClockKind, Settings

#: Customers that are read at a time.
_PART = 500


class InspectionError(Exception):
    """What was asked cannot be answered; the message says why, in one line."""


class Inspection:
    """Reads one store. Open it with `Inspection.open`, close it with `close`."""

    def __init__(self, settings: Settings, program: Program, store: RedisStore, partitions: int) -> None:
        self.program = program
        self._settings = settings
        self._store = store
        self._fold = Fold(program)
        self._partitions = partitions

    @classmethod
    async def open(cls, settings: Settings, program: Program) -> "Inspection":
        """Connect.

        Raises InspectionError where the store was never begun, FatalError where it is another program's or no
        Redis answers.
        """
        try:
            redis = connect(settings.redis_url)
        except ValueError as error:
            raise FatalError(f"no Redis can be at {settings.redis_shown()}: {error}") from error
        try:
            binding = await _binding(redis, settings)
            for field, found, here in (
                ("bound:program", binding.program, program.id),
                ("bound:version", binding.version, program.version),
            ):
                if found != here:
                    raise bound_elsewhere(field, found, here)
        except BaseException:
            await redis.aclose()
            raise
        store = RedisStore(redis, settings.redis_prefix, binding, Packing(program))
        return cls(settings, program, store, binding.partitions)

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()

    async def customer(self, customer_id: str, as_of: int | None = None) -> CustomerView:
        """One customer at `as_of` (epoch milliseconds; None: now).

        Raises InspectionError where there is no such customer, or `as_of` is before the newest purchase of
        its shard.
        """
        partition = home(customer_id.encode(), self._partitions)
        at = await self._instant([partition], as_of)
        if not await self._store.knows(partition, customer_id):
            raise InspectionError(f"no customer {customer_id!r}")
        (customer,) = await self._store.load(partition, [customer_id])
        return self._fold.view(customer, at)

    async def dump(self, as_of: int | None = None) -> AsyncIterator[CustomerView]:
        """Every customer at `as_of`, in no order; raises InspectionError as `customer` does."""
        at = await self._instant(range(self._partitions), as_of)
        for partition in range(self._partitions):
            part: list[str] = []
            async for customer_id in self._store.customers(partition):
                part.append(customer_id)
                if len(part) == _PART:
                    for view in await self._views(partition, part, at):
                        yield view
                    part = []
            for view in await self._views(partition, part, at):
                yield view

    def line(self, view: CustomerView) -> dict[str, Any]:
        """A line of `state dump --json`."""
        return self._fold.dump_line(view)

    async def _views(self, partition: int, ids: Sequence[str], at: int) -> list[CustomerView]:
        return [self._fold.view(customer, at) for customer in await self._store.load(partition, ids)]

    async def _instant(self, asked: Sequence[int], as_of: int | None) -> int:
        states = [await self._store.peek(partition) for partition in range(self._partitions)]
        if as_of is not None:
            for partition in asked:
                newest = _newest(states[partition])
                if newest is not None and as_of < newest:
                    raise InspectionError(
                        f"--as-of {format_ms(as_of)} is before the newest purchase of its shard, "
                        f"{format_ms(newest)}"
                    )
            return as_of
        newest_of_all = max((at for state in states if (at := _newest(state)) is not None), default=None)
        if self._settings.clock is ClockKind.EVENT:
            return newest_of_all or 0
        # A purchase may be ahead of the clock by `max_future`; nobody is shown before it.
        return max(await self._store.now(), newest_of_all or 0)


def _newest(state: ShardState | None) -> int | None:
    return None if state is None else state.newest.get(PURCHASES)


async def _binding(redis: "Redis", settings: Settings) -> Binding:
    keys = ShardKeys(settings.redis_prefix, 0)
    try:
        held: dict[bytes, bytes] = await cast(Any, redis.hgetall(keys.shard))
    except (RedisError, OSError) as error:
        raise FatalError(f"no Redis answers at {settings.redis_shown()}: {error}") from error
    if not held:
        raise InspectionError(
            f"no worker has begun a store at {settings.redis_shown()} under prefix {settings.redis_prefix!r}"
        )
    return read_binding(held)
