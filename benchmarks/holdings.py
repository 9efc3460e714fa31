"""What Redis holds of customers: its own count of memory, and the bytes that were put there."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from redis import Redis

from benchmarks.results import Numbers
from schemas.murmur2 import home
from streams.keys import ShardKeys

#: Customers that are asked about at a time, and of how many Redis is asked how much memory each key takes.
_PART = 1_000
_SAMPLE = 1_000

#: What is kept of a customer, each with the words that are printed.
KINDS = {
    "state": "packed, head with the open page",
    "pages": "packed, sealed pages",
    "customer": "readable hash",
    "due": "due instant",
}


def used(redis: "Redis") -> int:
    """Bytes that Redis says it uses, without buffers of clients and of its log. Fragmentation is no part of it."""
    told: Any = redis.info("memory")
    return int(told["used_memory"]) - int(told["mem_clients_normal"]) - int(told["mem_aof_buffer"])


def forget(redis: Any) -> None:
    """Empty the server before it answers: by itself Valkey frees in the background."""
    redis.execute_command("FLUSHALL", "SYNC")


@dataclass(slots=True)
class Kept:
    """Of one kind, over all customers: keys (for `due`: members), bytes of their names, bytes of what is in them with
    the names of fields, and the memory that they take by MEMORY USAGE, as far as the sample shows."""

    keys: int = 0
    names: int = 0
    content: int = 0
    memory: float = 0.0


@dataclass(frozen=True, slots=True)
class Holdings:
    """Of so many customers: all bytes that Redis uses, and what is kept by kind."""

    customers: int
    used: int
    kept: dict[str, Kept]

    def told(self) -> Numbers:
        """Bytes by customer, and what is used by one byte of three bases: of all that was put there with the names of
        keys and fields; of the packed bytes and all names of keys; of the packed bytes alone."""
        count = self.customers
        packed = self.kept["state"].content + self.kept["pages"].content
        names = sum(kept.names for kept in self.kept.values())
        everything = names + sum(kept.content for kept in self.kept.values())
        memory = sum(kept.memory for kept in self.kept.values())
        return {
            "customers": count,
            "used": self.used / count,
            "content": everything / count,
            "packed": packed / count,
            "names": names / count,
            # The table of all keys, and what the shards hold besides customers.
            "beside_keys": (self.used - memory) / count,
            "ratio_content": self.used / everything,
            "ratio_packed_and_names": self.used / (packed + names),
            "ratio_packed": self.used / packed,
            "kinds": {
                kind: {
                    "keys": kept.keys / count,
                    "names": kept.names / count,
                    "content": kept.content / count,
                    "memory": kept.memory / count,
                }
                for kind, kept in self.kept.items()
            },
        }


def take_holdings(redis: "Redis", prefix: str, partitions: int, customers: Sequence[str]) -> Holdings:
    """What is held of these customers, who are all that the store has; nothing may be at work. Then it is forgotten:
    what is used is what that has given back. (A server that has worked keeps some 700 kB of its own, such as a
    histogram for each command.)"""
    kept = {kind: Kept() for kind in KINDS}
    shards = [ShardKeys(prefix, partition) for partition in range(partitions)]
    placed = [(shards[home(customer.encode(), partitions)], customer) for customer in customers]
    for part in _parts(placed):
        _content(redis, part, kept)
    every = max(1, len(placed) // _SAMPLE)
    _memory(redis, placed[::every], kept)
    # A sorted set is one value: what it takes is its members', less the name.
    kept["due"].memory = float(sum(_usage(redis, [keys.due for keys in shards])))
    full = used(redis)
    forget(redis)
    return Holdings(len(customers), full - used(redis), kept)


def _content(redis: "Redis", part: Sequence[tuple[ShardKeys, str]], kept: dict[str, Kept]) -> None:
    pipe: Any = redis.pipeline(transaction=False)
    for keys, customer in part:
        pipe.strlen(keys.state(customer))
        pipe.hgetall(keys.pages(customer))
        pipe.hgetall(keys.customer(customer))
        pipe.zscore(keys.due, customer)
    found = pipe.execute()
    for number, (keys, customer) in enumerate(part):
        head, pages, readable, due = found[4 * number : 4 * number + 4]
        if not head or not readable:
            raise ValueError(f"the store does not know customer {customer}")
        hashes = {keys.pages(customer): ("pages", pages), keys.customer(customer): ("customer", readable)}
        _add(kept["state"], keys.state(customer), head)
        for name, (kind, fields) in hashes.items():
            if fields:
                _add(kept[kind], name, sum(len(field) + len(value) for field, value in fields.items()))
        if due is not None:
            _add(kept["due"], customer, 8)


def _add(kept: Kept, name: str, content: int) -> None:
    kept.keys += 1
    kept.names += len(name.encode())
    kept.content += content


def _memory(redis: "Redis", sample: Sequence[tuple[ShardKeys, str]], kept: dict[str, Kept]) -> None:
    names = {
        "state": [keys.state(customer) for keys, customer in sample],
        "pages": [keys.pages(customer) for keys, customer in sample],
        "customer": [keys.customer(customer) for keys, customer in sample],
    }
    for kind, keys in names.items():
        found = _usage(redis, keys)
        there = [taken for taken in found if taken]
        if there:
            kept[kind].memory = sum(there) / len(there) * kept[kind].keys


def _usage(redis: "Redis", keys: Sequence[str]) -> list[int]:
    """MEMORY USAGE of each, every field looked at; 0 of those that are not there."""
    pipe: Any = redis.pipeline(transaction=False)
    for key in keys:
        pipe.execute_command("MEMORY", "USAGE", key, "SAMPLES", 0)
    return [int(taken or 0) for taken in pipe.execute()]


def _parts(placed: Iterable[tuple[ShardKeys, str]]) -> Iterator[list[tuple[ShardKeys, str]]]:
    rest = iter(placed)
    while part := list(islice(rest, _PART)):
        yield part
