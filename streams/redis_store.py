"""The shard store on Redis or Valkey, one or a cluster: one script per write, each of which checks the owner first.

Nothing is retried here: after a lost reply nobody knows whether a script ran, so the caller takes the shard over
again and reads what became of it.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, cast

import msgspec
from redis.exceptions import AskError, MovedError, RedisError, ResponseError, TryAgainError

from loyalty.customer import Customer
from loyalty.heads import read_head
from loyalty.packing import Packing
from loyalty.saving import CustomerWrite
from streams.closed_connections import is_closed
from streams.keys import ShardKeys, partition_and_customer, state_pattern
from streams.protocols import (
    INPUTS,
    Binding,
    Commit,
    Due,
    FatalError,
    Mark,
    MovedOnError,
    RefusedError,
    ShardState,
    Stop,
    UnavailableError,
)
from streams.redis_nodes import RedisNodes, script_of
from streams.topics import TIER_CHANGES, topics_remade


def script(name: str) -> str:
    """The text of one of the scripts in `streams/lua`."""
    return (files("streams") / "lua" / f"{name}.lua").read_text()


class RedisStore:
    """`streams.protocols.Store` and `Clock` on a Redis or a Redis Cluster.

    Every method raises RefusedError where the owner, the version or the watermark is another's, and
    UnavailableError where Redis did not answer with a result.
    """

    def __init__(
        self, nodes: RedisNodes, prefix: str, binding: Binding, program_text: str = "", url: str = ""
    ) -> None:
        """`url`: where the pages are of who takes shards over here; empty where there are none."""
        self._nodes = nodes
        self._prefix = prefix
        self._binding = binding_fields(binding)
        self._program_text = program_text
        self._url = url
        self._keys: dict[int, ShardKeys] = {}
        self._commit = self._script("commit")
        self._take_over = self._script("take_over")
        self._restore = self._script("restore")
        self._trim = self._script("trim")
        self._due = self._script("due")
        self._unmoved = self._script("unmoved")

    def _script(self, name: str) -> Any:
        return script_of(script("owner") + script(name))

    def keys(self, partition: int) -> ShardKeys:
        """The names of a shard's keys."""
        keys = self._keys.get(partition)
        if keys is None:
            keys = self._keys[partition] = ShardKeys(self._prefix, partition)
        return keys

    async def now(self) -> int:
        """The Redis server's clock, epoch milliseconds; see `RedisNodes.now`."""
        with answers(self._nodes):
            return await self._nodes.now()

    async def peek(self, partition: int) -> ShardState | None:
        """The shard as it stands; nothing is written. Raises RefusedError while a rebuild switches the store."""
        keys = self.keys(partition)
        with answers(self._nodes):
            redis = await self._nodes.of(partition)
            switching = await redis.get(keys.switching)
            held = await cast(Any, redis.hgetall(keys.shard))
        if switching is not None:
            raise RefusedError(_SWITCHING)
        if not held:
            return None
        check_bound(held, self._binding)
        return shard_state(held)

    async def take_over(
        self, partition: int, token: str, begin: Mapping[str, int], published: Mark
    ) -> tuple[ShardState, list[bytes]]:
        """See `streams.protocols.Store.take_over`; raises FatalError where the store is bound to another worker."""
        keys = self.keys(partition)
        binding = [part for pair in self._binding for part in pair]
        start = [part for topic in INPUTS for part in (f"offset:{topic}", begin.get(topic, 0))]
        args = [token, published.number, published.reign, self._program_text, self._url]
        args += [len(binding), *binding, len(start), *start]
        with answers(self._nodes):
            shard, outbox = await self._nodes.run(
                self._take_over, partition, [keys.shard, keys.outbox, keys.switching], args
            )
        return shard_state(dict(zip(shard[::2], shard[1::2], strict=True))), outbox

    async def restore(
        self, partition: int, token: str, outbox: Sequence[bytes], published: Mark
    ) -> ShardState:
        """See `streams.protocols.Store.restore`."""
        keys = self.keys(partition)
        with answers(self._nodes):
            shard = await self._nodes.run(
                self._restore,
                partition,
                [keys.shard, keys.outbox],
                [token, published.number, published.reign, *outbox],
            )
        return shard_state(dict(zip(shard[::2], shard[1::2], strict=True)))

    async def load(self, partition: int, customer_ids: Sequence[str], packing: Packing) -> list[Customer]:
        """Decoded customers, in the order asked for; new ones where the store has none."""
        if not customer_ids:
            return []
        keys = self.keys(partition)
        with answers(self._nodes):
            redis = await self._nodes.of(partition)
            held = await cast(Any, redis.mget([keys.state(customer_id) for customer_id in customer_ids]))
            heads = [None if head is None else read_head(head) for head in held]
            paged = [i for i, head in enumerate(heads) if head is not None and head.sealed]
            pages: dict[int, dict[int, bytes]] = {}
            if paged:
                # Head and pages once more, together: a reader beside the worker must not see a torn customer.
                async with redis.pipeline(transaction=True) as pipeline:
                    pipe = cast(Any, pipeline)
                    for i in paged:
                        pipe.get(keys.state(customer_ids[i]))
                        pipe.hgetall(keys.pages(customer_ids[i]))
                    held = await pipe.execute()
                for i, head, found in zip(paged, held[::2], held[1::2], strict=True):
                    heads[i] = None if head is None else read_head(head)
                    pages[i] = {int(number): page for number, page in found.items()}
        customer = packing.customer
        return [
            customer(customer_id, head, pages.get(i, {}))
            for i, (customer_id, head) in enumerate(zip(customer_ids, heads, strict=True))
        ]

    async def commit(self, partition: int, token: str, version: int, commit: Commit) -> None:
        """Write a batch or a sweep whole; see `streams.protocols.Store.commit`."""
        keys = self.keys(partition)
        names = [keys.shard, keys.due, keys.outbox, keys.unmoved]
        topic = commit.topic
        args: list[Any] = [token, version, topic or "", commit.start]
        fields: list[Any] = []
        if topic is not None:
            fields += (f"offset:{topic}", commit.end)
            if commit.newest is not None:
                fields += (f"newest:{topic}", commit.newest)
            if commit.appended is not None:
                fields += (f"appended:{topic}", commit.appended)
        for pair in commit.fields.items():
            fields += pair
        added = [part for pair in commit.added.items() for part in pair]
        replaced = [part for pair in commit.replaced.items() for part in pair]
        for values in (fields, added, commit.outbox, replaced, commit.moved):
            args += (len(values), *values)
        # The shapes of readable hashes: one, or two while customers are moved to another program.
        shapes: dict[tuple[str, ...], int] = {}
        said: list[Any] = []
        content: list[bytes] = []
        for write in commit.customers:
            _say(write, keys, names, said, content, shapes)
        args.append(len(shapes))
        for shape in shapes:
            args += (len(shape), *shape)
        args.append(_array(said))
        args += content
        with answers(self._nodes):
            await self._nodes.run(self._commit, partition, names, args)

    async def trim(
        self, partition: int, token: str, version: int, published: int, outputs: Mapping[str, int]
    ) -> None:
        """Forget outbox entries up to `published`; see `streams.protocols.Store`."""
        keys = self.keys(partition)
        fields = [part for topic, at in outputs.items() for part in (output_field(topic), at)]
        with answers(self._nodes):
            await self._nodes.run(
                self._trim, partition, [keys.shard, keys.outbox], [token, version, published, *fields]
            )

    async def due(self, partition: int, token: str, version: int, until: int, limit: int) -> Due:
        """Who is due strictly before `until` (at most `limit`); see `streams.protocols.Due`."""
        keys = self.keys(partition)
        with answers(self._nodes):
            ids, first, decision = await self._nodes.run(
                self._due, partition, [keys.shard, keys.due], [token, version, until, limit]
            )
        return Due(
            [customer_id.decode() for customer_id in ids],
            None if first is None else int(first),
            (decision or b"").decode(),
        )

    async def unmoved(self, partition: int, token: str, limit: int) -> tuple[list[str], int]:
        """Customers who may still be on the program before (at most `limit`), and `ShardState.moved`."""
        keys = self.keys(partition)
        with answers(self._nodes):
            ids, moved = await self._nodes.run(
                self._unmoved, partition, [keys.shard, keys.unmoved], [token, limit]
            )
        return [customer_id.decode() for customer_id in ids], int(moved)

    async def knows(self, partition: int, customer_id: str) -> bool:
        """Whether anything of this customer was ever counted."""
        with answers(self._nodes):
            redis = await self._nodes.of(partition)
            return bool(await redis.exists(self.keys(partition).state(customer_id)))

    async def owner_url(self, partition: int) -> str:
        """Where the pages of the shard's newest owner are; empty where it did not say."""
        with answers(self._nodes):
            redis = await self._nodes.of(partition)
            url = await cast(Any, redis.hget(self.keys(partition).shard, "url"))
        return (url or b"").decode()

    async def customers(self) -> AsyncIterator[tuple[int, str]]:
        """Every customer of every shard, with its partition, in no order, now and then one twice; for dumps, not for
        the way of an event."""
        async for found in all_customers(self._nodes, self._prefix):
            yield found

    async def close(self) -> None:
        """Close the connections."""
        await self._nodes.aclose()


async def all_customers(nodes: RedisNodes, prefix: str) -> AsyncIterator[tuple[int, str]]:
    """Every customer under a prefix, with its partition; see `RedisStore.customers`. Raises UnavailableError."""
    with answers(nodes):
        async for key in nodes.scan(state_pattern(prefix)):
            yield partition_and_customer(prefix, key)


_array = msgspec.msgpack.Encoder().encode

#: What a commit writes of a customer besides the head; as in commit.lua.
_DUE, _NEVER_DUE, _READABLE, _PAGES = 1, 2, 4, 8


def _say(
    write: CustomerWrite,
    keys: ShardKeys,
    names: list[str],
    said: list[Any],
    content: list[bytes],
    shapes: dict[tuple[str, ...], int],
) -> None:
    """One customer's part of the keys, of the array and of the bytes of commit.lua."""
    customer_id, packed, readable = write.customer_id, write.packed, write.readable
    names.append(keys.state(customer_id))
    content.append(packed.head)
    place = len(said)
    said.append(0)
    what = 0
    if write.due_changed:
        if write.due is None:
            what = _NEVER_DUE
            said.append(customer_id)
        else:
            what = _DUE
            said += (write.due, customer_id)
    if readable is not None:
        what += _READABLE
        names.append(keys.customer(customer_id))
        fields, values = readable
        said.append(shapes.setdefault(fields, len(shapes) + 1))
        said += values
    if packed.written or packed.dropped:
        what += _PAGES
        names.append(keys.pages(customer_id))
        said += (len(packed.written), *packed.written, len(packed.dropped), *packed.dropped)
        content += packed.written.values()
    said[place] = what


#: Why a shard cannot be taken over for now.
_SWITCHING = (
    "a rebuild is switching the store: wait until it is done; where none runs, run `kizuna rebuild` again"
)

#: The field of the shard's hash for each part of a Binding, and what it is called before people.
_BOUND = {
    "cluster": ("bound:cluster", "Kafka cluster"),
    "topics": ("bound:topics", "topic prefix"),
    "group": ("bound:group", "group"),
    "partitions": ("bound:partitions", "number of partitions"),
    "program": ("bound:program", "program"),
    "version": ("bound:version", "program version"),
    "inputs": ("bound:inputs", "input topics"),
}


def binding_fields(binding: Binding) -> list[tuple[str, str]]:
    """The fields of a shard's hash that say what it was built for."""
    return [(field, str(getattr(binding, part))) for part, (field, _) in _BOUND.items()]


def read_binding(held: Mapping[bytes, bytes]) -> Binding:
    """What a shard's hash says it was built for."""
    parts: dict[str, Any] = {
        part: held.get(field.encode(), b"").decode() for part, (field, _) in _BOUND.items()
    }
    return Binding(**parts | {"partitions": int(parts["partitions"])})


def check_bound(held: Mapping[bytes, bytes], binding: Iterable[tuple[str, str]]) -> None:
    """Raises FatalError where a shard's hash was built for anything but `binding`: MovedOnError for the version."""
    wanted = dict(binding)
    for field, here in wanted.items():
        # A store of an earlier build does not hold all of it.
        if field.encode() in held and (found := held[field.encode()].decode()) != here:
            raise bound_elsewhere(field, found, here, wanted["bound:topics"])


def bound_elsewhere(field: str, found: str, here: str, topic_prefix: str = "") -> FatalError:
    """The error of a store that was built for something else."""
    what = dict(_BOUND.values())[field]
    if field == "bound:version":
        return MovedOnError(
            f"the store was built for {what} {found!r}, this worker has {here!r}: start it with the program file "
            "of that version, or move the store with `kizuna program apply`"
        )
    if field == "bound:inputs":
        return topics_remade(topic_prefix, found, here)
    if field == "bound:partitions":
        return FatalError(
            f"the store was built for {what} {found!r}, this worker has {here!r}: make it anew for so many with "
            "`kizuna rebuild`, or use another KIZUNA_REDIS_PREFIX",
            Stop.STORE_BOUND,
        )
    return FatalError(
        f"the store was built for {what} {found!r}, this worker has {here!r}: "
        "use the same, or another KIZUNA_REDIS_PREFIX",
        Stop.STORE_BOUND,
    )


def shard_state(held: Mapping[bytes, bytes]) -> ShardState:
    """A shard's hash, read."""
    state = ShardState()
    for raw, content in held.items():
        field, _, part = raw.decode().partition(":")
        value = content.decode()
        if field in _NUMBERS:
            setattr(state, field, int(value))
        elif field in _BY_TOPIC:
            getattr(state, _BY_TOPIC[field])[part] = int(value)
        elif field == "output":
            state.outputs[part or TIER_CHANGES] = int(value)
        elif field == "held":
            state.held = int(value) if value else None
        elif field == "falls":
            state.falls = falls_of(value)
        elif field == "program":
            if part == "before":
                state.program_before = value
            elif part == "at":
                state.program_at = int(value)
            elif part == "protect":
                state.protect_until = int(value) if value else None
    return state


#: Fields of a shard's hash that are numbers of a ShardState, and those of which there is one by input.
_NUMBERS = frozenset(("version", "reign", "outbox_last", "customers", "generation", "moved", "rebuilt"))
_BY_TOPIC = {"offset": "offsets", "newest": "newest", "appended": "appended"}


def output_field(topic: str) -> str:
    """The field of a shard's hash for `ShardState.outputs`: that of tier-changes is named as before there were more."""
    return "output" if topic == TIER_CHANGES else f"output:{topic}"


def falls_of(text: str) -> dict[int, int]:
    """Falls by minute, from `<minute>=<falls> …`."""
    return {int(minute): int(falls) for minute, _, falls in (part.partition("=") for part in text.split())}


@contextmanager
def answers(nodes: RedisNodes) -> Iterator[None]:
    """Turns Redis's errors into what they mean for a shard. Where Redis could not, the shards are looked for again."""
    try:
        yield
    except (RedisError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_closed(error):
            raise
        meaning = _meaning(error)
        if isinstance(meaning, UnavailableError):
            nodes.look_again()
        raise meaning from error


def _meaning(error: Exception) -> Exception:
    text = str(error)
    if isinstance(error, MovedError):
        return UnavailableError(f"the shard has moved within the Redis Cluster, to {error.host}:{error.port}")
    if isinstance(error, (AskError, TryAgainError)):
        return UnavailableError("the shard is being moved within the Redis Cluster")
    if isinstance(error, ResponseError):
        if text.startswith("SWITCHING"):
            return RefusedError(_SWITCHING)
        if text.startswith("REFUSED "):
            return RefusedError(f"the store refused: {text.removeprefix('REFUSED ')}")
        if text.startswith("BOUND "):
            _, field, found, here = text.split("\x1f", 3)
            return bound_elsewhere(field, found, here)
        if text.startswith("EMPTY "):
            return FatalError(
                f"the store is empty, but its group has published {text.split()[1]} outbox entries: restore the store, "
                "or make it anew from the log with `kizuna rebuild`",
                Stop.STORE_EMPTY,
            )
        return UnavailableError(f"Redis could not: {text}")
    return UnavailableError(f"Redis did not answer: {text}")
