"""What `make bench ARGS=memory`, `hot` and `scale` say of what they measured is right: inputs, arithmetic, verdicts."""

import io
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from benchmarks.backlog import read_of
from benchmarks.holdings import KINDS, Holdings, Kept
from benchmarks.hot import live_summary, slowdowns
from benchmarks.hot_live import in_ms
from benchmarks.memory import at_random
from benchmarks.memory_table import show as show_memory
from benchmarks.orders import DAY_MS, in_parts, mixed, purchases, write_program
from benchmarks.results import Numbers
from benchmarks.scale import Setup, agree
from benchmarks.scale_table import of_the_machine, show, summary
from benchmarks.worker import BenchmarkError, outcomes_of
from loyalty.packing import Packing
from loyalty.rules import Rules
from schemas.decoding import EventDecoder
from schemas.events import PurchaseMade, RefundMade
from schemas.program import Program, load_program
from streams.protocols import PURCHASES, TOUCHPOINTS

MACHINE: Numbers = {"cores": 2, "cpu": "any", "memory_gib": 1, "system": "any"}


class Record(NamedTuple):
    key: bytes
    value: bytes
    timestamp: int
    headers: tuple[()] = ()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return load_program(write_program(tmp_path / "program.toml", 36, 54))


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(screen: Console) -> str:
    file = screen.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_a_backlog_counts_its_own_purchases_and_no_marker_of_a_transaction() -> None:
    # The second partition held 100 records and the marker of their transaction before.
    first, counts = [0, 101], [10, 20]
    assert read_of([0, 0], first, counts) == 0
    assert read_of([4, 101], first, counts) == 4
    assert read_of([10, 111], first, counts) == 20
    # Behind the last one stands the marker of its own transaction.
    assert read_of([11, 122], first, counts) == 30


def test_what_a_worker_counted_is_read_from_its_metrics() -> None:
    metrics = (
        "# TYPE kizuna_events counter\n"
        'kizuna_events_total{outcome="counted",topic="purchases"} 40.0\n'
        'kizuna_events_total{outcome="counted",topic="touchpoints"} 2.0\n'
        'kizuna_events_total{outcome="duplicate",topic="purchases"} 1.0\n'
        'kizuna_events_created{outcome="counted",topic="purchases"} 9.0\n'
    )
    assert outcomes_of(metrics) == {"counted": 42, "duplicate": 1}


# -- what is published ---------------------------------------------------------------------------------------------


def test_everybody_buys_as_often_as_was_asked_for_and_in_order_of_time() -> None:
    customers = [f"c{number}" for number in range(7)]
    buys = list(at_random(customers, 5, 30, 1, exactly=True))
    assert sorted(customer for customer, _ in buys) == sorted(5 * customers)
    assert [at for _, at in buys] == sorted(at for _, at in buys)
    assert max(at for _, at in buys) - min(at for _, at in buys) < 30 * DAY_MS
    mean = list(at_random(customers, 5, 30, 1, exactly=False))
    assert len(mean) == 35
    assert {customer for customer, _ in mean} == set(customers)


def test_a_made_flow_is_valid_and_has_refunds_and_touchpoints_in_it(program: Program) -> None:
    decoder = EventDecoder(program)
    events = list(mixed([("a", 10**12 + number) for number in range(200)], "o"))
    made = [
        (decoder.purchase if event.topic == PURCHASES else decoder.touchpoint)(
            Record(event.key, event.value, event.occurred_at)
        )
        for event in events
    ]
    kinds = [type(one).__name__ for one in made]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "PurchaseMade": 200,
        "RefundMade": 8,
        "TouchpointMade": 20,
    }
    assert len({(event.topic, one.event_id) for event, one in zip(events, made, strict=True)}) == len(events)
    assert all(len(one.order_id) == 12 for one in made if isinstance(one, PurchaseMade))
    bought = {one.order_id for one in made if isinstance(one, PurchaseMade)}
    # Half of the refunds wait for an order that never comes.
    assert sum(one.order_id in bought for one in made if isinstance(one, RefundMade)) == 4


def test_a_flow_is_published_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.orders.PART", 3)
    parts = list(in_parts(purchases([("a", number) for number in range(7)], "o")))
    assert [len(part) for part in parts] == [3, 3, 1]


def test_ten_times_the_history_is_packed_into_as_many_bytes(program: Program) -> None:
    # The same as make bench ARGS=memory asks of Redis, of the packed bytes and without servers.
    sizes = {}
    for times in (1, 10):
        rules, decoder = Rules(program), EventDecoder(program)
        packing = Packing(rules)
        customers = {f"c{number}": rules.new_customer(f"c{number}") for number in range(40)}
        newest: dict[str, int] = {}
        stored: dict[str, dict[int, int]] = {customer: {} for customer in customers}
        heads: dict[str, int] = {}
        for event in mixed(at_random(list(customers), 60 * times, 90.0 * times, times, exactly=False), "o"):
            record = Record(event.key, event.value, event.occurred_at)
            customer = customers[event.key.decode()]
            if event.topic == TOUCHPOINTS:
                rules.touch(customer, decoder.touchpoint(record), newest.get(TOUCHPOINTS))
            else:
                rules.apply(customer, decoder.purchase(record), newest.get(PURCHASES))
            newest[event.topic] = event.occurred_at
            packed = packing.pack(customer, newest.get(PURCHASES), newest.get(TOUCHPOINTS))
            heads[customer.customer_id] = len(packed.head)
            pages = stored[customer.customer_id]
            pages |= {number: len(page) for number, page in packed.written.items()}
            for number in packed.dropped:
                pages.pop(number, None)
        sizes[times] = sum(heads.values()) + sum(sum(pages.values()) for pages in stored.values())
    assert sizes[10] / sizes[1] == pytest.approx(1, abs=0.05)


# -- memory --------------------------------------------------------------------------------------------------------


def held(used: int) -> Numbers:
    kept = {kind: Kept() for kind in KINDS}
    kept["state"] = Kept(keys=2, names=40, content=600, memory=700.0)
    kept["pages"] = Kept(keys=1, names=20, content=1_000, memory=1_200.0)
    kept["customer"] = Kept(keys=2, names=40, content=300, memory=500.0)
    kept["due"] = Kept(keys=2, names=16, content=16, memory=100.0)
    return Holdings(2, used, kept).told()


def test_bytes_by_customer_are_measured_by_what_was_put_there() -> None:
    told = held(3_048)
    assert told["used"] == 1_524
    assert told["content"] == 1_016
    assert told["ratio_content"] == 1.5
    assert told["packed"] == 800
    assert told["ratio_packed"] == 3_048 / 1_600
    assert told["ratio_packed_and_names"] == 3_048 / 1_716
    assert told["beside_keys"] == (3_048 - 2_500) / 2


@pytest.mark.parametrize(("used", "words"), [(3_048, "reached (1.500"), (3_100, "missed (1.526")])
def test_memory_is_judged_by_the_worst_size(used: int, words: str) -> None:
    screen = console()
    told = {"sizes": {"10": held(2_000), "60": held(used)}, "machine": MACHINE, "redis": {}}
    show_memory(told, screen)
    assert f"with names of keys and fields: {words}" in printed(screen)


def test_noise_is_not_told_as_the_bytes_of_a_cached_customer() -> None:
    screen = console()
    run = {"limit": 1, "customers": 1, "rss": 1, "peak": 1, "whole_per_second": 1}
    worker = {
        "orders": 10,
        "ratio": 1.2,
        "bytes_by_cached_customer": 12,
        "bytes_without_cache": 1,
        "runs": {"a": run},
    }
    show_memory({"worker": worker, "machine": MACHINE, "redis": {}}, screen)
    assert "not measured" in printed(screen)
    assert "missed (1.200 of at most 1.1)" in printed(screen)


# -- a hot customer ------------------------------------------------------------------------------------------------


def flowed(events: int, seconds: float, cpu: float = 10.0) -> Numbers:
    return {
        "events": events,
        "seconds": seconds,
        "whole_per_second": events / seconds,
        "cpu_us_per_event": {"workers": cpu, "broker": 1.0, "redis": 1.0},
    }


def test_the_hot_customers_own_events_count_as_so_many_others() -> None:
    # A twentieth more events in a twentieth more time: nobody is slower.
    assert slowdowns([flowed(1_000, 10)], [flowed(1_050, 10.5)]) == pytest.approx([0])
    assert slowdowns([flowed(1_000, 10)], [flowed(1_050, 12.6)]) == pytest.approx([0.2])
    assert slowdowns([flowed(1_000, 10)], [flowed(1_050, 10, 13)], cpu=True) == pytest.approx([0.25])


def test_live_neighbours_are_compared_over_all_rounds_and_by_round() -> None:
    def stretch(*delays: float) -> Numbers:
        return {"neighbours": in_ms([*delays]), "others": in_ms([])}

    rounds = [
        {"without": stretch(0.01, 0.02), "with": stretch(0.02, 0.03)},
        {"without": stretch(0.01, 0.02), "with": stretch(0.01, 0.02)},
    ]
    pooled = {
        "neighbours": {"without": in_ms([0.01, 0.02] * 2), "with": in_ms([0.02, 0.03, 0.01, 0.02])},
        "others": {"without": in_ms([]), "with": in_ms([])},
    }
    slower = live_summary({"rounds": rounds, "pooled": pooled})["slower"]
    assert slower.keys() == {"neighbours"}
    assert slower["neighbours"]["p99_ms"] == pytest.approx(
        {"pooled": 0.5, "median": 0.25, "min": 0.0, "max": 0.5}
    )


# -- scale ---------------------------------------------------------------------------------------------------------


def caught_up(rate: float, cores: float, *events: int, changes: int = 7) -> Numbers:
    return {
        "whole_per_second": rate,
        "cores": {"workers": cores, "broker": 0.2, "redis": 0.2},
        "cpu_us_per_event": {"workers": 1.0, "broker": 1.0, "redis": 1.0},
        "other_cores": 0.1,
        "events_by_worker": list(events),
        "changes": changes,
    }


def test_three_workers_are_measured_by_what_the_machine_carries_at_one_workers_price() -> None:
    # One worker with all beside it takes 1.25 of two cores: the machine carries 1.6 times as much.
    one = caught_up(1_000, 0.85, 100)
    assert of_the_machine(caught_up(1_600, 1.6, 40, 30, 30), one, 2) == pytest.approx(1)
    assert of_the_machine(caught_up(1_200, 1.6, 40, 30, 30), one, 2) == pytest.approx(0.75)
    # Where one worker takes the whole machine, several cannot do more than it.
    assert of_the_machine(caught_up(900, 1.6, 1, 1, 1), caught_up(1_000, 1.8, 3), 2) == pytest.approx(0.9)


def test_what_other_jobs_take_is_told_apart() -> None:
    # They took half a core while three worked: what was left is used as well as one worker uses it.
    setups = {setup.name: setup for setup in (Setup(12, 1, False), Setup(12, 3, False))}
    three = caught_up(1_500, 1.1, 1, 1, 1) | {"other_cores": 0.5}
    told = summary(setups, {"12-1": [caught_up(1_000, 0.6, 3)], "12-3": [three]}, 2)["12-3"]
    assert told["of_the_machine"]["median"] == pytest.approx(0.75)
    assert told["of_what_was_free"]["median"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("rate", "events", "words"),
    [
        (1_500, (40, 32, 32), ("reached 0.9", "reached 1.3")),
        (1_400, (40, 32, 32), ("missed 0.9", "reached 1.3")),
        (1_500, (40, 30, 30), ("reached 0.9", "missed 1.3")),
    ],
)
def test_three_workers_are_judged(rate: float, events: tuple[int, ...], words: tuple[str, str]) -> None:
    setups = {setup.name: setup for setup in (Setup(12, 1, False), Setup(12, 3, False))}
    taken = {"12-1": [caught_up(1_000, 0.85, 100)], "12-3": [caught_up(rate, 1.6, *events)]}
    screen = console()
    told = {
        "events": 100,
        "machine": MACHINE,
        "setups": {name: setup._asdict() for name, setup in setups.items()},
        "summary": summary(setups, taken, 2),
    }
    show(told, screen)
    assert all(word in printed(screen) for word in words)


def test_rounds_with_other_changes_are_an_error() -> None:
    agree([caught_up(1, 1, 1), caught_up(2, 1, 1)])
    with pytest.raises(BenchmarkError, match="different numbers of changes"):
        agree([caught_up(1, 1, 1), caught_up(2, 1, 1, changes=8)])
