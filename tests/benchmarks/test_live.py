"""What the benchmarks of live events say is right itself: percentiles, cores, who buys, and what cannot be right."""

import io
import json
from collections import Counter
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from benchmarks import households as module
from benchmarks.delay import TARGETS as DELAY_TARGETS
from benchmarks.delay import _show as show_delay
from benchmarks.delaying import within
from benchmarks.due import TARGETS as DUE_TARGETS
from benchmarks.due import _show as show_due
from benchmarks.households import again, flow_program, households
from benchmarks.live import at_random, customer
from benchmarks.phases import Probe, Stretch, percentile, summary
from benchmarks.results import Numbers, check
from benchmarks.sampling import cores
from benchmarks.subscribing import BareReader, Subscriber
from cli.demo.data import Event
from schemas.program import load_program
from schemas.times import format_ms, parse_rfc3339
from streams.protocols import PURCHASES, TOUCHPOINTS
from streams.settings import Settings

DAY = 86_400_000
NOW = parse_rfc3339("2026-11-26T21:00:00Z")


def probes(*delays: float, start: float = 0.0) -> list[Probe]:
    return [Probe(start + number, start + number + delay) for number, delay in enumerate(delays)]


def printed(show: Any, told: Numbers) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    show(told, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_percentile_is_the_smallest_delay_that_so_many_do_not_exceed() -> None:
    delays = [float(number) for number in range(1, 201)]
    assert [percentile(delays, share) for share in (0.5, 0.9, 0.99, 1.0)] == [100, 180, 198, 200]
    assert percentile([7.0], 0.99) == 7.0


def test_a_summary_counts_the_probes_of_all_stretches() -> None:
    told = summary(probes(0.010, 0.020, 0.5), [Stretch(0, 1), Stretch(1, 3)])
    assert (told["probes"], told["seconds"]) == (3, 3.0)
    assert (told["p50_ms"], told["p90_ms"], told["p99_ms"], told["max_ms"]) == (20.0, 500.0, 500.0, 500.0)


def test_a_probe_belongs_to_the_stretch_in_which_it_was_sent() -> None:
    sent = probes(5.0, 5.0, 5.0, 5.0)
    assert [probe.sent for probe in within(sent, [Stretch(0, 1), Stretch(2, 3)])] == [0.0, 2.0]


def test_cores_are_told_from_the_samples_within_a_stretch_only() -> None:
    samples = [(float(at), {"worker": 0.3 * at + (90 if at > 8 else 0), "redis": 0.1}) for at in range(12)]
    assert cores(samples, [Stretch(1, 4), Stretch(5, 8.5)]) == {"worker": 0.3, "redis": 0.0}
    assert cores(samples, [Stretch(1.5, 2.5)]) == {}


def test_a_process_that_came_later_has_its_own_share() -> None:
    samples = [(0.0, {"worker": 5.0}), (1.0, {"worker": 5.5, "command": 0.25})]
    assert cores(samples, [Stretch(0, 2)]) == {"worker": 0.5, "command": 0.25}


def test_households_buy_as_if_their_year_ended_now(monkeypatch: pytest.MonkeyPatch) -> None:
    def bought(key: str, day: int, topic: str = PURCHASES) -> Event:
        body = {
            "event_id": f"e{day}",
            "customer_id": key,
            "occurred_at": format_ms(day * DAY),
            "amount": f"{day}.50",
        }
        value = json.dumps(body, separators=(",", ":")).encode()
        return Event(topic, key.encode(), value, day * DAY)

    year = [bought("7", 1), bought("8", 200), bought("8", 300, TOUCHPOINTS), bought("7", 365)]
    monkeypatch.setattr(module, "of_the_year", lambda: year)
    made = households(2, 182 * DAY, NOW)
    found = [json.loads(event.value) for event in made]
    # The first purchase has left the window.
    assert [one["customer_id"] for one in found] == ["8-0", "8-1", "7-0", "7-1"]
    assert [event.key.decode() for event in made] == [one["customer_id"] for one in found]
    assert [parse_rfc3339(one["occurred_at"]) for one in found] == [event.occurred_at for event in made]
    assert [event.occurred_at for event in made] == [NOW - 165 * DAY] * 2 + [NOW] * 2
    assert list(islice(again(made), 5)) == [
        ("8-0", "200.50"),
        ("8-1", "200.50"),
        ("7-0", "365.50"),
        ("7-1", "365.50"),
        ("8-0", "200.50"),
    ]


def test_in_the_program_of_the_flow_one_purchase_of_a_probe_is_enough(tmp_path: Path) -> None:
    program = load_program(flow_program(tmp_path / "program.toml"))
    silver, gold = program.tiers[1:]
    assert (silver.min_frequency, silver.min_monetary <= 500_00 < gold.min_monetary) == (0, True)


def test_who_buys_at_random_was_there_before() -> None:
    bought = Counter(islice(at_random(range(5, 8)), 300))
    assert bought.keys() == {(customer(number), "0.01") for number in range(5, 8)}


def record(body: dict[str, Any]) -> Any:
    full = {"tier_seq": 1, "previous_tier": "member", "tier": "silver", "reason": "purchase"}
    full |= {"effective_at": format_ms(NOW), "program": {"version": "1"}} | body
    return SimpleNamespace(value=lambda: json.dumps(full).encode(), key=full["customer_id"].encode)


FALL = {"tier_seq": 2, "previous_tier": "silver", "tier": "member", "reason": "window_expiry"}
# They connect when they are read from, and nobody does.
SETTINGS = Settings(brokers="127.0.0.1:1")


def test_a_subscriber_notes_when_a_probe_was_there_and_who_fell() -> None:
    subscriber = Subscriber(SETTINGS, 1, "member")
    subscriber._take(record({"customer_id": "probe-3"}), 1.0)
    subscriber._take(record({"customer_id": "c1"}), 1.5)
    subscriber._take(record({"customer_id": "c1"} | FALL), 2.0)
    assert subscriber.probes == {3: 1.0}
    assert subscriber.told == {"window_expiry": Counter(["c1"])}
    assert subscriber.told_at == {"window_expiry": [2.0]}
    assert subscriber.effective == {"window_expiry": Counter([format_ms(NOW)])}
    assert (subscriber.count, subscriber.torn) == (3, [])


@pytest.mark.parametrize(
    "second",
    [
        pytest.param({"customer_id": "probe-3"}, id="a change comes twice"),
        pytest.param({"customer_id": "probe-3"} | FALL | {"tier_seq": 3}, id="a change is missing"),
        pytest.param({"customer_id": "probe-3"} | FALL | {"previous_tier": "gold"}, id="from another tier"),
    ],
)
def test_a_subscriber_notices_what_does_not_follow(second: dict[str, Any]) -> None:
    subscriber = Subscriber(SETTINGS, 1, "member")
    subscriber._take(record({"customer_id": "probe-3"}), 1.0)
    subscriber._take(record(second), 2.0)
    assert subscriber.torn


def test_a_bare_reader_knows_a_probe_by_its_key_and_notices_a_second_one() -> None:
    bare = BareReader(SETTINGS, "bare", 1, "bare")
    for number, key in enumerate(("c1", "probe-1", "probe-2")):
        bare._take(record({"customer_id": key}), float(number))
    assert (bare.probes, bare.torn) == ({1: 1.0, 2: 2.0}, [])
    bare._take(record({"customer_id": "probe-2"}), 4.0)
    assert bare.torn == ["probe-2: read twice"]


MACHINE = {"cores": 2, "cpu": "a", "memory_gib": 1, "system": "b"}
CORES = {"worker": 0.5, "redis": 0.1}


def delays(p99: float) -> Numbers:
    return summary(probes(*[p99 / 1000] * 10), [Stretch(0, 10)]) | {"cores": CORES}


def delay_told(bare: float, worker: float, single: float) -> Numbers:
    return {
        "machine": MACHINE,
        "targets": DELAY_TARGETS,
        "full_per_second": {"year": 20_000.0, "households": 15_000.0},
        "flow_per_second": 10_000.0,
        "delays": {"bare": delays(bare), "worker": delays(worker)},
        "ratio_p99": worker / bare,
        "ratio_p99_by_pair": [worker / bare],
        "behind_seconds": 0.1,
        "slips_ms": {"bare 1": 3.0},
        "events": 1_000,
        "changes": 20,
        "idle_seconds": 300,
        "singles": delays(single),
    }


def test_the_verdicts_on_delays_are_by_the_targets_of_the_issue() -> None:
    assert printed(show_delay, delay_told(10, 40, 150)).count("reached") == 4
    told = printed(show_delay, delay_told(20, 151, 151))
    assert [line.split(":")[0] for line in told.splitlines() if "missed" in line] == [
        "target of 40 ms for p50",
        "target of 150 ms for p99",
        "target of 5 times for p99 by the bare p99",
        "target of 150 ms for single events, p99",
    ]


@pytest.mark.parametrize(
    ("worker", "seconds", "p99", "missed"), [(0.05, 30.0, 1_000, 0), (0.051, 30.1, 1_001, 3)]
)
def test_the_verdicts_on_what_falls_due_are_by_the_targets_of_the_issue(
    worker: float, seconds: float, p99: float, missed: int
) -> None:
    told = {
        "machine": MACHINE,
        "targets": DUE_TARGETS,
        "customers": 1_000_000,
        "falling": 100_000,
        "rate": 500,
        "phases": {"before": delays(1), "falling": delays(p99), "after": delays(1)},
        "idle": {
            "seconds": 60,
            "cores": {"worker": worker, "redis": 0.01},
            "worker_and_redis": worker + 0.01,
            "redis_bytes": 1,
        },
        "fallen_after_seconds": {"first": 1.0, "half": 2.0, "all": seconds},
        "loaded_per_second": 5_000.0,
        "load_behind_ms": 2.0,
        "checks": [check("that", False, "it is not")],
    }
    text = printed(show_due, told)
    assert (text.count("missed"), text.count("reached"), "FAILS  that: it is not" in text) == (
        missed,
        3 - missed,
        True,
    )
