"""How many cores each process keeps busy, from /proc, beside whatever else is done."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import psutil

from benchmarks.phases import Stretch

#: Seconds between two samples.
_SAMPLE = 1.0


class Sampler:
    """Notes now and then how many CPU seconds each process has taken so far.

    `pids` tells which processes there are, by name; one that has ended goes on counting under its name.
    """

    def __init__(self, pids: Callable[[], Mapping[str, int | None]]) -> None:
        self._pids = pids
        self._samples: list[tuple[float, dict[str, float]]] = []
        self._reaped: dict[int, tuple[str, float]] = {}

    def look(self) -> None:
        """Take a sample, if it is time; to be called often."""
        now = time.monotonic()
        if self._samples and now - self._samples[-1][0] < _SAMPLE:
            return
        pids = self._pids()
        for name, pid in pids.items():
            if pid is None:
                continue
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            # Redis writes its append-only file anew in a child.
            spent = times.user + times.system + times.children_user + times.children_system
            self._reaped[pid] = name, spent
        taken = dict.fromkeys(pids, 0.0)
        for name, seconds in self._reaped.values():
            taken[name] = taken.get(name, 0.0) + seconds
        every = psutil.cpu_times()
        busy = sum(every) - every.idle - getattr(every, "iowait", 0.0) - getattr(every, "guest", 0.0)
        self._samples.append((now, taken | {"other": busy - sum(taken.values())}))

    def cores(self, stretches: Iterable[Stretch]) -> dict[str, float]:
        """How many cores each process has kept busy, within these stretches."""
        return cores(self._samples, stretches)


def cores(
    samples: Iterable[tuple[float, Mapping[str, float]]], stretches: Iterable[Stretch]
) -> dict[str, float]:
    """Of CPU seconds by process at instants: cores busy within stretches, from the first sample in each to its last."""
    samples = list(samples)
    spent: Counter[str] = Counter()
    seconds = 0.0
    for stretch in stretches:
        inside = [sample for sample in samples if stretch.start <= sample[0] < stretch.end]
        if len(inside) > 1:
            seconds += inside[-1][0] - inside[0][0]
            for name, taken in inside[-1][1].items():
                spent[name] += taken - inside[0][1].get(name, 0.0)  # type: ignore[assignment]
    return {name: round(taken / seconds, 3) for name, taken in spent.items()} if seconds else {}
