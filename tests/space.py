"""A test's own corner of the stack: topics, keys, group, program file, real worker processes, plain clients."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import confluent_kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from cli.local_server import free_port
from cli.local_stack import LocalStack
from schemas.murmur2 import home
from schemas.program import Program, load_program
from streams.protocols import INPUTS
from streams.settings import Settings
from streams.topics import administration, create
from tests.redis_client import redis_client
from tests.worker_process import KIZUNA, Worker, wait_until

DAY = 86_400_000

PROGRAM = """
[program]
id = "shop"
currency = "USD"
window = "{window}"
ledger = "{ledger}"

[[tiers]]
name = "member"
[[tiers]]
name = "silver"
min_monetary = "{silver}"
[[tiers]]
name = "gold"
min_monetary = "300.00"
min_frequency = 3

[scores]
recency_days = [7, 30, 90, 180]
frequency = [2, 5, 10, 20]
monetary = ["50", "200", "500", "1500"]
"""

#: The topic of every type of event; other types are purchases or refunds.
TOPICS = {"touchpoint": "touchpoints", "override": "customer-commands"}

_numbers = itertools.count(1)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def text_of(ms: int) -> str:
    """Epoch milliseconds as the contract writes them; independent of the product's own."""
    at = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def purchase(customer: str, number: object, amount: Any, at: int | str, **other: Any) -> dict[str, Any]:
    """A purchase, its order named after its event unless told."""
    return {
        "event_id": f"e{number}",
        "type": "purchase",
        "customer_id": customer,
        "occurred_at": at if isinstance(at, str) else text_of(at),
        "order_id": f"o{number}",
        "amount": amount,
        "currency": "USD",
    } | other


def refund(
    customer: str, number: object, order: str, amount: str, at: int | str, **other: Any
) -> dict[str, Any]:
    return purchase(customer, number, amount, at, type="refund", order_id=order, **other)


def touchpoint(customer: str, number: object, channel: str, direction: str, at: int | str) -> dict[str, Any]:
    return {
        "event_id": f"t{number}",
        "type": "touchpoint",
        "customer_id": customer,
        "occurred_at": at if isinstance(at, str) else text_of(at),
        "channel": channel,
        "direction": direction,
    }


def override(
    customer: str, number: object, mode: str, tier: str, at: int, until: int, **other: Any
) -> dict[str, Any]:
    """A command by hand; `clear` takes no tier and no end, and ignores them."""
    return {
        "event_id": f"c{number}",
        "type": "override",
        "customer_id": customer,
        "occurred_at": text_of(at),
        "mode": mode,
        "tier": tier,
        "until": text_of(until),
        "actor": "anna",
        "reason": "complaint 4711",
    } | other


class Read(NamedTuple):
    """A record, whichever client read it."""

    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.value or b"")

    @property
    def header(self) -> dict[str, bytes | None]:
        return dict(self.headers)


class Servers(NamedTuple):
    """A Kafka and a Redis of a test's own, or what stands before them."""

    brokers: str
    redis_url: str


class Space:
    """A namespace on the shared stack; a context manager that leaves no process behind."""

    def __init__(
        self,
        stack: LocalStack | Servers,
        directory: Path,
        *,
        partitions: int = 3,
        clock: str = "wall",
        window: str = "365d",
        ledger: str = "2000d",
        silver: str = "100.00",
        topics: bool = True,
        program: str | None = None,
    ) -> None:
        self.name = f"e2e{next(_numbers)}"
        self.directory = directory / self.name
        self.directory.mkdir()
        self.stack = stack
        self.partitions = partitions
        self.program_file = self.directory / "program.toml"
        self.program_file.write_text(program or PROGRAM.format(window=window, ledger=ledger, silver=silver))
        self.settings = Settings(
            brokers=stack.brokers,
            redis_url=stack.redis_url,
            redis_prefix=self.name,
            program=str(self.program_file),
            topic_prefix=f"{self.name}.",
            clock=Settings.read({"KIZUNA_CLOCK": clock}).clock,
            group=self.name,
        )
        self.workers: list[Worker] = []
        self.redis: Any = redis_client(stack.redis_url)
        self._probe: KafkaConsumer | None = None
        self._producer: KafkaProducer | None = None
        if topics:
            self.create_topics()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        for worker in self.workers:
            try:
                worker.process.wait(10)
            except subprocess.TimeoutExpired:
                worker.kill()
            # Shown by pytest beside a failure.
            print(f"--- {worker.log}\n{worker.log.read_text(errors='replace')[-6000:]}", file=sys.stderr)
        self.leave_kafka()
        self.redis.close()

    @property
    def program(self) -> Program:
        return load_program(self.program_file)

    def topic(self, name: str) -> str:
        return self.settings.topic(name)

    def create_topics(self, retention_ms: int = -1) -> None:
        with administration(self.settings) as admin:
            create(admin, self.settings, self.partitions, 1, retention_ms)

    def env(self, **other: Any) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KIZUNA_")}
        settings = {
            f"KIZUNA_{name.upper()}": str(getattr(self.settings, name))
            for name in Settings.__dataclass_fields__
        }
        return kept | settings | {"TMPDIR": str(self.directory)} | {k: str(v) for k, v in other.items()}

    def write_program(self, text: str, name: str = "next.toml") -> Path:
        """Another program file; commands and workers take it by KIZUNA_PROGRAM."""
        file = self.directory / name
        file.write_text(text)
        return file

    def launch(self, *, command: Sequence[str | Path] = (KIZUNA, "worker"), **env: Any) -> Worker:
        """A worker that may not be ready yet. `command`: what runs it, if not `kizuna worker`."""
        port = free_port()
        log = self.directory / f"worker{len(self.workers)}.log"
        worker = Worker(self.env(KIZUNA_WEB_PORT=port, **env), port, log, command)
        self.workers.append(worker)
        return worker

    def worker(self, **env: Any) -> Worker:
        """A worker that holds shards."""
        return self.launch(**env).wait_ready()

    def kizuna(self, *arguments: str, **env: Any) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        return subprocess.run(
            [KIZUNA, *arguments], env=self.env(**env), capture_output=True, timeout=60, check=False
        )

    def refusal(self, **env: Any) -> str:
        """The one line with which a worker refuses to run."""
        done = self.kizuna("worker", **{"KIZUNA_WEB_PORT": free_port()} | env)
        said = done.stderr.decode()
        assert done.returncode > 0, said
        assert "Traceback" not in said, said
        return said.strip().splitlines()[-1]

    def leave_kafka(self) -> None:
        """Close this space's own clients of Kafka; they are made anew when next needed. While a broker is away,
        kafka-python leaks a socket with every try to reach it."""
        for client in (self._probe, self._producer):
            if client is not None:
                client.close()
        self._probe = self._producer = None

    # -- clients ---------------------------------------------------------------------------------------------

    def home(self, customer: str) -> int:
        return home(customer.encode(), self.partitions)

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Any:
        """By kafka-python; a future."""
        if self._producer is None:
            self._producer = KafkaProducer(bootstrap_servers=self.stack.brokers, acks="all", linger_ms=5)
        return self._producer.send(
            self.topic(topic), value=value, key=key, partition=partition, headers=list(headers)
        )

    def grown(self, partitions: int) -> None:
        """The topics have more partitions now: clients that are there would learn of them within minutes."""
        self.partitions = partitions
        if self._probe is not None:
            self._probe.close()
            self._probe = None
        if self._producer is not None:
            self._producer.close()
            self._producer = None

    def flush(self) -> None:
        if self._producer is not None:
            self._producer.flush()

    def publish(self, events: Iterable[dict[str, Any]]) -> None:
        """Each to its topic, keyed, in the order given; returns when all are acknowledged."""
        futures = [
            self.send(
                TOPICS.get(event["type"], "purchases"),
                json.dumps(event).encode(),
                event["customer_id"].encode(),
            )
            for event in events
        ]
        self.flush()
        for future in futures:
            future.get(30)

    def confluent(self, **config: Any) -> confluent_kafka.Producer:
        return confluent_kafka.Producer({"bootstrap.servers": self.stack.brokers} | config)

    def read(self, name: str, isolation: str = "read_committed") -> list[Read]:
        """All of a topic, by kafka-python."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.stack.brokers,
            isolation_level=isolation,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        found = []
        try:
            topic = self.topic(name)
            partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic)]
            consumer.assign(partitions)
            ends = consumer.end_offsets(partitions)
            give_up_at = time.monotonic() + 30
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                assert time.monotonic() < give_up_at
                for records in consumer.poll(timeout_ms=200).values():
                    found += [
                        Read(r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers))
                        for r in records
                    ]
        finally:
            consumer.close()
        return sorted(found, key=lambda r: (r.partition, r.offset))

    def read_with_confluent(self, name: str) -> list[Read]:
        """All of a topic, by confluent-kafka, which reads committed records only unless told."""
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self.stack.brokers,
                "group.id": f"{self.name}-reader",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        found, open_ = [], set(range(self.partitions))
        try:
            consumer.assign(
                [
                    confluent_kafka.TopicPartition(self.topic(name), p, confluent_kafka.OFFSET_BEGINNING)
                    for p in open_
                ]
            )
            give_up_at = time.monotonic() + 30
            while open_:
                assert time.monotonic() < give_up_at
                message = consumer.poll(0.2)
                if message is None:
                    continue
                if message.error():
                    assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, (
                        message.error()
                    )
                    open_.discard(message.partition())
                    continue
                found.append(
                    Read(
                        message.partition(),
                        message.offset(),
                        message.timestamp()[1],
                        message.key(),
                        message.value(),
                        list(message.headers() or []),
                    )
                )
        finally:
            consumer.close()
        return sorted(found, key=lambda r: (r.partition, r.offset))

    def changes(self, customer: str | None = None) -> list[dict[str, Any]]:
        """The bodies of the tier changes."""
        bodies = [record.json for record in self.read("tier-changes")]
        return [body for body in bodies if customer in (None, body["customer_id"])]

    # -- the store -------------------------------------------------------------------------------------------

    def readable(self, customer: str) -> dict[str, str]:
        """The hash of the contract's section 7."""
        return self.redis.hgetall(f"{self.name}:{{{self.home(customer)}}}:customer:{customer}")

    def empty(self) -> None:
        """As FLUSHALL would do, to this space's keys alone: others share the server."""
        while keys := list(self.redis.scan_iter(match=f"{self.name}:*", count=10_000)):
            self.redis.unlink(*keys)

    def committed(self) -> int:
        """How many positions of the inputs are committed, over all shards."""
        return sum(sum(offsets) for offsets, _ in map(self._shard, range(self.partitions)))

    def _shard(self, p: int) -> tuple[list[int], int]:
        with self.redis.pipeline(transaction=True) as pipe:
            pipe.hmget(f"{self.name}:{{{p}}}:shard", [f"offset:{topic}" for topic in INPUTS])
            pipe.llen(f"{self.name}:{{{p}}}:outbox")
            offsets, waiting = pipe.execute()
        return [int(o or 0) for o in offsets], waiting

    def all_is_read(self) -> bool:
        """Whether all input is committed and all output published."""
        # The ends after the outboxes: what was sent on is in a log by then.
        shards = list(map(self._shard, range(self.partitions)))
        if self._probe is None:
            self._probe = KafkaConsumer(bootstrap_servers=self.stack.brokers, enable_auto_commit=False)
        ends = self._probe.end_offsets(
            [TopicPartition(self.topic(topic), p) for topic in INPUTS for p in range(self.partitions)]
        )
        return all(
            not waiting
            and all(o >= ends[TopicPartition(self.topic(t), p)] for t, o in zip(INPUTS, offsets, strict=True))
            for p, (offsets, waiting) in enumerate(shards)
        )

    def wait_read(self) -> None:
        def check() -> bool:
            assert any(worker.process.poll() is None for worker in self.workers), "no worker runs"
            return self.all_is_read()

        wait_until(check, 60, "all read and published")

    def why(self, customer: str, **env: Any) -> dict[str, Any]:
        """`kizuna customer ID why --json`."""
        done = self.kizuna("customer", customer, "why", "--json", **env)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def dump(self, as_of: int | str) -> list[bytes]:
        """The lines of `kizuna state dump`."""
        done = self.kizuna(
            "state", "dump", "--json", "--as-of", as_of if isinstance(as_of, str) else text_of(as_of)
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.splitlines()
