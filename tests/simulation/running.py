"""`python -m tests.simulation`: many schedules, on all cores, with a verdict. See docs/simulation.md."""

import argparse
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from tests.simulation.schedule import Result, run

#: Seeds that one process takes at a time.
_PART = 20
#: From so many schedules on each kind of fault must have hit something: one that hits nothing proves nothing.
ENOUGH = 1000
#: What shows that a kind of fault was one.
BITES = (
    "kills that hit",
    "stops that hit",
    "zombies refused",
    "fenced",
    "generation refused",
    "shards moved",
    "redis answer lost",
    "redis effect late",
    "kafka answer lost",
    "kafka effect late",
    "losses of commits",
    "losses of what was published",
    "adoptions",
    "faults while something was pending",
    "pauses",
    "customers held exactly",
    "bonds judged",
    "attributions judged",
    "goals judged",
    "caps that were full",
    "triggers sent",
    "triggers held_out",
    "triggers suppressed",
    "triggers that came back",
)


def missing_bites(counts: Counter[str]) -> list[str]:
    """Which kinds of fault never hit anything."""
    return [name for name in BITES if not counts[name]]


def _run_part(seeds: Sequence[int]) -> list[Result]:
    return [run(seed) for seed in seeds]


def _quiet() -> None:
    logging.disable(logging.CRITICAL)


def _results(seeds: range, jobs: int) -> Iterable[Result]:
    parts = [seeds[at : at + _PART] for at in range(0, len(seeds), _PART)]
    if jobs == 1:
        for part in parts:
            yield from _run_part(part)
        return
    with multiprocessing.Pool(jobs, initializer=_quiet) as pool:
        for results in pool.imap_unordered(_run_part, parts):
            yield from results


def replay(seed: int) -> str:
    """The command that runs one seed again, and tells what happens in it."""
    return f"make simulate SEED={seed} RUNS=1 ARGS=--trace"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, tell, and exit with 1 where a seed failed, or where a kind of fault never hit anything."""
    parser = argparse.ArgumentParser(prog="make simulate", description="Simulate schedules of faults.")
    parser.add_argument("--runs", type=int, default=1000, help="how many schedules")
    parser.add_argument("--seed", type=int, default=1, help="the first one's seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--trace", action="store_true", help="tell all that happens (with one seed)")
    given = parser.parse_args(arguments)
    _quiet()
    try:
        status = (
            _trace(given.seed)
            if given.trace
            else _many(range(given.seed, given.seed + given.runs), given.jobs)
        )
    finally:
        # A test that calls this leaves the process as it was.
        logging.disable(logging.NOTSET)
    sys.exit(status)


def _trace(seed: int) -> int:
    result = run(seed, tell=True)
    print("\n".join(result.told))
    print(f"trace {result.digest:08x}")
    print("\n".join(result.problems) or f"seed {seed}: all holds")
    return 1 if result.problems else 0


def _many(seeds: range, jobs: int) -> int:
    counts: Counter[str] = Counter()
    failed: list[int] = []
    progress = _Progress(len(seeds))
    for result in _results(seeds, jobs):
        counts += result.counts
        if result.problems:
            failed.append(result.seed)
            progress.say(
                f"seed {result.seed} FAILED; again: {replay(result.seed)}\n  "
                + "\n  ".join(problem.rstrip() for problem in result.problems[:5])
            )
        progress.step(counts["schedules"], len(failed))
    progress.clear()
    for name, count in sorted(counts.items()):
        print(f"{count:>10,}  {name}")
    idle = missing_bites(counts) if len(seeds) >= ENOUGH else []
    for name in idle:
        print(f"NOTHING PROVED: there were no {name}")
    what = (
        f"{len(seeds):,} schedules in {progress.seconds:.0f} s ({len(seeds) / progress.seconds:.0f} a second)"
    )
    if failed:
        print(f"FAILED: {len(failed)} of {what}: seeds {', '.join(map(str, sorted(failed)[:20]))}")
    elif not idle:
        print(f"OK: {what}, all of it holds")
    return 1 if failed or idle else 0


class _Progress:
    """One line that says how far it is; where nobody watches, one now and then."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._begun = self._told = time.monotonic()
        self._is_watched = sys.stdout.isatty()

    @property
    def seconds(self) -> float:
        return max(0.001, time.monotonic() - self._begun)

    def step(self, done: int, failed: int) -> None:
        now = time.monotonic()
        if now - self._told < (0.2 if self._is_watched else 15):
            return
        self._told = now
        line = f"{done:,} of {self._total:,} schedules, {done / self.seconds:.0f} a second, {failed} failed"
        print(
            f"\r\x1b[K{line}" if self._is_watched else line, end="" if self._is_watched else "\n", flush=True
        )

    def clear(self) -> None:
        if self._is_watched:
            print("\r\x1b[K", end="")

    def say(self, text: str) -> None:
        self.clear()
        print(text, flush=True)
