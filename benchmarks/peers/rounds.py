"""One peer, or Kizuna's worker, once through an input: measured from outside, and checked."""

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
from kafka.admin import KafkaAdminClient
from redis import Redis

from benchmarks.peers.catalogue import Peer
from benchmarks.peers.loading import Loaded
from benchmarks.peers.peer_process import PeerProcess
from benchmarks.peers.reference import Told, WrongError, cents, epoch_ms, told_by_peer
from benchmarks.peers.watching import Look, Record, Watch, peak_memory
from benchmarks.results import RESULTS, Numbers
from benchmarks.worker import BenchmarkError, forget_outputs, measure
from cli.demo.replay import WorkerProcess
from cli.local_stack import LocalStack
from schemas.program import Program
from schemas.tier_change import decode
from streams.settings import Settings
from streams.topics import TIER_CHANGES

#: Seconds between two looks, of stillness before outputs are counted, without a new output until something is wrong,
#: and within which a peer must end.
_LOOK = 0.1
_STILL = 0.3
_STALLED = 120.0
_STOP = 20.0

_numbers = count()


@dataclass(slots=True)
class Bench:
    """What all rounds of a run share."""

    stack: LocalStack
    admin: KafkaAdminClient
    settings: Settings
    program: Program
    partitions: int

    def fresh(self, name: str, number: int) -> str:
        """Forget what a round before left in Redis; a name for the topics and the group of the next one."""
        with Redis.from_url(self.settings.redis_url) as redis:
            # By itself Valkey frees in the background, beside what is measured next.
            redis.execute_command("FLUSHALL", "SYNC")
        return f"bench-{name}-{number}-{next(_numbers)}"

    def redis_bytes(self) -> int:
        """What Redis holds in memory now, without what is there of itself, buffers of clients and of its log."""
        with Redis.from_url(self.settings.redis_url) as redis:
            told: Any = redis.info("memory")
            besides = ("used_memory_startup", "mem_clients_normal", "mem_aof_buffer")
            return int(told["used_memory"]) - sum(int(told[name]) for name in besides)

    def forget(self, mark: str) -> None:
        """Delete the topics of a round."""
        own = [topic for topic in self.admin.list_topics() if mark in topic]
        if own:
            self.admin.delete_topics(own)


def run_peer(bench: Bench, peer: Peer, loaded: Loaded, number: int) -> Numbers:
    """One round of a peer. Raises BenchmarkError, or WrongError where its outputs are not right."""
    command = peer.command()
    mark = bench.fresh(peer.name, number)
    output = f"{mark}.changes"
    bench.admin.create_topics(
        {
            output: {
                "num_partitions": bench.partitions,
                "replication_factor": 1,
                "configs": {"retention.ms": "-1"},
            }
        },
        wait_for_metadata=True,
    )
    place = bench.stack.data_dir / mark
    place.mkdir()
    variables = {
        "BROKERS": bench.stack.brokers,
        "INPUT": loaded.topic,
        "OUTPUT": output,
        "PARTITIONS": str(bench.partitions),
        "GROUP": mark,
        "EVENTS": str(loaded.events),
        "STATE": str(_made(place / "state")),
        "REDIS_URL": bench.settings.redis_url,
        "PROGRAM": str(_program(bench.program, place / "program.json")),
    }
    log = RESULTS / "logs" / f"{peer.name}-{number}.log"
    process = PeerProcess(peer.name, _made(place / "run"), command, variables, log)
    watch = Watch(bench.stack, output, bench.partitions)
    load = os.getloadavg()[0]
    try:
        process.launch()
        numbers = _watched(watch, process, loaded) if peer.publishes else _told(watch, process, loaded)
        numbers |= {"redis_bytes": bench.redis_bytes(), "load_before": load}
    finally:
        process.stop(_STOP)
        bench.forget(mark)
        shutil.rmtree(place, ignore_errors=True)
    return numbers


def _watched(watch: Watch, process: PeerProcess, loaded: Loaded) -> Numbers:
    began = process.wait_for_start()
    looks = [watch.look(process.pid)]
    looks[0] = looks[0]._replace(at=began)
    records: list[Record] = []
    must = loaded.reference.changed
    read = (0,) * len(looks[0].stable)
    moved = began
    while len(records) < must:
        time.sleep(_LOOK)
        process.check()
        look = watch.look(process.pid)
        if look.stable != looks[-1].stable:
            moved = look.at
        looks.append(look)
        if look.stable != read and look.at - moved > _STILL:
            records += watch.records(read, look.stable)
            read = look.stable
        if look.at - moved > _STALLED:
            raise BenchmarkError(
                f"{process.name} has published {len(records)} changes of {must}, and none for {_STALLED:g} s"
                f"{process.last_words()}"
            )
    memory = peak_memory(process.pid)
    published: dict[str, list[Told]] = {}
    for customer, told in told_by_peer(record.value for record in records):
        published.setdefault(customer, []).append(told)
    loaded.reference.check(published)
    return numbers_of(looks, records, loaded) | {"changes": len(records), "memory_bytes": memory}


def numbers_of(looks: Sequence[Look], records: Sequence[Record], loaded: Loaded) -> Numbers:
    """The whole and the steady rate, by what was visible at which look."""
    behind: list[list[tuple[int, str]]] = [[] for _ in looks[0].stable]
    for record, (_, told) in zip(records, told_by_peer(record.value for record in records), strict=True):
        behind[record.partition].append((record.offset, told.order_id))
    nexts = [0] * len(behind)
    done = [0] * len(behind)
    fifth: tuple[float, int] | None = None
    for look in looks:
        for partition, stable in enumerate(look.stable):
            while (
                nexts[partition] < len(behind[partition]) and behind[partition][nexts[partition]][0] < stable
            ):
                home, place = loaded.places[behind[partition][nexts[partition]][1]]
                done[home] = max(done[home], place + 1)
                nexts[partition] += 1
        processed = sum(done)
        if fifth is None and processed >= loaded.events / 5:
            fifth = look.at, processed
        if processed == loaded.events:
            return _rates(looks[0], look, loaded.events, fifth)
    raise BenchmarkError(f"the outputs show {sum(done)} events of {loaded.events} processed")


def _told(watch: Watch, process: PeerProcess, loaded: Loaded) -> Numbers:
    """The bare reader, which publishes nothing: by what it says itself."""
    began = process.wait_for_start()
    first = watch.look(process.pid)._replace(at=began)
    give_up = began + _STALLED
    while not (done := [line for line in process.told() if line["event"] == "done"]):
        process.check()
        if time.monotonic() > give_up:
            raise BenchmarkError(f"{process.name} has not done after {_STALLED:g} s{process.last_words()}")
        time.sleep(0.002)
    ended = time.monotonic()
    last = watch.look(process.pid)._replace(at=ended)
    if (done[0]["events"], done[0]["amount"]) != (loaded.events, loaded.reference.amount):
        raise WrongError(f"{process.name} has read {done[0]}, not {loaded.events}, {loaded.reference.amount}")
    return _rates(first, last, loaded.events, None) | {"changes": 0, "memory_bytes": peak_memory(process.pid)}


def _rates(first: Look, last: Look, events: int, fifth: tuple[float, int] | None) -> Numbers:
    seconds = last.at - first.at
    spent = {name: last.cpu[name] - first.cpu[name] for name in last.cpu}
    others = spent.pop("machine") - sum(spent.values())
    whole = events / seconds
    return {
        "seconds": seconds,
        "events": events,
        "whole_per_second": whole,
        # Where all came at once there is no slope.
        "steady_per_second": (events - fifth[1]) / (last.at - fifth[0])
        if fifth and last.at > fifth[0]
        else whole,
        "cpu_us_per_event": {name: value / events * 1e6 for name, value in spent.items()},
        "other_cores": max(0.0, others / seconds),
    }


class _Worker(WorkerProcess):
    """One that tells at its end how much memory it has taken."""

    memory = 0

    def stop(self, timeout: float = _STOP) -> None:
        if self.running:
            self.memory = peak_memory(self.pid)
        super().stop(timeout)


def run_kizuna(bench: Bench, loaded: Loaded, number: int) -> Numbers:
    """One round of Kizuna's worker. Raises as `run_peer`."""
    mark = bench.fresh("kizuna", number)
    forget_outputs(bench.settings, bench.partitions)
    fresh = bench.settings.but(group=mark, redis_prefix=mark)
    process = _Worker(bench.stack.data_dir / "worker", fresh, RESULTS / "logs" / f"kizuna-{number}.log")
    load = os.getloadavg()[0]
    told = asyncio.run(
        measure(
            bench.stack,
            fresh,
            bench.program,
            bench.partitions,
            loaded.events,
            process,
            settle=True,
            pause=_LOOK,
        )
    )
    held = bench.redis_bytes()
    watch = Watch(bench.stack, fresh.topic(TIER_CHANGES), bench.partitions)
    stable = watch.look(os.getpid()).stable
    published: dict[str, list[Told]] = {}
    for record in watch.records((0,) * bench.partitions, stable):
        change = decode(record.value)
        rfm = change.rfm
        # Event and order have one id in both inputs.
        told_so = Told(
            change.cause_event_id or "",
            change.previous_tier,
            change.tier,
            epoch_ms(change.effective_at),
            rfm.recency_seconds,
            rfm.frequency,
            cents(rfm.monetary),
        )
        published.setdefault(change.customer_id, []).append(told_so)
    loaded.reference.check_in_force(published)
    cpu = told["cpu_us_per_event"]
    return {
        "seconds": told["seconds"],
        "events": loaded.events,
        "whole_per_second": told["whole_per_second"],
        "steady_per_second": told["steady_per_second"],
        "cpu_us_per_event": {"peer": cpu["worker"], "broker": cpu["broker"], "redis": cpu["redis"]},
        "other_cores": told["other_cores"],
        "changes": sum(map(len, published.values())),
        "memory_bytes": process.memory,
        "redis_bytes": held,
        "load_before": load,
    }


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _program(program: Program, path: Path) -> Path:
    """What a peer is to know of the program."""
    tiers = [
        {"name": tier.name, "min_monetary": tier.min_monetary, "min_frequency": tier.min_frequency}
        for tier in program.tiers
    ]
    told = {"window_ms": program.window, "currency": program.currency, "tiers": tiers}
    path.write_bytes(msgspec.json.encode(told))
    return path
