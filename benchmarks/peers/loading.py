"""An input is published, and what must come out of it is worked out, in one go."""

import asyncio
import gc
import hashlib
import pickle
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kafka.admin import KafkaAdminClient

from benchmarks import load as load_of_years
from benchmarks.peers import inputs, reference
from benchmarks.peers.inputs import Input
from benchmarks.peers.reference import Reference
from benchmarks.results import RESULTS
from cli.demo import data
from cli.demo.publisher import Publisher
from schemas.murmur2 import home
from schemas.program import Program
from streams.protocols import PURCHASES
from streams.settings import Settings
from streams.topics import configs


@dataclass(slots=True)
class Loaded:
    """A topic that holds an input, and its reference."""

    topic: str
    events: int
    reference: Reference = field(default_factory=lambda: Reference(0, []))
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
    kept = (
        RESULTS
        / "inputs"
        / f"reference-{source.name}-{source.events}-{events}-{_fingerprint(program)}.pickle"
    )
    loaded = Loaded(topic, events)
    found = _found(kept)
    if found is not None:
        loaded.reference, loaded.places = found
    else:
        tiers = [(tier.name, tier.min_monetary, tier.min_frequency) for tier in program.tiers]
        loaded.reference = Reference(program.window, tiers)
    homes: dict[bytes, int] = {}
    held: Counter[int] = Counter()
    sent = 0
    gc.disable()  # Millions of small objects that all stay.
    try:
        for part in source.parts(events):
            asyncio.run(Publisher(settings, partitions, part).run())
            loaded.bytes += sum(len(event.value) for event in part)
            sent += len(part)
            for event in part if found is None else ():
                partition = homes.get(event.key)
                if partition is None:
                    partition = homes[event.key] = home(event.key, partitions)
                order = loaded.reference.read(event.value)
                if order is not None:
                    loaded.places[order] = partition, held[partition]
                held[partition] += 1
        if not sent == loaded.reference.events == events:
            raise ValueError(f"the input {source.name} has {sent} records, not {events}")
        if found is None:
            _keep(kept, loaded)
    finally:
        gc.freeze()
        gc.enable()
    return loaded


def _found(kept: Path) -> tuple[Reference, dict[str, tuple[int, int]]] | None:
    """What an earlier run has worked out of the same input."""
    if not kept.exists():
        return None
    gc.disable()
    try:
        with kept.open("rb") as file:
            found: tuple[Reference, dict[str, tuple[int, int]]] = pickle.load(file)
    finally:
        gc.enable()
    return found


def _keep(kept: Path, loaded: Loaded) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial")
    with partial.open("wb") as file:
        pickle.dump((loaded.reference, loaded.places), file, protocol=pickle.HIGHEST_PROTOCOL)
    partial.rename(kept)


def _fingerprint(program: Program) -> str:
    """Changes with the program, and with everything that the events and their reference are made by."""
    digest = hashlib.sha256(f"{program.version} {sys.version}".encode())
    for module in (inputs, load_of_years, data, reference):
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()[:16]
