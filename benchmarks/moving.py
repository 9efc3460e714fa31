"""One run: a store under a live load is moved to another version of its program, and everything is killed twice."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from rich.console import Console

from benchmarks.live import PROGRAM, LiveLoad, at_random, customer, load, now_ms
from benchmarks.phases import Stretch, part, summary, without
from benchmarks.results import RESULTS, Numbers, check
from benchmarks.stage import Stage
from benchmarks.subscribing import Subscriber, first_read, measured
from benchmarks.worker import BenchmarkError, create_all, live_settings
from cli.local_stack import LocalStack
from schemas.program import load_program
from streams.settings import Settings
from streams.topics import DEFAULT_PARTITIONS

#: What the customers have bought, in turn: one never gets silver, two lose it by the change, one keeps it.
_AMOUNTS = ("10.00", "150.00", "150.00", "250.00")
_BEFORE, _AFTER = "100.00", "200.00"

#: Seconds of live load before anything is measured (the broker compiles its code meanwhile).
_WARM_UP = 30.0

_KIZUNA = Path(sys.executable).with_name("kizuna")


@dataclass(slots=True)
class _Marks:
    """Instants of a run."""

    usual: float = 0.0
    applied: float = 0.0
    ended: float = 0.0
    over: float = 0.0
    gaps: dict[str, Stretch] = field(default_factory=dict)
    #: What happened within each gap: seconds from its start.
    within: dict[str, dict[str, float]] = field(default_factory=dict)


class Moving(Stage):
    """Everything of one run, on a stack that runs."""

    def __init__(
        self,
        stack: LocalStack,
        console: Console,
        customers: int,
        rate: int,
        usual: int,
        move_rate: int,
        kills: int,
    ) -> None:
        self._customers = customers
        self._rate = rate
        self._usual = usual
        self._kills = kills
        self._programs = [_program(stack, name, silver) for name, silver in (("1", _BEFORE), ("2", _AFTER))]
        self._applying: subprocess.Popen[bytes] | None = None
        self._marks = _Marks()
        settings = live_settings(stack, self._programs[0]).but(move_rate=move_rate)
        super().__init__(stack, console, settings, "apply")

    def _pids(self) -> dict[str, int | None]:
        applying = self._applying
        running = applying is not None and applying.poll() is None
        return super()._pids() | {"command": applying.pid if applying is not None and running else None}

    def run(self) -> Numbers:
        """Measure and check. Raises BenchmarkError where nothing could be measured."""
        create_all(self._settings, DEFAULT_PARTITIONS)
        subscriber = Subscriber(self._settings, DEFAULT_PARTITIONS, "member")
        live = LiveLoad(self._settings, DEFAULT_PARTITIONS, self._rate, at_random(range(self._customers)))
        subscriber.start()
        try:
            self._worker.start()
            foreseen = self._fill()
            live.start()
            self._measure(live, subscriber)
            live.end()
            live.check()
            self._wait_read(self._customers + live.count)
            self._wait_for(lambda: len(subscriber.probes) == len(live.probes), "every change is read")
            count = -1
            while count != subscriber.count:
                count = subscriber.count
                time.sleep(1)
            subscriber.end()
            subscriber.check()
            checks = self._checks(live, subscriber, foreseen)
        finally:
            self._end()
        return self._told(live, subscriber, checks)

    def _fill(self) -> dict[tuple[str, str], int]:
        self._say(f"loading {self._customers:,} customers")
        load(
            self._settings,
            DEFAULT_PARTITIONS,
            ((customer(number), _AMOUNTS[number % len(_AMOUNTS)]) for number in range(self._customers)),
            now_ms() - 1_000,
        )
        self._wait_read(self._customers)
        foreseen = self._apply("--dry-run")
        out, _ = foreseen.communicate(timeout=600)
        if foreseen.returncode:
            raise BenchmarkError("the dry run failed")
        return _moves(out)

    def _measure(self, live: LiveLoad, subscriber: Subscriber) -> None:
        marks = self._marks
        self._rest(_WARM_UP)
        self._say(f"usual, {self._usual} s")
        marks.usual = time.monotonic()
        self._rest(self._usual)

        self._say("handover")
        marks.applied = time.monotonic()
        self._applying = self._apply()
        self._wait_for(lambda: not self._worker.running, "the worker of the version before ends")
        gone = time.monotonic()
        self._start_worker(2)
        self._gap("handover", marks.applied, live, subscriber, {"old worker ended": gone - marks.applied})

        for number in range(1, self._kills + 1):
            self._wait_moved(number / (self._kills + 1))
            if self._applying.poll() is not None:
                raise BenchmarkError("the move was quicker than the kills: take more customers")
            self._say(f"kill -9 of the worker and of the command, {self._moved():,} moved")
            killed = time.monotonic()
            self._applying.kill()
            self._worker.kill()
            self._applying.communicate()
            self._applying = self._apply()
            self._start_worker(2 + number)
            self._gap(f"kill {number}", killed, live, subscriber, {})
        last = self._applying
        self._wait_for(lambda: last.poll() is not None, "the command ends", 600)
        marks.ended = time.monotonic()
        self._say(f"moved; usual again, {self._usual} s")
        self._rest(self._usual)
        marks.over = time.monotonic()

    def _gap(
        self, name: str, start: float, live: LiveLoad, subscriber: Subscriber, within: dict[str, float]
    ) -> None:
        """From `start` until the first change of the worker that has just been started is read."""
        since, launched = len(live.probes), time.monotonic()
        self._wait_for(lambda: first_read(live, subscriber, since) is not None, "the new worker publishes")
        first = first_read(live, subscriber, since)
        assert first is not None  # it was waited for
        self._marks.gaps[name] = Stretch(start, first)
        self._marks.within[name] = within | {
            "new worker launched": launched - start,
            "first change": first - start,
        }
        self._say(f"{name}: {first - start:.1f} s")

    def _start_worker(self, number: int) -> None:
        self._worker = self._new_worker(number, self._settings.but(program=str(self._programs[1])))
        self._worker.launch()

    def _command(self, *arguments: str, program: Path) -> "subprocess.Popen[bytes]":
        kept = {name: value for name, value in os.environ.items() if not name.startswith("KIZUNA_")}
        settings = self._settings.but(program=str(program))
        variables = {
            f"KIZUNA_{name.upper()}": str(getattr(settings, name)) for name in Settings.__dataclass_fields__
        }
        with (RESULTS / "apply-command.log").open("ab") as log:
            return subprocess.Popen(
                [_KIZUNA, *arguments],
                env=kept | variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def _apply(self, *more: str) -> "subprocess.Popen[bytes]":
        return self._command(
            "program", "apply", str(self._programs[1]), "--json", *more, program=self._programs[0]
        )

    # -- looking ---------------------------------------------------------------------------------------------------

    def _moved(self) -> int:
        pipe = self._redis.pipeline(transaction=False)
        for keys in self._shards:
            pipe.hgetall(keys.shard)
        found = cast(list[dict[bytes, bytes]], pipe.execute())
        return sum(int(n) for shard in found for name, n in shard.items() if name.startswith(b"moves:"))

    def _wait_moved(self, share: float) -> None:
        self._wait_for(lambda: self._moved() >= share * self._customers, "customers are moved", 600)

    # -- at the end ------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        if self._applying is not None and self._applying.poll() is None:
            self._applying.kill()
            self._applying.communicate()
        super()._end()

    def _checks(
        self, live: LiveLoad, subscriber: Subscriber, foreseen: dict[tuple[str, str], int]
    ) -> list[Numbers]:
        self._say("checking")
        assert self._applying is not None  # it was waited for
        out, _ = self._applying.communicate()
        if self._applying.returncode:
            raise BenchmarkError(f"program apply ended with {self._applying.returncode}")
        falls = {customer(n) for n in range(self._customers) if _AMOUNTS[n % len(_AMOUNTS)] == "150.00"}
        moved = subscriber.told["program_change"]
        wrong = (falls ^ moved.keys()) | {c for c, n in moved.items() if n != 1}
        # Probes that the program before has raised are moved, too; they keep their tier.
        came = subscriber.decided_by[load_program(self._programs[0]).version]
        expected = Counter(foreseen) + Counter({("silver", "silver"): came})
        tally = _moves(out)
        sent = self._customers + live.count
        orders, people = self._orders()
        return [
            check(
                "each customer moved exactly once",
                not wrong,
                f"{len(falls):,} to fall, told of a program change: {len(moved):,}, "
                f"{moved.total():,} times; wrong: {sorted(wrong)[:5] or 'none'}",
            ),
            check(
                "the tally is the dry run's",
                tally == expected,
                f"{_told_moves(tally)}; foreseen {_told_moves(foreseen)}, and {came:,} probes since",
            ),
            check(
                "no event lost or counted twice",
                (orders, people) == (sent, self._customers + len(live.probes)),
                f"{orders:,} lifetime orders of {people:,} customers; sent {sent:,}",
            ),
            check(
                "the chain of every customer is without holes",
                not subscriber.torn,
                f"{subscriber.count:,} changes; torn: {subscriber.torn[:5] or 'none'}",
            ),
        ]

    def _orders(self) -> tuple[int, int]:
        """Lifetime orders and customers, as `kizuna state dump` has them."""
        orders = people = 0
        with self._command("state", "dump", "--json", program=self._programs[1]) as dump:
            for line in dump.stdout or ():
                orders += json.loads(line)["lifetime_orders"]
                people += 1
        if dump.returncode:
            raise BenchmarkError(f"state dump ended with {dump.returncode}")
        return orders, people

    def _told(self, live: LiveLoad, subscriber: Subscriber, checks: list[Numbers]) -> Numbers:
        marks = self._marks
        first = next(iter(marks.gaps.values()))
        phases = {
            "usual": Stretch(marks.usual, marks.applied),
            "moving": Stretch(first.end, marks.ended),
            "after": Stretch(marks.ended, marks.over),
        }
        parted = part(measured(live, subscriber), phases, marks.gaps)
        told: dict[str, Numbers] = {}
        for name, phase in phases.items():
            stretches = without(phase, marks.gaps.values())
            told[name] = summary(parted.phases[name], stretches) | {"cores": self._sampler.cores(stretches)}
        moved = self._customers
        return {
            "customers": self._customers,
            "rate": self._rate,
            "move_rate": self._settings.move_rate,
            "partitions": DEFAULT_PARTITIONS,
            "phases": told,
            "gaps": {
                name: summary(parted.gaps[name], [gap]) | {"within": marks.within[name]}
                for name, gap in marks.gaps.items()
            },
            "ratio_p99": {name: _ratio(told["moving"], told[name]) for name in ("usual", "after")},
            "moved": moved,
            "apply_seconds": marks.ended - marks.applied,
            "moved_per_second": moved / told["moving"]["seconds"],
            "changes": subscriber.count,
            "load_behind_ms": live.behind * 1000,
            "checks": checks,
        }


def _program(stack: LocalStack, name: str, silver: str) -> Path:
    file = stack.data_dir / f"program-{name}.toml"
    file.write_text(PROGRAM.format(silver=silver))
    return file


def _moves(out: bytes) -> dict[tuple[str, str], int]:
    return {(move["from"], move["to"]): move["customers"] for move in json.loads(out)["moves"]}


def _ratio(moving: Numbers, usual: Numbers) -> dict[str, float]:
    """The p99 while customers are moved, whole and by slices, by the usual p99, whole and of its median slice."""
    middle = usual["p99_spread_ms"]["median"]
    return {"whole": moving["p99_ms"] / usual["p99_ms"]} | {
        key: slice_ / middle for key, slice_ in moving["p99_spread_ms"].items()
    }


def _told_moves(moves: dict[tuple[str, str], int]) -> str:
    return ", ".join(f"{before} → {after} {count:,}" for (before, after), count in sorted(moves.items()))
