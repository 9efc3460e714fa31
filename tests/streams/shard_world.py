"""Shards with stand-ins for Redis and Kafka, and batches for them."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from loyalty import Customer, Packing
from schemas.murmur2 import home
from schemas.program import Program, parse_program
from schemas.times import format_ms
from streams.intake import Intake
from streams.metrics import Metrics
from streams.outbox import Outbox, decode
from streams.protocols import (
    COMMANDS,
    INPUTS,
    PURCHASES,
    TOUCHPOINTS,
    Batch,
    Commit,
    Due,
    Mark,
    OutRecord,
    RefusedError,
    ShardLostError,
    ShardState,
    Store,
)
from streams.redis_store import shard_state
from streams.settings import Settings
from streams.shard import Domain, Shard
from streams.topics import BOND_TOPICS, TIER_CHANGES
from tests.loyalty.worlds import DAY
from tests.streams.conftest import HandMadeRecord

PARTITIONS = 12
PARTITION = home(b"900", PARTITIONS)
#: 2017-01-01T12:00:00Z
NOON = 1_483_272_000_000
WINDOW = 182 * DAY


def program(*replacements: tuple[str, str]) -> Program:
    """The grocery's program with one purchase of 100 for silver and of 500 for gold, and with some of its file's
    text replaced."""
    text = (Path(__file__).resolve().parents[2] / "examples" / "grocery.toml").read_text()
    for old, new in (
        ('min_monetary = "200.00"\nmin_frequency = 5', 'min_monetary = "100.00"'),
        ('min_monetary = "800.00"\nmin_frequency = 15\nmax_recency = "60d"', 'min_monetary = "500.00"'),
        *replacements,
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return parse_program(text)


def here(count: int, partition: int = PARTITION) -> list[str]:
    """So many customers of one partition."""
    found = (c for c in map(str, range(100_000)) if home(c.encode(), PARTITIONS) == partition)
    return [customer for customer, _ in zip(found, range(count), strict=False)]


class MemoryStore:
    """A store in memory that can refuse its next commits."""

    def __init__(self) -> None:
        self.heads: dict[str, bytes] = {}
        self.readable: dict[str, Mapping[str, str]] = {}
        self.commits: list[Commit] = []
        self.asked: list[list[str]] = []
        self.refusals: list[ShardLostError] = []
        self.hash: dict[str, str] = {"version": "0", "outbox_last": "0"}
        self.hash |= {f"offset:{topic}": "0" for topic in INPUTS}
        self.outbox: dict[int, bytes] = {}
        self.dues: dict[str, int] = {}
        self.left: set[str] = set()
        self.trimmed: list[tuple[int, Mapping[str, int]]] = []

    @property
    def version(self) -> int:
        return int(self.hash["version"])

    @property
    def state(self) -> ShardState:
        """What is stored, read anew."""
        return shard_state({field.encode(): value.encode() for field, value in self.hash.items()})

    async def peek(self, partition: int) -> ShardState | None:
        return None

    async def take_over(
        self, partition: int, token: str, begin: Mapping[str, int], published: Mark
    ) -> tuple[ShardState, list[bytes]]:
        raise NotImplementedError

    async def restore(
        self, partition: int, token: str, outbox: Sequence[bytes], published: Mark
    ) -> ShardState:
        raise NotImplementedError

    async def load(self, partition: int, customer_ids: Sequence[str], packing: Packing) -> list[Customer]:
        self.asked.append(list(customer_ids))
        await asyncio.sleep(0)
        return [packing.unpack(c, self.heads.get(c), {}) for c in customer_ids]

    async def commit(self, partition: int, token: str, version: int, commit: Commit) -> None:
        await asyncio.sleep(0)
        if self.refusals:
            raise self.refusals.pop(0)
        if version != self.version:
            raise RefusedError("version")
        self.commits.append(commit)
        added = {"version": 1, "outbox_last": len(commit.outbox)} | commit.added
        fields: dict[str, str | int | None] = dict(commit.fields)
        if commit.topic is not None:
            fields[f"offset:{commit.topic}"] = commit.end
            fields[f"newest:{commit.topic}"] = commit.newest
            fields[f"appended:{commit.topic}"] = commit.appended
        last = int(self.hash["outbox_last"])
        self.hash |= {field: str(value) for field, value in fields.items() if value is not None}
        self.hash |= {field: str(int(self.hash.get(field, 0)) + more) for field, more in added.items()}
        self.outbox |= dict(enumerate(commit.outbox, last + 1))
        assert self.outbox.keys() >= commit.replaced.keys()
        self.outbox |= commit.replaced
        self.left.difference_update(commit.moved)
        for write in commit.customers:
            self.heads[write.customer_id] = write.packed.head
            if write.readable is not None:
                self.readable[write.customer_id] = dict(zip(*write.readable, strict=True))
            if write.due_changed:
                self.dues.pop(write.customer_id, None)
                if write.due is not None:
                    self.dues[write.customer_id] = write.due

    async def trim(
        self, partition: int, token: str, version: int, published: int, outputs: Mapping[str, int]
    ) -> None:
        if version > self.version:
            raise RefusedError("version")
        self.trimmed.append((published, dict(outputs)))
        self.outbox = {number: raw for number, raw in self.outbox.items() if number > published}

    async def due(self, partition: int, token: str, version: int, until: int, limit: int) -> Due:
        found = sorted((at, c) for c, at in self.dues.items() if at < until)
        first = min(self.dues.values(), default=None)
        return Due([c for _, c in found[:limit]], first, self.hash.get("decision", ""))

    async def unmoved(self, partition: int, token: str, limit: int) -> tuple[list[str], int]:
        return sorted(self.left)[:limit], int(self.hash.get("moved", 0))


class MemoryWriter:
    """A writer that remembers."""

    def __init__(self) -> None:
        self.records: list[OutRecord] = []
        self.upto = Mark()
        self.closed = False

    async def published(self) -> Mark:
        return self.upto

    async def publish(self, records: Iterable[OutRecord], upto: Mark) -> dict[str, int]:
        part = list(records)
        self.records += part
        self.upto = upto
        outputs = (TIER_CHANGES, *BOND_TOPICS)
        return {
            topic: sum(record.topic == topic for record in self.records)
            for topic in outputs
            if any(record.topic == topic for record in part)
        }

    async def close(self) -> None:
        self.closed = True

    def told(self, customer: str | None = None) -> list[dict[str, Any]]:
        """The bodies in tier-changes, of one customer or of all."""
        bodies = [json.loads(r.value or b"") for r in self.records if r.topic == "tier-changes"]
        return [body for body in bodies if customer in (None, body["customer_id"])]

    def brief(self, customer: str) -> list[tuple[int, str, str, str]]:
        """Of a customer's records: number, tier before, tier, reason."""
        return [(t["tier_seq"], t["previous_tier"], t["tier"], t["reason"]) for t in self.told(customer)]


def make_shard(
    program: Program,
    store: Store,
    writer: MemoryWriter,
    *,
    state: ShardState | None = None,
    pending: Iterable[bytes] = (),
    falls_limit: float = 0.0,
    bound: int = 100,
    cache: int = 100,
    metrics: Metrics | None = None,
    partition: int = PARTITION,
    token: str = "one",
) -> Shard:
    """A shard that nobody has read anything of, or one of this state."""
    domain = Domain(program, Intake(Settings(), program, PARTITIONS), falls_limit)
    state = state or ShardState(offsets=dict.fromkeys(INPUTS, 0))
    outbox = Outbox(state.outbox_last, map(decode, pending), bound, state.held)
    metrics = metrics or Metrics()
    return Shard(partition, token, state, outbox, writer, store, domain, metrics, cache)


async def publish(shard: Shard) -> None:
    """Publish what the shard publishes without anything more."""
    publishing = asyncio.ensure_future(shard.publish())
    for _ in range(50):
        await asyncio.sleep(0)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)


def paused(metrics: Metrics, partition: int = PARTITION) -> float | None:
    return metrics.registry.get_sample_value("kizuna_publishing_paused", {"partition": str(partition)})


def changes(memory: MemoryStore) -> list[dict[str, Any]]:
    return [json.loads(decode(raw).value or b"") for commit in memory.commits for raw in commit.outbox]


# -- batches -------------------------------------------------------------------------------------------------------


def _batch(topic: str, start: int, partition: int, bodies: Sequence[tuple[int, dict[str, Any]]]) -> Batch:
    records = [
        HandMadeRecord(
            start + n,
            body["customer_id"].encode(),
            json.dumps({**body, "occurred_at": format_ms(at)}).encode(),
            timestamp=at + 1_000,
        )
        for n, (at, body) in enumerate(bodies)
    ]
    return Batch(topic, partition, start, start + len(records), records)


def bought(
    start: int, *lines: tuple[str, int, str], partition: int = PARTITION, now: int | None = None
) -> Batch:
    """Purchases: customer, epoch milliseconds, amount."""
    batch = _batch(
        PURCHASES,
        start,
        partition,
        [
            (
                at,
                {
                    "event_id": f"{customer}/{at}/{amount}",
                    "type": "purchase",
                    "customer_id": customer,
                    "order_id": f"o{at}/{amount}",
                    "amount": amount,
                    "currency": "USD",
                },
            )
            for customer, at, amount in lines
        ],
    )
    if now is not None:
        batch.records = [record._replace(timestamp=now) for record in batch.records]  # type: ignore[attr-defined]
    return batch


def commanded(start: int, *lines: tuple[str, int, str, int]) -> Batch:
    """Pins: customer, epoch milliseconds, tier, until."""
    return _batch(
        COMMANDS,
        start,
        PARTITION,
        [
            (
                at,
                {
                    "event_id": f"{customer}/{at}/{tier}",
                    "type": "override",
                    "customer_id": customer,
                    "mode": "pin",
                    "tier": tier,
                    "until": format_ms(until),
                    "actor": "somebody",
                    "reason": "asked for it",
                },
            )
            for customer, at, tier, until in lines
        ],
    )


def purchases(start: int, *days: int, customer: str = "900", amount: str = "60.00") -> Batch:
    """One purchase of one customer on each of these days."""
    bodies = [
        (
            NOON + day * DAY,
            {
                "event_id": f"{customer}/{day}",
                "type": "purchase",
                "customer_id": customer,
                "order_id": f"o{day}",
                "amount": amount,
                "currency": "USD",
            },
        )
        for day in days
    ]
    batch = _batch(PURCHASES, start, PARTITION, bodies)
    batch.records = [
        record._replace(timestamp=1_600_000_000_000 + record.offset)  # type: ignore[attr-defined]
        for record in batch.records
    ]
    return batch


def contacts(start: int, customer: str = "900") -> Batch:
    body = {
        "event_id": f"t{start}",
        "type": "touchpoint",
        "customer_id": customer,
        "channel": "email",
        "direction": "outbound",
    }
    return _batch(TOUCHPOINTS, start, PARTITION, [(NOON + 4 * DAY, body)])
