"""`kizuna program apply`: moves a store to another version of its program, beside the workers.

1. Every shard is switched, in one step each: its owner is refused from then on, so workers of the old version give
   way, and workers of the new one take over with the rules of both. 2. Everyone who was there is listed. 3. The
   workers move them, bit by bit; who sends an event meanwhile is moved with it. 4. When nobody is left, the program
   before is forgotten. Each step may be broken off and done again.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Self, cast

from redis.exceptions import ResponseError

from loyalty.packing import Packing
from loyalty.program_change import Previous, check_change
from loyalty.rules import Rules
from schemas.program import Program, ProgramError, parse_program
from streams.keys import ShardKeys
from streams.protocols import PURCHASES, Binding, FatalError, ShardState, Stop
from streams.redis_nodes import RedisNodes, Script, connect, script_of
from streams.redis_store import (
    RedisStore,
    all_customers,
    answers,
    read_binding,
    script,
    shard_state,
)
from streams.settings import ClockKind, Settings

#: Customers that are listed, or looked at, in one step.
_PART = 1_000


@dataclass(frozen=True, slots=True)
class Move:
    """How many customers go from a tier to a tier, and how many of them are then at risk."""

    before: str
    after: str
    customers: int
    at_risk: int = 0


class ChangeError(Exception):
    """The program cannot be applied to this store; the message says why, in one line."""


class ProgramChange:
    """One change of a store's program. Make it with `open`, close it with `close`."""

    def __init__(
        self, settings: Settings, program: Program, nodes: RedisNodes, shards: list[ShardState]
    ) -> None:
        self.program = program
        self._settings = settings
        self._nodes = nodes
        self._shards = shards
        self._switch = script_of(script("switch"))
        self._enlist = script_of(script("enlist"))
        self._finish = script_of(script("finish"))
        #: The program that the store is on, or is leaving.
        self.before: Program | None = None
        #: Until when those are protected who were there, where the change was begun earlier: it stays as it was.
        self.protect_until: int | None = None
        #: Whether the change was begun earlier, and whether it is over.
        self.is_begun = False
        self.is_done = False
        self._is_listed = False

    @classmethod
    async def open(cls, settings: Settings, program: Program) -> Self:
        """Look at the store.

        Raises ChangeError where the store cannot go over to this program, FatalError where it is another
        program's, UnavailableError where no Redis answers.
        """
        nodes = connect(settings.redis_url)
        try:
            held = await _shards(nodes, settings)
            change = cls(settings, program, nodes, [shard_state(shard) for shard in held])
            await change._look(held)
        except BaseException:
            await nodes.aclose()
            raise
        return change

    async def _look(self, held: list[dict[bytes, bytes]]) -> None:
        bindings = [read_binding(shard) for shard in held]
        if bindings[0].program != self.program.id:
            raise ChangeError(
                f"program.id: the store is of program {bindings[0].program!r}, expected that id: another program "
                "needs another KIZUNA_REDIS_PREFIX"
            )
        begun = [binding.version == self.program.version for binding in bindings]
        self.is_begun = any(begun)
        self.is_done = all(begun) and not any(shard.is_moving for shard in self._shards)
        self._is_listed = all(begun) and all(
            shard.get(b"program:listed") == str(state.generation).encode()
            for shard, state in zip(held, self._shards, strict=True)
        )
        for shard, on_new in zip(self._shards, begun, strict=True):
            if on_new and shard.is_moving:
                self.protect_until = shard.protect_until
        if self.is_done:
            return
        texts = {
            (shard.get(b"program:before") if on_new else shard.get(b"program:text")) or b""
            for shard, on_new in zip(held, begun, strict=True)
            if not on_new or b"program:before" in shard
        }
        versions = {b.version for b, on_new in zip(bindings, begun, strict=True) if not on_new}
        if len(versions) > 1 or any(
            shard.is_moving for shard, on_new in zip(self._shards, begun, strict=True) if not on_new
        ):
            raise ChangeError(
                "another change of the program is under way: finish it first, by the same command with its file"
            )
        if len(texts) != 1 or not (text := texts.pop()):
            raise ChangeError(
                "the store does not know the file of the program that it is on: run a worker of that version once"
            )
        try:
            self.before = parse_program(text)
        except ProgramError as error:
            raise FatalError(
                f"the program before, as the store holds it, cannot be read: {error}", Stop.PROGRAM
            ) from error
        try:
            check_change(self.before, self.program, None if self.is_begun else await self._earliest())
        except ProgramError as error:
            raise ChangeError(str(error)) from error

    async def close(self) -> None:
        """Close the connections."""
        await self._nodes.aclose()

    async def foresee(self, protect_until: int | None, advance: Callable[[int], None]) -> list[Move]:
        """How many would go from which tier to which, were the change now; nothing is written.

        `advance` is told of the customers that were looked at, all in all.
        """
        assert self.before is not None  # a change that is over moves nobody
        now = await self._now()
        rules, moves, at_risk, names = [], Counter[tuple[str, str]](), Counter[tuple[str, str]](), []
        for shard in self._shards:
            at = self._instant(shard, now)
            if shard.is_moving:
                previous = Previous(self.before, shard.program_at, shard.protect_until)
                generation = shard.generation
            else:
                previous, generation = Previous(self.before, at, protect_until), shard.generation + 1
            rules.append(
                Rules(
                    self.program, generation, previous, lambda _, before, after: names.append((before, after))
                )
            )
        store = RedisStore(self._nodes, self._settings.redis_prefix, _NO_BINDING)
        packings = [Packing(one) for one in rules]
        seen: set[str] = set()
        async for partition, ids in self._parts():
            fresh = [customer_id for customer_id in ids if customer_id not in seen]
            seen.update(fresh)
            for customer in await store.load(partition, fresh, packings[partition]):
                if rules[partition].is_moved(customer):
                    continue
                rules[partition].move(customer)
                pair = names.pop()
                moves[pair] += 1
                at_risk[pair] += customer.at_risk is not None
            advance(len(seen))
        return _moves(moves, at_risk)

    async def begin(self, protect_until: int | None) -> None:
        """Switch every shard that is not switched yet.

        Raises ChangeError where a shard has meanwhile gone over to another version.
        """
        assert self.before is not None
        instant: Any = "" if self._settings.clock is ClockKind.EVENT else await self._now()
        for shard in self._shards:
            if shard.is_moving and self._settings.clock is ClockKind.WALL:
                instant = shard.program_at  # begun earlier: the same instant for all
        protect = "" if protect_until is None else protect_until
        for partition, shard in enumerate(self._shards):
            generation, at = await self._run(
                self._switch,
                partition,
                [self._keys(partition).shard],
                [self.before.version, self.program.version, self.program.text, instant, protect],
            )
            shard.generation, shard.program_at = int(generation), int(at)
        self.is_begun = True

    async def enlist(self, advance: Callable[[int], None]) -> None:
        """List everyone who was there, for the workers to move; `advance` is told of how many were listed.

        Nothing is to be done where that was completed earlier.
        """
        if self._is_listed:
            return
        listed = 0
        async for partition, ids in self._parts():
            await self._enlisted(partition, 0, ids)
            listed += len(ids)
            advance(listed)
        for partition in range(len(self._shards)):
            await self._enlisted(partition, 1, [])

    async def _enlisted(self, partition: int, last: int, ids: list[str]) -> None:
        keys = self._keys(partition)
        await self._run(
            self._enlist,
            partition,
            [keys.shard, keys.unmoved],
            [self._shards[partition].generation, last, *ids],
        )

    async def left(self) -> int:
        """How many are still to be moved; at 0 the change is over."""
        left = 0
        for partition, shard in enumerate(self._shards):
            keys = self._keys(partition)
            left += abs(
                await self._run(self._finish, partition, [keys.shard, keys.unmoved], [shard.generation])
            )
        self.is_done = left == 0
        return left

    async def tally(self) -> list[Move]:
        """How many have gone from which tier to which by this change."""
        moves = Counter[tuple[str, str]]()
        for partition, shard in enumerate(await _shards(self._nodes, self._settings)):
            prefix = f"moves:{self._shards[partition].generation}:"
            for raw, count in shard.items():
                if (field := raw.decode()).startswith(prefix):
                    before, _, after = field.removeprefix(prefix).partition("\x1f")
                    moves[before, after] += int(count)
        return _moves(moves, Counter())

    def _instant(self, shard: ShardState, now: int) -> int:
        return now if self._settings.clock is ClockKind.WALL else shard.newest.get(PURCHASES, 0)

    async def _earliest(self) -> int:
        """The earliest instant that the change would have in a shard in which anything was bought."""
        now = await self._now()
        bought = [shard for shard in self._shards if PURCHASES in shard.newest]
        return min([now, *(self._instant(shard, now) for shard in bought)])

    async def _now(self) -> int:
        with answers(self._nodes):
            return await self._nodes.now()

    async def _parts(self) -> AsyncIterator[tuple[int, list[str]]]:
        """Every customer, in parts of one partition each."""
        parts: dict[int, list[str]] = {}
        async for partition, customer_id in all_customers(self._nodes, self._settings.redis_prefix):
            part = parts.setdefault(partition, [])
            part.append(customer_id)
            if len(part) == _PART:
                yield partition, parts.pop(partition)
        for partition, part in parts.items():
            yield partition, part

    async def _run(self, command: Script, partition: int, keys: list[str], args: list[Any]) -> Any:
        with answers(self._nodes):
            try:
                return await self._nodes.run(command, partition, keys, args)
            except ResponseError as error:
                if str(error).startswith("CHANGED "):
                    raise ChangeError("the program was changed by somebody else meanwhile") from error
                raise

    def _keys(self, partition: int) -> ShardKeys:
        return ShardKeys(self._settings.redis_prefix, partition)


#: The store is only read by these rules; nothing is taken over.
_NO_BINDING = Binding("", "", "", 0, "", "")


async def _shards(nodes: RedisNodes, settings: Settings) -> list[dict[bytes, bytes]]:
    """The hashes of all shards. Raises ChangeError where the store was not begun, or not in all its shards."""

    async def held(partition: int) -> dict[bytes, bytes]:
        with answers(nodes):
            redis = await nodes.of(partition)
            keys = ShardKeys(settings.redis_prefix, partition)
            found: dict[bytes, bytes] = await cast(Any, redis.hgetall(keys.shard))
            return found

    first = await held(0)
    if not first:
        raise ChangeError(
            f"no worker has begun a store at {settings.redis_shown()} under prefix {settings.redis_prefix!r}: "
            "start one with this program file, nothing needs to be applied"
        )
    shards = [first, *[await held(partition) for partition in range(1, read_binding(first).partitions)]]
    if not all(shards):
        missing = ", ".join(str(partition) for partition, shard in enumerate(shards) if not shard)
        raise ChangeError(
            f"shards {missing} of the store were never begun: run a worker of its program first"
        )
    return shards


def _moves(moves: Counter[tuple[str, str]], at_risk: Counter[tuple[str, str]]) -> list[Move]:
    return [
        Move(before, after, count, at_risk[before, after]) for (before, after), count in sorted(moves.items())
    ]
