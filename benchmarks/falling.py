"""One run: what very many customers cost who do nothing, and how soon it is told when many of them fall at once."""

import gc
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from benchmarks.live import PROGRAM, LiveLoad, at_random, customer, load, now_ms
from benchmarks.phases import Stretch, part, summary
from benchmarks.results import Numbers, check
from benchmarks.stage import Stage
from benchmarks.subscribing import Subscriber, measured
from benchmarks.worker import BenchmarkError, create_all, live_settings
from cli.local_stack import LocalStack
from schemas.program import load_program
from schemas.times import format_ms
from streams.topics import DEFAULT_PARTITIONS

#: What everybody bought: enough for silver, until it leaves the window.
_AMOUNT = "250.00"
_FALL = "window_expiry"

#: Seconds: until the worker has come to rest, of flow before its usual delay is measured, of usual flow before and
#: after, and what loading those who fall may take longer than twice what was loaded before lets expect.
_REST = 5.0
_WARM_UP = 10.0
_USUAL = 20.0
_SPARE = 20.0
#: Seconds within which all falls must be there, else it is an error.
_GIVE_UP = 600.0


class Falling(Stage):
    """Everything of one run, on a stack that runs."""

    def __init__(
        self, stack: LocalStack, console: Console, customers: int, falling: int, rate: int, idle: int
    ) -> None:
        program = stack.data_dir / "program.toml"
        program.write_text(PROGRAM.format(silver="200.00"))
        super().__init__(stack, console, live_settings(stack, program), "due")
        self._window = load_program(program).window
        self._customers, self._falling = customers, falling
        self._rate, self._idle = rate, idle

    def run(self) -> Numbers:
        """Raises BenchmarkError where nothing could be measured."""
        create_all(self._settings, DEFAULT_PARTITIONS)
        subscriber = Subscriber(self._settings, DEFAULT_PARTITIONS, "member")
        # Those who fall come first by number; everybody else may buy.
        others = range(self._falling, self._customers)
        live = LiveLoad(self._settings, DEFAULT_PARTITIONS, self._rate, at_random(others))
        subscriber.start()
        try:
            self._worker.start()
            took = self._load(others, now_ms() - 1_000)
            ahead = _SPARE + 2 * took * self._falling / len(others) + _REST + self._idle + _WARM_UP + _USUAL
            instant = now_ms() + int(1000 * ahead)
            self._load(range(self._falling), instant - self._window)
            self._wait_for(lambda: subscriber.count == self._customers, "every rise is read")
            # What was made so far stays: to look through it again and again would hold up the flow.
            gc.collect()
            gc.freeze()
            idle = self._be_idle(instant)
            phases = self._fall(live, subscriber, instant)
            self._wait_read(self._customers + live.count)
            self._wait_for(lambda: len(subscriber.probes) == len(live.probes), "every probe is read")
            self._until_quiet(subscriber)
        finally:
            live.end()
            subscriber.end()
            self._end()
        subscriber.check()
        return {"loaded_per_second": len(others) / took, "idle": idle} | self._told(
            live, subscriber, instant, phases
        )

    def _load(self, numbers: Sequence[int], at: int) -> float:
        """One purchase of each of these customers, made at this instant (epoch ms): seconds until all is published that
        came of them."""
        self._say(f"loading {len(numbers):,} customers")
        before, _ = self._look()
        began = time.monotonic()
        load(self._settings, DEFAULT_PARTITIONS, ((customer(number), _AMOUNT) for number in numbers), at)
        self._wait_read(before + len(numbers))
        return time.monotonic() - began

    def _be_idle(self, instant: int) -> Numbers:
        """What everything costs while nothing happens."""
        self._wait_for(self._is_written, "Redis has written its file anew", 600)
        self._rest(_REST)
        left = (instant - now_ms()) / 1000 - self._idle - _WARM_UP - _USUAL
        if left < 0:
            raise BenchmarkError(f"loading those who fall took {-left:.0f} s longer than was reckoned with")
        self._say(f"idle for {self._idle} s")
        began = time.monotonic()
        self._rest(self._idle)
        whole = Stretch(began, time.monotonic())
        told: Any = self._redis.info("memory")
        due = sum(int(self._redis.zcard(keys.due)) for keys in self._shards)
        if due != self._customers:
            raise BenchmarkError(f"{due:,} customers have a due time, not {self._customers:,}")
        cores = self._sampler.cores([whole])
        return {
            "seconds": self._idle,
            "cores": cores,
            "worker_and_redis": round(cores["worker"] + cores["redis"], 3),
            "redis_bytes": int(told["used_memory"]),
        }

    def _is_written(self) -> bool:
        told: Any = self._redis.info("persistence")
        return not told["aof_rewrite_in_progress"] and not told["rdb_bgsave_in_progress"]

    def _fall(self, live: LiveLoad, subscriber: Subscriber, instant: int) -> dict[str, Stretch]:
        """The flow before, while and after all of them fall."""
        self._say(f"{self._rate:,} events/s; everybody falls at {format_ms(instant)}")
        live.start()
        began = time.monotonic() + _WARM_UP
        at = time.monotonic() + (instant - now_ms()) / 1000
        self._rest(at - time.monotonic())
        read_at = subscriber.told_at[_FALL]
        if read_at and read_at[0] < at:
            raise BenchmarkError("a fall was read before its instant")
        self._wait_for(lambda: len(read_at) >= self._falling, "every fall is read", _GIVE_UP)
        last = read_at[self._falling - 1]
        self._say(f"all fallen after {last - at:.1f} s; usual again, {_USUAL:.0f} s")
        self._rest(_USUAL)
        over = time.monotonic()
        live.end()
        live.check()
        return {"before": Stretch(began, at), "falling": Stretch(at, last), "after": Stretch(last, over)}

    def _until_quiet(self, subscriber: Subscriber) -> None:
        """Until nothing more is read: what came twice would come now."""
        count = -1
        while count != subscriber.count:
            count = subscriber.count
            self._rest(1)

    def _told(
        self, live: LiveLoad, subscriber: Subscriber, instant: int, phases: dict[str, Stretch]
    ) -> Numbers:
        parted = part(measured(live, subscriber), phases, {})
        start, read_at = phases["falling"].start, subscriber.told_at[_FALL]
        return {
            "customers": self._customers,
            "falling": self._falling,
            "rate": self._rate,
            "partitions": DEFAULT_PARTITIONS,
            "phases": {
                name: summary(parted.phases[name], [phase]) | {"cores": self._sampler.cores([phase])}
                for name, phase in phases.items()
            },
            "fallen_after_seconds": {
                "first": read_at[0] - start,
                "half": read_at[self._falling // 2] - start,
                "all": phases["falling"].end - start,
            },
            "load_behind_ms": live.behind * 1000,
            "checks": self._checks(subscriber, instant),
        }

    def _checks(self, subscriber: Subscriber, instant: int) -> list[Numbers]:
        fallen, at = subscriber.told[_FALL], subscriber.effective[_FALL]
        expected = {customer(number) for number in range(self._falling)}
        wrong = (expected ^ fallen.keys()) | {who for who, times in fallen.items() if times != 1}
        others = sorted(subscriber.told.keys() - {_FALL})
        return [
            check(
                "each of those who fall fell exactly once, and nobody else",
                not wrong and not others,
                f"{len(expected):,} to fall, told of it: {len(fallen):,}, {fallen.total():,} times; wrong: "
                f"{sorted(wrong)[:5] or 'none'}; changes for other reasons: {others or 'none'}",
            ),
            check(
                "all at the instant at which their purchases left the window",
                at.keys() == {format_ms(instant)},
                f"{format_ms(instant)}; told: {', '.join(sorted(at)[:5])}",
            ),
            check(
                "the chain of every customer is without holes",
                not subscriber.torn,
                f"{subscriber.count:,} changes; torn: {subscriber.torn[:5] or 'none'}",
            ),
        ]
