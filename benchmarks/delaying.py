"""One run: how long a tier change takes at half of the full rate, beside a bare produce and consume, and when idle."""

import gc
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from benchmarks.households import PROGRAM, again, flow_program, households
from benchmarks.live import LiveLoad, now_ms
from benchmarks.load import purchases
from benchmarks.phases import Probe, Stretch, summary
from benchmarks.results import RESULTS, Numbers
from benchmarks.stage import Stage
from benchmarks.subscribing import BareReader, Subscriber, measured
from benchmarks.worker import BenchmarkError, catch_up, live_settings, settings_on
from cli.demo.data import Event
from cli.local_stack import LocalStack
from schemas.program import load_program
from streams.protocols import PURCHASES
from streams.settings import Settings
from streams.topics import DEFAULT_PARTITIONS, administration, configs

#: One event in so many is a probe.
PROBE_EVERY = 50
#: Slices of each kind, in turn; seconds of flow after each turn that belong to neither.
_SLICES = 3
_SETTLE = 3.0
#: Seconds of flow by which a worker is behind that has caught up; by which it may be more so at the end of a slice than
#: at its start; and by which it has fallen behind for good. Seconds it may take to begin, and between two looks at it.
_CAUGHT_UP = 0.1
_MORE = 1.0
_LOST = 10.0
_BEGIN = 90.0
_LOOK = 0.25
#: Share by which the flow may differ from its rate in a slice.
_STEADY = 0.05
#: Seconds from the answer to a single event to the next one, at random.
_PAUSE = (0.3, 1.0)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    `rate`: events a second; None: half of the full rate `of` the demo's year (so many `events`) or of the households of
    the flow. `seconds`: of each kind, in slices, after a `warm_up`; `part`: milliseconds of flow that are sent at once;
    `idle`: seconds of nothing, then `singles` events one at a time. `copies`: of the demo's households.
    """

    of: str
    events: int
    rate: float | None
    seconds: int
    warm_up: int
    idle: int
    singles: int
    copies: int
    part: int


class Delay(Stage):
    """Everything of one run, on a stack that runs."""

    def __init__(self, stack: LocalStack, console: Console, sizes: Sizes) -> None:
        self._program = flow_program(stack.data_dir / "program.toml")
        settings = live_settings(stack, self._program).but(
            topic_prefix="flow.", group="flow", redis_prefix="flow"
        )
        super().__init__(stack, console, settings, "delay")
        self._sizes = sizes
        self._rate = sizes.rate or 0.0
        self._purchases, self._bare = settings.topic(PURCHASES), "bare.purchases"
        # Purchases that were there before the flow, of households; seconds of flow by which the worker was behind at
        # most in each slice, and since the last slice began; the flow's own slips, likewise.
        self._base = 0
        self._behind: list[float] = []
        self._most = 0.0
        self._slips: dict[str, float] = {}
        # Changes of before the flow.
        self._before = 0

    def run(self) -> Numbers:
        """Raises BenchmarkError where nothing was measured: the worker, or the flow, does not keep up."""
        full = {"year": self._year()} if self._sizes.of == "year" and not self._rate else {}
        full["households"], buyers = self._fill()
        self._rate = self._rate or full[self._sizes.of] / 2
        self._create_bare()
        self._worker.start()
        subscriber = Subscriber(self._settings, DEFAULT_PARTITIONS, "member")
        bare = BareReader(self._settings, self._bare, DEFAULT_PARTITIONS, "bare")
        live = LiveLoad(
            self._settings, DEFAULT_PARTITIONS, self._rate, buyers, PROBE_EVERY, self._sizes.part / 1000
        )
        # What was made so far stays: to look through it again and again would hold up the flow.
        gc.collect()
        gc.freeze()
        subscriber.start()
        bare.start()
        try:
            # It has the changes of those who were there to read first.
            self._wait_for(lambda: subscriber.count >= self._changes(), "the subscriber has caught up")
            self._before = subscriber.count
            live.start()
            flowing, still = self._flow(live)
            self._wait_for(
                lambda: len(subscriber.probes) + len(bare.probes) == len(live.probes), "every probe is read"
            )
            singles = self._one_by_one(live, subscriber)
        finally:
            for thread in (live, subscriber, bare):
                thread.end()
            self._end()
        for reader in (subscriber, bare):
            reader.check()
            if reader.torn:
                raise BenchmarkError(f"what was read is not right: {reader.torn[:5]}")
        return self._told(full, live, subscriber, bare, {"worker": flowing, "bare": still}, singles)

    def _year(self) -> float:
        """Events a second that a worker does of the demo's year."""
        self._say(f"the full rate, by {self._sizes.events:,} purchases of the demo's year")
        settings = settings_on(self._stack, str(PROGRAM))
        settings = settings.but(topic_prefix="full.", group="full", redis_prefix="full")
        return self._catch_up(settings, purchases(self._sizes.events), "delay-full.log")

    def _catch_up(self, settings: Settings, load: list[Event], log: str) -> float:
        rate: float = catch_up(self._stack, settings, load, RESULTS / log)["whole_per_second"]
        self._say(f"{rate:,.0f} events/s")
        return rate

    def _create_bare(self) -> None:
        made = {
            "num_partitions": DEFAULT_PARTITIONS,
            "replication_factor": 1,
            "configs": configs(-1)[PURCHASES],
        }
        with administration(self._settings) as admin:
            admin.create_topics({self._bare: made}, wait_for_metadata=True)

    def _fill(self) -> tuple[float, Iterator[tuple[str, str]]]:
        """The households of the flow as the worker knows them when it begins; how many events a second it did."""
        load = households(self._sizes.copies, load_program(self._program).window, now_ms())
        self._say(f"{len({event.key for event in load}):,} households with {len(load):,} purchases")
        self._base = len(load)
        return self._catch_up(self._settings, load, "delay-households.log"), again(load)

    def _changes(self) -> int:
        """How many records all outboxes have had so far."""
        pipe = self._redis.pipeline(transaction=False)
        for keys in self._shards:
            pipe.hget(keys.shard, "outbox_last")
        return sum(int(last or 0) for last in pipe.execute())

    # -- the flow --------------------------------------------------------------------------------------------------

    def _flow(self, live: LiveLoad) -> tuple[list[Stretch], list[Stretch]]:
        """Slices in which it goes to the worker, and to nobody but the bare reader, in turn."""
        self._say(f"a flow of {self._rate:,.0f} events/s")
        self._wait_for(lambda: self._lag(live) < _MORE, "the worker has begun with the flow", _BEGIN)
        self._flow_for(live, self._sizes.warm_up)
        flowing: list[Stretch] = []
        still: list[Stretch] = []
        for number in range(1, _SLICES + 1):
            live.turn_to(self._bare)
            self._flow_for(live, _SETTLE)
            self._wait_for(lambda: self._lag(live) < _CAUGHT_UP, "the worker has done what is left")
            still.append(self._slice(live, f"bare {number}"))
            live.turn_to(self._purchases)
            self._flow_for(live, _SETTLE)
            self._most = 0.0
            before = self._lag(live)
            flowing.append(self._slice(live, f"worker {number}"))
            self._behind.append(self._most)
            if self._lag(live) > before + _MORE:
                self._fell_behind(live)
        live.end()
        live.check()
        return flowing, still

    def _slice(self, live: LiveLoad, name: str) -> Stretch:
        seconds = self._sizes.seconds / _SLICES
        self._say(f"{name}: {seconds:.0f} s")
        live.behind = 0.0
        start, sent = time.monotonic(), live.count
        self._flow_for(live, seconds)
        end, sent = time.monotonic(), live.count - sent
        self._slips[name] = live.behind
        reached = sent / (end - start)
        if abs(reached / self._rate - 1) > _STEADY:
            raise BenchmarkError(
                f"{name}: the flow was {reached:,.0f} events/s, not {self._rate:,.0f}: the machine is too busy"
            )
        return Stretch(start, end)

    def _flow_for(self, live: LiveLoad, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            self._check()
            self._worker.check()
            live.check()
            if self._lag(live) > _LOST:
                self._fell_behind(live)
            time.sleep(min(_LOOK, max(0.0, until - now)))

    def _lag(self, live: LiveLoad) -> float:
        """Seconds of flow by which the worker is behind it."""
        committed, _ = self._look()
        lag = max(0.0, (self._base + live.sent[self._purchases] - committed) / self._rate)
        self._most = max(self._most, lag)
        return lag

    def _fell_behind(self, live: LiveLoad) -> None:
        now = time.monotonic()
        cores = self._sampler.cores([Stretch(now - _LOST, now)])
        raise BenchmarkError(
            f"the worker falls behind a flow of {self._rate:,.0f} events/s: by {self._lag(live):.1f} s of it after "
            f"{live.count:,} events; cores busy meanwhile: {cores}"
        )

    # -- when idle -------------------------------------------------------------------------------------------------

    def _one_by_one(self, live: LiveLoad, subscriber: Subscriber) -> list[int]:
        """The numbers of probes that were sent one at a time after an idle while."""
        self._wait_read(self._base + live.sent[self._purchases])
        live.turn_to(self._purchases)
        self._say(f"idle for {self._sizes.idle} s")
        self._rest(self._sizes.idle)
        self._say(f"{self._sizes.singles} events, one at a time")
        pause, numbers = random.Random(1), []
        for _ in range(self._sizes.singles):
            number = live.single()
            numbers.append(number)
            self._wait_for(partial(_has, subscriber, number), "the change of a single event is read")
            self._rest(pause.uniform(*_PAUSE))
        return numbers

    # -- at the end ------------------------------------------------------------------------------------------------

    def _told(
        self,
        full: dict[str, float],
        live: LiveLoad,
        subscriber: Subscriber,
        bare: BareReader,
        slices: dict[str, list[Stretch]],
        singles: list[int],
    ) -> Numbers:
        told: dict[str, Numbers] = {}
        for name, reader in (("bare", bare), ("worker", subscriber)):
            probes = measured(live, reader)
            stretches = slices[name]
            told[name] = summary(within(probes, stretches), stretches) | {
                "p99_of_each_ms": [summary(within(probes, [one]), [one])["p99_ms"] for one in stretches],
                "cores": self._sampler.cores(stretches),
            }
        alone = [Probe(live.probes[number].at, subscriber.probes[number]) for number in singles]
        took = Stretch(alone[0].sent, alone[-1].read)
        pairs = zip(told["worker"]["p99_of_each_ms"], told["bare"]["p99_of_each_ms"], strict=True)
        flow = live.sent[self._purchases]
        return {
            "full_per_second": full,
            "flow_per_second": self._rate,
            "partitions": DEFAULT_PARTITIONS,
            "probe_every": PROBE_EVERY,
            "part_ms": self._sizes.part,
            "delays": told,
            "ratio_p99": told["worker"]["p99_ms"] / told["bare"]["p99_ms"],
            "ratio_p99_by_pair": [worker / nothing for worker, nothing in pairs],
            "behind_seconds": max(self._behind),
            "slips_ms": {name: slip * 1000 for name, slip in self._slips.items()},
            "events": flow,
            "changes": subscriber.count - self._before,
            "idle_seconds": self._sizes.idle,
            "singles": summary(alone, [took]) | {"cores": self._sampler.cores([took])},
        }


def _has(subscriber: Subscriber, number: int) -> bool:
    return number in subscriber.probes


def within(probes: Iterable[Probe], stretches: Sequence[Stretch]) -> list[Probe]:
    """Those that were sent in one of these stretches."""
    return [probe for probe in probes if any(s.start <= probe.sent < s.end for s in stretches)]
