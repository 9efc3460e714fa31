"""Delays, by what was going on meanwhile. Pure: instants are seconds of one clock."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

#: Seconds of a slice, and the least that the last one of a stretch must have.
SLICE = 10.0
_LEAST = 5.0


class Stretch(NamedTuple):
    """From an instant on, until, not including, another."""

    start: float
    end: float


class Probe(NamedTuple):
    """When an event was sent, and when the change that it made was read."""

    sent: float
    read: float


class Parted(NamedTuple):
    """Probes by phase and by gap."""

    phases: dict[str, list[Probe]]
    gaps: dict[str, list[Probe]]


def part(probes: Iterable[Probe], phases: dict[str, Stretch], gaps: dict[str, Stretch]) -> Parted:
    """Each probe to the gap that it was on its way in, else to the phase in which it was sent, else to nothing."""
    parted = Parted({name: [] for name in phases}, {name: [] for name in gaps})
    for probe in probes:
        for name, gap in gaps.items():
            if probe.sent < gap.end and probe.read > gap.start:
                parted.gaps[name].append(probe)
                break
        else:
            for name, phase in phases.items():
                if phase.start <= probe.sent < phase.end:
                    parted.phases[name].append(probe)
                    break
    return parted


def without(whole: Stretch, gaps: Iterable[Stretch]) -> list[Stretch]:
    """What is left of a stretch between gaps."""
    left, start = [], whole.start
    for gap in sorted(gaps):
        if gap.end <= whole.start or gap.start >= whole.end:
            continue
        if gap.start > start:
            left.append(Stretch(start, gap.start))
        start = max(start, gap.end)
    return [*left, Stretch(start, whole.end)] if start < whole.end else left


def percentile(delays: Sequence[float], share: float) -> float:
    """The smallest delay that so large a share (0.99) does not exceed."""
    ordered = sorted(delays)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)]


def slices(probes: Sequence[Probe], stretches: Iterable[Stretch]) -> list[list[float]]:
    """Delays by the slice in which they were sent; what is left of a stretch is one where it is long enough."""
    found = []
    for stretch in stretches:
        start = stretch.start
        while stretch.end - start >= _LEAST:
            end = min(start + SLICE, stretch.end)
            found.append([p.read - p.sent for p in probes if start <= p.sent < end])
            start = end
    return [delays for delays in found if delays]


def summary(probes: Sequence[Probe], stretches: Sequence[Stretch]) -> dict[str, Any]:
    """Milliseconds: p50, p90, p99 and the longest, and the spread of the p99 by slices."""
    delays = [probe.read - probe.sent for probe in probes]
    told: dict[str, Any] = {
        "probes": len(delays),
        "seconds": round(sum(s.end - s.start for s in stretches), 1),
    }
    if not delays:
        return told
    by_slice = [_ms(percentile(one, 0.99)) for one in slices(probes, stretches)]
    told |= {
        "p50_ms": _ms(percentile(delays, 0.5)),
        "p90_ms": _ms(percentile(delays, 0.9)),
        "p99_ms": _ms(percentile(delays, 0.99)),
        "max_ms": _ms(max(delays)),
        "p99_by_slice_ms": by_slice,
    }
    if by_slice:
        told["p99_spread_ms"] = {
            "min": min(by_slice),
            "median": round(median(by_slice), 1),
            "max": max(by_slice),
        }
    return told


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
