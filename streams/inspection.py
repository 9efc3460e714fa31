"""What the store says of customers, for people and for comparing: reads only, worker or no worker."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from redis.exceptions import RedisError

from loyalty.customer import Customer
from loyalty.packing import Packing
from loyalty.rules import Rules
from loyalty.views import CustomerView, dump_line
from loyalty.why import Why, why
from schemas.murmur2 import home
from schemas.program import Program
from schemas.times import format_ms
from streams.keys import ShardKeys
from streams.program_rules import rules_of
from streams.protocols import COMMANDS, PURCHASES, Binding, FatalError, ShardState
from streams.redis_nodes import RedisNodes, connect
from streams.redis_store import RedisStore, bound_elsewhere, read_binding
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
        self._partitions = partitions

    @classmethod
    async def open(cls, settings: Settings, program: Program) -> "Inspection":
        """Connect.

        Raises InspectionError where the store was never begun, FatalError where it is another program's or no
        Redis answers.
        """
        nodes = connect(settings.redis_url)
        try:
            binding = await _binding(nodes, settings)
            for field, found, here in (
                ("bound:program", binding.program, program.id),
                ("bound:version", binding.version, program.version),
            ):
                if found != here:
                    raise bound_elsewhere(field, found, here)
        except BaseException:
            await nodes.aclose()
            raise
        store = RedisStore(nodes, settings.redis_prefix, binding)
        return cls(settings, program, store, binding.partitions)

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()

    async def customer(self, customer_id: str, as_of: int | None = None) -> CustomerView:
        """One customer at `as_of` (epoch milliseconds; None: now).

        Raises InspectionError where there is no such customer, or `as_of` is before the newest purchase of
        its shard.
        """
        rules, customer, at = await self.find(customer_id, as_of)
        return _view(rules, customer, at)

    async def now(self) -> int:
        """The time it is by the settings' clock, epoch milliseconds."""
        return await self._instant(await self._states(), [], None)

    async def find(self, customer_id: str, as_of: int | None = None) -> tuple[Rules, Customer, int]:
        """One customer as it is stored, the rules that hold for it, and the instant to look at; raises as
        `customer` does."""
        partition = home(customer_id.encode(), self._partitions)
        states = await self._states()
        at = await self._instant(states, [partition], as_of)
        if not await self._store.knows(partition, customer_id):
            raise InspectionError(f"no customer {customer_id!r}")
        rules = rules_of(self.program, states[partition] or ShardState())
        (customer,) = await self._store.load(partition, [customer_id], Packing(rules))
        return rules, customer, at

    async def why(self, customer_id: str, as_of: int | None = None) -> Why:
        """Why one customer has its tier at `as_of`; raises as `customer` does."""
        rules, customer, at = await self.find(customer_id, as_of)
        try:
            return why(rules, customer, at)
        except ValueError as error:
            raise InspectionError(f"--as-of {format_ms(at)}: {error}") from error

    async def dump(self, as_of: int | None = None) -> AsyncIterator[CustomerView]:
        """Every customer at `as_of`, in no order; raises InspectionError as `customer` does."""
        states = await self._states()
        at = await self._instant(states, range(self._partitions), as_of)
        async for rules, customer in self.stored(states):
            yield _view(rules, customer, at)

    async def stored(
        self, states: Sequence[ShardState | None] | None = None
    ) -> AsyncIterator[tuple[Rules, Customer]]:
        """Every customer as it is stored, in no order, with the rules that hold for it."""
        states = await self._states() if states is None else states
        rules = [None if state is None else rules_of(self.program, state) for state in states]
        packings = [None if one is None else Packing(one) for one in rules]
        parts: dict[int, list[str]] = {}

        async def load(partition: int) -> AsyncIterator[tuple[Rules, Customer]]:
            one, packing = rules[partition], packings[partition]
            if one is not None and packing is not None:
                for customer in await self._store.load(partition, parts.pop(partition), packing):
                    yield one, customer

        async for partition, customer_id in self._store.customers():
            part = parts.setdefault(partition, [])
            part.append(customer_id)
            if len(part) == _PART:
                async for found in load(partition):
                    yield found
        for partition in list(parts):
            async for found in load(partition):
                yield found

    def line(self, view: CustomerView) -> dict[str, Any]:
        """A line of `state dump --json`."""
        return dump_line(self.program, view)

    async def _states(self) -> list[ShardState | None]:
        return [await self._store.peek(partition) for partition in range(self._partitions)]

    async def _instant(
        self, states: Sequence[ShardState | None], asked: Sequence[int], as_of: int | None
    ) -> int:
        if as_of is not None:
            for partition in asked:
                newest = _newest(states[partition])
                if newest is not None and as_of < newest:
                    raise InspectionError(
                        f"--as-of {format_ms(as_of)} is before the newest purchase or command of its shard, "
                        f"{format_ms(newest)}"
                    )
            return as_of
        newest_of_all = max((at for state in states if (at := _newest(state)) is not None), default=None)
        if self._settings.clock is ClockKind.EVENT:
            return newest_of_all or 0
        # A purchase may be ahead of the clock by `max_future`; nobody is shown before it.
        return max(await self._store.now(), newest_of_all or 0)


def _view(rules: Rules, customer: Customer, at: int) -> CustomerView:
    try:
        return rules.view(customer, at)
    except ValueError as error:
        raise InspectionError(f"--as-of {format_ms(at)}: {error}") from error


def _newest(state: ShardState | None) -> int | None:
    """The newest instant that a customer's time may have been moved to by an event."""
    if state is None:
        return None
    return max(
        (state.newest[topic] for topic in (PURCHASES, COMMANDS) if topic in state.newest), default=None
    )


async def _binding(nodes: RedisNodes, settings: Settings) -> Binding:
    keys = ShardKeys(settings.redis_prefix, 0)
    try:
        redis = await nodes.of(0)
        held: dict[bytes, bytes] = await cast(Any, redis.hgetall(keys.shard))
    except (RedisError, OSError) as error:
        raise FatalError(f"no Redis answers at {settings.redis_shown()}: {error}") from error
    if not held:
        raise InspectionError(
            f"no worker has begun a store at {settings.redis_shown()} under prefix {settings.redis_prefix!r}"
        )
    return read_binding(held)
