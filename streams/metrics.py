"""Every metric, in one place. No label ever names a customer.

Counters count what is committed: a batch that is refused and read again counts once.
"""

from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client import GCCollector as GarbageCollector

from loyalty.bond import BondChange
from loyalty.views import Change, Decision
from schemas.bond_records import AttributionEvent, AttributionStatus, BondEvent, TriggerEvent, TriggerStatus
from schemas.rejection import Reason
from streams.outbox import Entry
from streams.protocols import INPUTS, Batch
from streams.topics import DEAD_LETTERS

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RECORDS = (0, 1, 10, 50, 100, 500, 1_000, 2_000, 5_000, 10_000)


class Metrics:
    """The worker's metrics in a registry of their own, so that two in one process (tests) do not meet."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GarbageCollector(registry=registry)
        self.events = Counter(
            "kizuna_events",
            "Records read, by input and what became of them: counted, duplicate, dead_letter, rerouted.",
            ["topic", "outcome"],
            registry=registry,
        )
        self.tier_changes = Counter(
            "kizuna_tier_changes",
            "Tier changes decided and to be published, by direction.",
            ["direction"],
            registry=registry,
        )
        self.tier_notices = Counter(
            "kizuna_tier_notices",
            "Records decided that move nobody, by kind: at-risk, retained.",
            ["kind"],
            registry=registry,
        )
        self.bond_records = Counter(
            "kizuna_bond_records",
            "Records decided of bonds, by kind (segment, trigger, attribution) and status.",
            ["kind", "status"],
            registry=registry,
        )
        self.moves = Counter(
            "kizuna_program_moves", "Customers moved to a changed program.", registry=registry
        )
        self.paused = Gauge(
            "kizuna_publishing_paused",
            "1 where too many fell within an hour and publishing waits for `kizuna outbox release` or `drop`.",
            ["partition"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "kizuna_dead_letters",
            "Dead letters, by input and reason.",
            ["topic", "reason"],
            registry=registry,
        )
        self.duplicates = Counter(
            "kizuna_duplicates",
            "Events whose source and event_id had been read before.",
            ["topic"],
            registry=registry,
        )
        self.reroutes = Counter(
            "kizuna_reroutes", "Records sent on to their customer's partition.", ["topic"], registry=registry
        )
        self.batch_records = Histogram(
            "kizuna_batch_records", "Records in a batch.", ["topic"], buckets=_RECORDS, registry=registry
        )
        self.pack_seconds = Histogram(
            "kizuna_pack_seconds", "Packing the customers of one commit.", buckets=_SECONDS, registry=registry
        )
        self.commit_seconds = Histogram(
            "kizuna_commit_seconds",
            "One commit, until Redis has answered.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "kizuna_publish_seconds",
            "One publishing transaction with the trim after it.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.lag_records = Gauge(
            "kizuna_lag_records", "Records not yet committed.", ["topic", "partition"], registry=registry
        )
        self.lag_seconds = Gauge(
            "kizuna_lag_seconds",
            "Age of the last committed record while more are unread; 0 when all is read.",
            ["topic", "partition"],
            registry=registry,
        )
        self.watermark = Gauge(
            "kizuna_watermark_timestamp_seconds",
            "Newest occurred_at that was read, by input.",
            ["topic", "partition"],
            registry=registry,
        )
        self.last_sweep = Gauge(
            "kizuna_last_sweep_timestamp_seconds",
            "When Redis and Kafka last answered a sweep, by Redis' clock; lag, outbox and overdue are as of then.",
            registry=registry,
        )
        self.due_overdue = Gauge(
            "kizuna_due_overdue_seconds",
            "How late the earliest due instant is beyond allowed_lateness, as the last sweep saw it; 0: none is late.",
            ["partition"],
            registry=registry,
        )
        self.outbox_entries = Gauge(
            "kizuna_outbox_entries",
            "Entries committed and not yet published.",
            ["partition"],
            registry=registry,
        )
        self.outbox_age = Gauge(
            "kizuna_outbox_age_seconds",
            "How long the oldest unpublished entry has been here; 0 where there is none.",
            ["partition"],
            registry=registry,
        )
        self.pending = Gauge(
            "kizuna_pending_adoptions",
            "Customers of whom more was published than the store knows: their events are read again.",
            ["partition"],
            registry=registry,
        )
        self.adoptions = Counter(
            "kizuna_adoptions",
            "Tiers and bonds of customers, taken from what was published as the store had lost them.",
            registry=registry,
        )
        self.stopped = Gauge(
            "kizuna_stopped",
            "1 where the worker cannot go on and is about to end, by reason (docs/runbook.md).",
            ["reason"],
            registry=registry,
        )
        self.take_overs = Counter("kizuna_take_overs", "Shards taken over.", registry=registry)
        self.shards_lost = Counter(
            "kizuna_shards_lost",
            "Shards dropped because the store or the log refused or did not answer.",
            ["cause"],
            registry=registry,
        )
        self.shards = Gauge("kizuna_shards", "Shards held by this worker.", registry=registry)
        self.partitions = Gauge(
            "kizuna_partitions",
            "Shards there are: all workers' kizuna_shards together must be as many.",
            registry=registry,
        )
        for topic in INPUTS:
            for outcome in ("counted", "duplicate", "dead_letter", "rerouted"):
                self.events.labels(topic, outcome)
            self.duplicates.labels(topic)
            self.reroutes.labels(topic)
            for reason in Reason:
                self.dead_letters.labels(topic, str(reason))
        for direction in ("upgrade", "downgrade"):
            self.tier_changes.labels(direction)
        for kind in ("at-risk", "retained"):
            self.tier_notices.labels(kind)
        self.bond_records.labels("segment", "changed")
        for kind, statuses in (("trigger", TriggerStatus), ("attribution", AttributionStatus)):
            for status in get_args(statuses):
                self.bond_records.labels(kind, status)
        # From 0 on: where a series begins with its first loss, Prometheus does not see that loss as an increase.
        for cause in ("refused", "unavailable"):
            self.shards_lost.labels(cause)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)

    def batch(self, batch: Batch) -> "BatchCounts":
        """Begin to count a batch; nothing is counted until it is committed."""
        return BatchCounts(self, batch)

    def committed(self, pack_seconds: float, commit_seconds: float) -> None:
        """A commit was answered."""
        self.pack_seconds.observe(pack_seconds)
        self.commit_seconds.observe(commit_seconds)

    def published(self, partition: int, remaining: int, seconds: float) -> None:
        """A part of the outbox was published."""
        self.publish_seconds.observe(seconds)
        self.outbox_entries.labels(partition).set(remaining)

    def overdue(self, partition: int, milliseconds: int) -> None:
        """What the sweep found before it began."""
        self.due_overdue.labels(partition).set(max(0, milliseconds) / 1000)

    def decided(self, decided: Iterable[Decision]) -> None:
        """What is to be published of tiers and bonds."""
        changes: list[Change] = []
        for decision in decided:
            if isinstance(decision, BondChange):
                self.bond_records.labels(*_kind_of(decision.body)).inc()
            else:
                changes.append(decision)
        for (kind, direction), count in Tally((change.kind, change.direction) for change in changes).items():
            if direction is None:
                self.tier_notices.labels(kind).inc(count)
            else:
                self.tier_changes.labels(direction).inc(count)

    def forget(self, partition: int) -> None:
        """A shard that is not here any more must not go on telling its last values."""
        for gauge in (self.due_overdue, self.outbox_entries, self.outbox_age, self.pending, self.paused):
            gauge.remove(partition)
        for gauge in (self.lag_records, self.lag_seconds, self.watermark):
            for topic in INPUTS:
                gauge.remove(topic, partition)


def _kind_of(body: BondEvent) -> tuple[str, str]:
    if isinstance(body, TriggerEvent):
        return "trigger", body.status
    return ("attribution", body.status) if isinstance(body, AttributionEvent) else ("segment", "changed")


class BatchCounts:
    """What became of one batch's records."""

    def __init__(self, metrics: Metrics, batch: Batch) -> None:
        self._metrics = metrics
        self._topic = batch.topic
        self._records = len(batch.records)
        self.duplicates = 0

    def done(self, entries: Sequence[Entry]) -> None:
        """The batch is committed: count it."""
        metrics, topic = self._metrics, self._topic
        reasons = Tally(entry.reason for entry in entries if entry.topic == DEAD_LETTERS)
        for reason, count in reasons.items():
            metrics.dead_letters.labels(topic, str(reason)).inc(count)
        dead = reasons.total()
        rerouted = sum(entry.topic == topic for entry in entries)
        counted = self._records - dead - rerouted - self.duplicates
        for outcome, count in (
            ("counted", counted),
            ("duplicate", self.duplicates),
            ("dead_letter", dead),
            ("rerouted", rerouted),
        ):
            if count:
                metrics.events.labels(topic, outcome).inc(count)
        if self.duplicates:
            metrics.duplicates.labels(topic).inc(self.duplicates)
        if rerouted:
            metrics.reroutes.labels(topic).inc(rerouted)
        metrics.batch_records.labels(topic).observe(self._records)
