"""A twin of `streams.redis_store` in memory, which can lose its last writes.

It answers as the scripts in `streams/lua` do; `test_store_twin.py` holds it to them. Every method of the protocol is
plain and synchronous here, under one name: how long it takes, and what goes wrong on the way, is the worker's link.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from loyalty.customer import Customer
from loyalty.packing import Packing
from loyalty.saving import CustomerWrite
from streams.protocols import (
    INPUTS,
    Binding,
    Commit,
    Due,
    FatalError,
    Mark,
    RefusedError,
    ShardState,
    Stop,
)
from streams.redis_store import binding_fields, bound_elsewhere, check_bound, output_field, shard_state

_GONE = object()


class Write(NamedTuple):
    """What one write did: (container, key, value before) for each thing that it changed."""

    what: str
    partition: int
    begins: bool
    undo: list[tuple[dict[Any, Any], Any, Any]]


class Journal:
    """Every write, oldest first, so that the last ones can be taken back."""

    def __init__(self) -> None:
        self.writes: list[Write] = []

    def begin(self, what: str, partition: int, *, begins: bool = False) -> None:
        self.writes.append(Write(what, partition, begins, []))

    def set(self, container: dict[Any, Any], key: Any, value: Any) -> None:
        self.writes[-1].undo.append((container, key, container.get(key, _GONE)))
        container[key] = value

    def drop(self, container: dict[Any, Any], key: Any) -> None:
        if key in container:
            self.writes[-1].undo.append((container, key, container.pop(key)))

    def lose(self, count: int, partition: int | None = None) -> list[Write]:
        """Take the last writes back, of one partition or of all; which they were, newest first.

        The write that began a shard stays: without it the worker rightly stops.
        """
        lost: list[Write] = []
        at = len(self.writes)
        while at and len(lost) < count:
            at -= 1
            write = self.writes[at]
            if write.begins or partition not in (None, write.partition):
                continue
            del self.writes[at]
            for container, key, value in reversed(write.undo):
                if value is _GONE:
                    del container[key]
                else:
                    container[key] = value
            lost.append(write)
        return lost


class Partition:
    """One shard's keys. Values are never changed in place, so that an undo is an assignment."""

    def __init__(self) -> None:
        self.hash: dict[str, str] = {}
        self.due: dict[str, int] = {}
        self.lists: dict[str, tuple[bytes, ...]] = {}
        self.unmoved: dict[str, None] = {}
        self.heads: dict[str, bytes] = {}
        self.pages: dict[str, dict[int, bytes]] = {}
        self.readable: dict[str, dict[str, str]] = {}

    @property
    def outbox(self) -> tuple[bytes, ...]:
        return self.lists.get("outbox", ())


class Server:
    """What stands in the one Redis that all workers use."""

    def __init__(self) -> None:
        self.partitions: dict[tuple[str, int], Partition] = {}
        self.journal = Journal()

    def partition(self, prefix: str, partition: int) -> Partition:
        return self.partitions.setdefault((prefix, partition), Partition())


class MemoryStore:
    """`streams.protocols.Store` without its awaits."""

    def __init__(self, server: Server, prefix: str, binding: Binding, program_text: str = "") -> None:
        self.server = server
        self._prefix = prefix
        self._binding = binding_fields(binding)
        self._program_text = program_text

    def shard(self, partition: int) -> Partition:
        return self.server.partition(self._prefix, partition)

    def peek(self, partition: int) -> ShardState | None:
        held = self.shard(partition).hash
        if not held:
            return None
        check_bound(_encoded(held), self._binding)
        return shard_state(_encoded(held))

    def take_over(
        self, partition: int, token: str, begin: Mapping[str, int], published: Mark
    ) -> tuple[ShardState, list[bytes]]:
        shard, journal = self.shard(partition), self.server.journal
        held = shard.hash
        if "version" in held:
            for field, here in self._binding:
                if held.get(field, here) != here:
                    raise bound_elsewhere(field, held[field], here)
        elif published.number > 0:
            raise FatalError(
                f"the store is empty, but its group has published {published.number} outbox entries: restore it",
                Stop.STORE_EMPTY,
            )
        journal.begin("take_over", partition, begins="version" not in held)
        for field, here in self._binding:
            if field not in held:  # a new shard, or one of an earlier build
                journal.set(held, field, here)
        if "version" not in held:
            fields = {"version": "0", "outbox_last": "0"}
            fields |= {f"offset:{topic}": str(begin.get(topic, 0)) for topic in INPUTS}
            for field, value in fields.items():
                journal.set(held, field, value)
        journal.set(held, "owner", token)
        journal.set(held, "program:text", self._program_text)
        reign = int(held.get("reign", 0))
        if published.reign <= reign:
            journal.set(held, "reign", str(reign + 1))
            if published.number > int(held["outbox_last"]):
                journal.set(held, "outbox_last", str(published.number))
                journal.drop(shard.lists, "outbox")
            else:
                self._drop_published(shard, published.number)
        return shard_state(_encoded(held)), list(shard.outbox)

    def restore(self, partition: int, token: str, outbox: Sequence[bytes], published: Mark) -> ShardState:
        shard, journal = self.shard(partition), self.server.journal
        held = shard.hash
        self._check(shard, token)
        newest = max(int(held["outbox_last"]), published.number)
        journal.begin("restore", partition)
        journal.set(held, "version", str(int(held["version"]) + 1))
        self._set_outbox(shard, tuple(outbox))
        journal.set(held, "outbox_last", str(newest + len(outbox)))
        journal.set(held, "reign", str(max(int(held.get("reign", 0)), published.reign) + 1))
        if held.get("held"):
            journal.set(held, "held", str(newest))
        return shard_state(_encoded(held))

    def _set_outbox(self, shard: Partition, entries: tuple[bytes, ...]) -> None:
        if entries:
            self.server.journal.set(shard.lists, "outbox", entries)
        else:
            self.server.journal.drop(shard.lists, "outbox")

    def load(self, partition: int, customer_ids: Sequence[str], packing: Packing) -> list[Customer]:
        shard = self.shard(partition)
        return [
            packing.unpack(customer_id, shard.heads.get(customer_id), shard.pages.get(customer_id, {}))
            for customer_id in customer_ids
        ]

    def commit(self, partition: int, token: str, version: int, commit: Commit) -> None:
        shard, journal = self.shard(partition), self.server.journal
        held = shard.hash
        self._check(shard, token, version)
        if commit.topic is not None:
            watermark = held.get(f"offset:{commit.topic}")
            if watermark != str(commit.start):
                raise _refused(f"watermark {watermark}, batch starts at {commit.start}")
        gone = int(held["outbox_last"]) - len(shard.outbox)
        for number in commit.replaced:
            if number <= gone:
                raise _refused(f"outbox entry {number}, published up to {gone}")
        journal.begin("commit", partition)
        self._set_fields(held, version, commit)
        if commit.outbox or commit.replaced:
            entries = [*shard.outbox, *commit.outbox]
            for number, entry in commit.replaced.items():
                entries[number - gone - 1] = entry
            journal.set(shard.lists, "outbox", tuple(entries))
            journal.set(held, "outbox_last", str(int(held["outbox_last"]) + len(commit.outbox)))
        for customer_id in commit.moved:
            journal.drop(shard.unmoved, customer_id)
        for write in commit.customers:
            self._write(shard, write)

    def _set_fields(self, held: dict[str, str], version: int, commit: Commit) -> None:
        journal = self.server.journal
        journal.set(held, "version", str(version + 1))
        if commit.topic is not None:
            fields = {"offset": commit.end, "newest": commit.newest, "appended": commit.appended}
            for field, value in fields.items():
                if value is not None:
                    journal.set(held, f"{field}:{commit.topic}", str(value))
        for name, value in commit.fields.items():
            journal.set(held, name, str(value))
        for name, more in commit.added.items():
            journal.set(held, name, str(int(held.get(name, 0)) + more))

    def _write(self, shard: Partition, write: CustomerWrite) -> None:
        journal, customer_id, packed = self.server.journal, write.customer_id, write.packed
        journal.set(shard.heads, customer_id, packed.head)
        if write.due_changed:
            if write.due is None:
                journal.drop(shard.due, customer_id)
            else:
                journal.set(shard.due, customer_id, write.due)
        if write.readable is not None:
            journal.set(
                shard.readable,
                customer_id,
                shard.readable.get(customer_id, {}) | dict(zip(*write.readable, strict=True)),
            )
        if packed.written or packed.dropped:
            pages = {
                number: page
                for number, page in (shard.pages.get(customer_id, {}) | packed.written).items()
                if number not in packed.dropped
            }
            if pages:
                journal.set(shard.pages, customer_id, pages)
            else:
                journal.drop(shard.pages, customer_id)

    def trim(
        self, partition: int, token: str, version: int, published: int, outputs: Mapping[str, int]
    ) -> None:
        shard = self.shard(partition)
        self._check(shard, token)
        if int(shard.hash["version"]) < version:
            raise _refused(f"version {shard.hash['version']}, expected {version}")
        self.server.journal.begin("trim", partition)
        self._drop_published(shard, published)
        for topic, at in outputs.items():
            self.server.journal.set(shard.hash, output_field(topic), str(at))

    def due(self, partition: int, token: str, version: int, until: int, limit: int) -> Due:
        shard = self.shard(partition)
        self._check(shard, token, version)
        # Equal scores stand in the order of their members' bytes.
        standing = sorted((at, customer_id.encode()) for customer_id, at in shard.due.items())
        found = [customer_id.decode() for at, customer_id in standing if at < until]
        return Due(found[:limit], standing[0][0] if standing else None, shard.hash.get("decision", ""))

    def unmoved(self, partition: int, token: str, limit: int) -> tuple[list[str], int]:
        shard = self.shard(partition)
        self._check(shard, token)
        return list(shard.unmoved)[:limit], int(shard.hash.get("moved", 0))

    def knows(self, partition: int, customer_id: str) -> bool:
        return customer_id in self.shard(partition).heads

    def _check(self, shard: Partition, token: str, version: int | None = None) -> None:
        held = shard.hash
        if held.get("owner") != token:
            raise _refused("owner")
        if version is not None and held["version"] != str(version):
            raise _refused(f"version {held['version']}, expected {version}")

    def _drop_published(self, shard: Partition, published: int) -> None:
        gone = published - (int(shard.hash["outbox_last"]) - len(shard.outbox))
        if gone > 0:
            self._set_outbox(shard, shard.outbox[gone:])


class AwaitedStore:
    """The same as the protocol has it, for the suite that also runs on the real server."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def awaited(*args: Any, **given: Any) -> Any:
            return method(*args, **given)

        return awaited

    async def customers(self) -> AsyncIterator[tuple[int, str]]:
        """As `RedisStore.customers`."""
        for (prefix, partition), shard in self._store.server.partitions.items():
            if prefix == self._store._prefix:
                for customer_id in shard.heads:
                    yield partition, customer_id


def _encoded(held: Mapping[str, str]) -> dict[bytes, bytes]:
    return {field.encode(): value.encode() for field, value in held.items()}


def _refused(what: str) -> RefusedError:
    return RefusedError(f"the store refused: {what}")
