"""An input is published, and what must come out of it is worked out, in one go."""

import asyncio
import gc
from collections import Counter
from dataclasses import dataclass, field

from kafka.admin import KafkaAdminClient

from benchmarks.peers.inputs import Input
from benchmarks.peers.reference import Reference
from cli.demo.publisher import Publisher
from schemas.program import Program
from streams.placement import home
from streams.protocols import PURCHASES
from streams.settings import Settings
from streams.topics import configs


@dataclass(slots=True)
class Loaded:
    """A topic that holds an input, and its reference."""

    topic: str
    events: int
    reference: Reference
    bytes: int = 0
    #: Where the event of each change stands, by order: its partition, and how many records of that come before it.
    places: dict[str, tuple[int, int]] = field(default_factory=dict)


def load(
    admin: KafkaAdminClient, settings: Settings, program: Program, partitions: int, source: Input, events: int
) -> Loaded:
    """The first `events` of an input, in the purchases topic of these settings, which is made where it is missing."""
    topic = settings.topic(PURCHASES)
    if topic not in admin.list_topics():
        made = {"num_partitions": partitions, "replication_factor": 1, "configs": configs(-1)[PURCHASES]}
        admin.create_topics({topic: made}, wait_for_metadata=True)
    tiers = [(tier.name, tier.min_monetary, tier.min_frequency) for tier in program.tiers]
    loaded = Loaded(topic, events, Reference(program.window, tiers))
    homes: dict[bytes, int] = {}
    held: Counter[int] = Counter()
    gc.disable()  # Millions of small objects that all stay.
    try:
        for part in source.parts(events):
            asyncio.run(Publisher(settings, partitions, part).run())
            for event in part:
                partition = homes.get(event.key)
                if partition is None:
                    partition = homes[event.key] = home(event.key, partitions)
                order = loaded.reference.read(event.value)
                if order is not None:
                    loaded.places[order] = partition, held[partition]
                held[partition] += 1
                loaded.bytes += len(event.value)
    finally:
        gc.enable()
    if sum(held.values()) != events:
        raise ValueError(f"the input {source.name} has {sum(held.values())} records, not {events}")
    return loaded
