"""What judges the peers of `make bench ARGS=peers` is right itself: the reference, the looks, the table."""

import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from benchmarks import load as years
from benchmarks.peers import inputs
from benchmarks.peers.catalogue import FOLDER, peers, read
from benchmarks.peers.inputs import grocery, made
from benchmarks.peers.loading import Loaded
from benchmarks.peers.plot import draw
from benchmarks.peers.reference import Reference, Told, WrongError, told_by_peer
from benchmarks.peers.rounds import numbers_of
from benchmarks.peers.table import compare, compared, show, summary
from benchmarks.peers.watching import Look, Record
from benchmarks.peers.work import Decoder, Program, Tier, Work
from benchmarks.results import Numbers
from benchmarks.worker import BenchmarkError
from cli.demo import data
from loyalty.rules import Rules
from loyalty.views import Change
from schemas.events import PurchaseMade
from schemas.murmur2 import home
from schemas.times import format_ms, parse_rfc3339
from streams.preflight import read_program
from streams.protocols import PURCHASES

DAY = 86_400_000
START = parse_rfc3339("2020-01-01T00:00:00Z")
PROGRAM = read_program(str(FOLDER / "program.toml"))
TIERS = [(tier.name, tier.min_monetary, tier.min_frequency) for tier in PROGRAM.tiers]
PEERS_PROGRAM = Program(PROGRAM.window, PROGRAM.currency, tuple(Tier(*tier) for tier in TIERS))


def bought(customer: str, order: str, day: float, amount: str) -> bytes:
    at = format_ms(START + int(day * DAY))
    return json.dumps(
        {
            "event_id": order,
            "type": "purchase",
            "customer_id": customer,
            "occurred_at": at,
            "order_id": order,
            "amount": amount,
            "currency": "USD",
        }
    ).encode()


def reference(values: list[bytes]) -> Reference:
    made_of = Reference(PROGRAM.window, TIERS)
    for value in values:
        made_of.read(value)
    return made_of


def told(order: str, before: str, tier: str, day: float, frequency: int, monetary: int) -> Told:
    return Told(order, before, tier, START + int(day * DAY), 0, frequency, monetary)


def worked(values: list[bytes]) -> dict[str, list[Told]]:
    """What a peer in Python publishes of records."""
    decode, work = Decoder(PEERS_PROGRAM).event, Work(PEERS_PROGRAM)
    states: dict[str, bytes] = {}
    published: dict[str, list[Told]] = {}
    for value in values:
        event = decode(value)
        states[event.customer_id], change = work.apply(states.get(event.customer_id), event)
        if change is not None:
            ((customer, said),) = told_by_peer([work.record(change)])
            published.setdefault(customer, []).append(said)
    return published


def folded(values: list[bytes]) -> dict[str, list[Told]]:
    """What Kizuna publishes of them, with what time brings up to the newest of all."""
    rules = Rules(PROGRAM)
    customers = {}
    published: dict[str, list[Told]] = {}
    events = [Decoder(PEERS_PROGRAM).event(value) for value in values]
    newest = max(event.at for event in events)

    def tell(decided: list[Change]) -> None:
        for change in decided:
            body = rules.change_body(change)
            rfm = body.rfm
            published.setdefault(body.customer_id, []).append(
                Told(
                    body.cause_event_id or "",
                    body.previous_tier,
                    body.tier,
                    parse_rfc3339(body.effective_at),
                    rfm.recency_seconds,
                    rfm.frequency,
                    round(float(rfm.monetary) * 100),
                )
            )

    for event in events:
        customer = customers.setdefault(event.customer_id, rules.new_customer(event.customer_id))
        made_of = PurchaseMade(event.customer_id, event.order_id, "", event.order_id, event.amount, event.at)
        tell(rules.apply(customer, made_of, None) or [])
    for customer in customers.values():
        tell(rules.advance(customer, newest))
    return published


def random_values(seed: int, *, in_order: bool) -> list[bytes]:
    """Some years of a few customers; where not in order, with late ones and orders that come again."""
    draw_ = random.Random(seed)
    values = []
    day = 0.0
    for number in range(900):
        day += draw_.random() * 2
        order, at = f"o{number}", day
        if not in_order and draw_.random() < 0.2:
            at = max(0.0, day - draw_.random() * 500)
        if not in_order and draw_.random() < 0.1:
            order = f"o{draw_.randrange(number + 1)}"
        values.append(
            bought(str(draw_.randrange(5)), order, at, f"{draw_.randrange(120)}.{draw_.randrange(100):02}")
        )
    return values


def test_a_customer_rises_with_the_orders_and_falls_when_they_have_left_the_window() -> None:
    made_of = reference(
        [bought("a", f"o{i}", i, "100.00") for i in range(4)] + [bought("a", "late", 367, "1")]
    )
    assert made_of.changes == {
        "a": [told("o3", "member", "silver", 3, 4, 40_000), told("late", "silver", "member", 367, 2, 10_100)]
    }


def test_an_order_leaves_at_the_very_millisecond() -> None:
    three = [bought("a", f"o{i}", 1, "100") for i in range(3)]
    ms = 1 / DAY
    inside = reference([*three, bought("a", "x", 366 - ms, "100")])
    outside = reference([*three, bought("a", "x", 366, "100")])
    assert inside.changed == 1
    assert outside.changed == 0


def test_an_order_that_comes_again_and_one_that_is_too_late_change_nothing() -> None:
    again = reference([bought("a", "o0", 0, "400.00")] * 4)
    late = reference([bought("a", "o0", 400, "1"), *(bought("a", f"o{i}", 35, "400") for i in range(1, 5))])
    assert (again.changed, late.changed) == (0, 0)
    assert again.events == 4


@pytest.mark.parametrize("seed", range(6))
def test_the_peers_work_on_packed_state_is_what_the_reference_says(seed: int) -> None:
    values = random_values(seed, in_order=seed % 2 == 0)
    made_of = reference(values)
    assert made_of.changed > 5
    made_of.check(worked(values))


@pytest.mark.parametrize(
    "change",
    [
        {"occurred_at": "2020-01-01T00:00:00"},
        {"amount": "1.234"},
        {"amount": "-1"},
        {"amount": "1e3"},
        {"amount": '1"'},
        {"currency": "EUR"},
        {"order_id": ""},
        {"order_id": None},
        {"customer_id": "x" * 129},
        {"type": "refund"},
        {"store_id": 5},
    ],
    ids=str,
)
def test_an_invalid_record_is_no_event(change: dict[str, object]) -> None:
    body = json.loads(bought("a", "o", 0, "1.00"))
    decode = Decoder(PEERS_PROGRAM).event
    assert decode(json.dumps(body).encode()).amount == 100
    assert decode(json.dumps(body | {"amount": 12.5}).encode()).amount == 1250
    with pytest.raises(ValueError):  # noqa: PT011 (msgspec's own errors are ValueErrors)
        decode(json.dumps(body | change).encode())


def tampered() -> Iterator[list[Told]]:
    right = reference([bought("a", f"o{i}", i * 60, "150.00") for i in range(20)]).changes["a"]
    assert len(right) == 1
    yield []
    yield [*right, *right]
    yield [right[0]._replace(frequency=5)]
    yield [right[0]._replace(effective_at=right[0].effective_at + 1)]


@pytest.mark.parametrize("wrong", list(tampered()))
def test_a_wrong_peer_is_found(wrong: list[Told]) -> None:
    made_of = reference([bought("a", f"o{i}", i * 60, "150.00") for i in range(20)])
    made_of.check(dict(made_of.changes))
    with pytest.raises(WrongError):
        made_of.check({"a": wrong} if wrong else {})
    with pytest.raises(WrongError):
        made_of.check(made_of.changes | {"b": made_of.changes["a"]})


@pytest.mark.parametrize("seed", range(0, 6, 2))
def test_what_the_fold_publishes_is_in_force_and_what_is_changed_in_it_is_found(seed: int) -> None:
    values = random_values(seed, in_order=True)
    made_of = reference(values)
    published = folded(values)
    made_of.check_in_force(published)
    customer, changes = next((c, t) for c, t in published.items() if len(t) > 2)
    by_purchase = next(i for i, change in enumerate(changes) if change.order_id)
    wrong = [
        changes[:-1],
        changes[1:],
        [*changes[:1], changes[1]._replace(previous_tier="nobody's"), *changes[2:]],
        [*changes[:by_purchase], changes[by_purchase]._replace(monetary=1), *changes[by_purchase + 1 :]],
        [change._replace(effective_at=change.effective_at + 400 * DAY) for change in changes],
    ]
    for each in wrong:
        with pytest.raises(WrongError):
            made_of.check_in_force(published | {customer: each})
    with pytest.raises(WrongError):
        made_of.check_in_force(published | {"nobody": changes})


def look(at: float, *stable: int, cpu: float = 0.0) -> Look:
    return Look(at, stable, {"peer": cpu, "broker": cpu, "redis": 0.0, "machine": 3 * cpu})


def loaded(places: dict[str, tuple[int, int]], events: int) -> Loaded:
    return Loaded("topic", events, Reference(PROGRAM.window, TIERS), places=places)


def record(partition: int, offset: int, order: str) -> Record:
    work = Work(PEERS_PROGRAM)
    decode = Decoder(PEERS_PROGRAM).event
    state, change = None, None
    for number in range(4):
        name = order if number == 3 else f"{order}-{number}"
        state, change = work.apply(state, decode(bought("a", name, number, "100.00")))
    assert change is not None
    return Record(partition, offset, work.record(change))


def test_rates_are_taken_from_what_was_visible_at_which_look() -> None:
    # Behind each second offset there is a transaction's marker. What comes from partition 1 is told in partition 0.
    places = {"a": (0, 19), "b": (0, 59), "c": (1, 39)}
    records = [record(0, 0, "a"), record(0, 2, "b"), record(0, 4, "c")]
    looks = [
        look(10, 0, 0),
        look(11, 2, 0, cpu=0.1),
        look(12, 4, 0, cpu=0.2),
        look(13, 4, 0),
        look(14, 6, 0, cpu=0.5),
        look(19, 6, 0),
    ]
    numbers = numbers_of(looks, records, loaded(places, 100))
    assert numbers["seconds"] == 4
    assert numbers["whole_per_second"] == 25
    assert numbers["steady_per_second"] == pytest.approx(80 / 3)
    assert numbers["cpu_us_per_event"]["peer"] == pytest.approx(5_000)
    assert numbers["other_cores"] == pytest.approx(0.125)


def test_outputs_that_do_not_show_the_end_of_the_input_are_no_number() -> None:
    with pytest.raises(BenchmarkError):
        numbers_of([look(10, 0, 0), look(11, 1, 0)], [record(0, 0, "a")], loaded({"a": (0, 19)}, 100))


def round_of(rate: float, events: int = 100) -> Numbers:
    return {
        "events": events,
        "whole_per_second": rate,
        "steady_per_second": rate + 1,
        "cpu_us_per_event": {"peer": 2.0, "broker": 1.0, "redis": 0.5},
        "memory_bytes": 2**20,
        "redis_bytes": 0,
        "changes": 3,
    }


def run_of(rounds: dict[str, list[float]]) -> Numbers:
    taken = {name: [round_of(rate) for rate in rates] for name, rates in rounds.items()}
    return {
        "at": "2026-01-01T00:00:00+00:00",
        "machine": {"cores": 2, "cpu": "x", "memory_gib": 1, "system": "y"},
        "input": "grocery",
        "title": "the title",
        "events": 100,
        "customers": 7,
        "changes": 3,
        "peers": {name: {"title": name.title(), "guarantees": "some"} for name in rounds},
        "rounds": taken,
        "failed": {},
        "summary": summary(taken),
    }


def printed(run: Numbers, before: Numbers | None = None) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(run, console)
    if before is not None:
        compare(run, before, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_ratios_are_of_one_round_each_and_their_median_is_told() -> None:
    run = run_of({"kizuna": [10.0, 40.0, 30.0], "bytewax": [20.0, 20.0, 10.0], "faust": []})
    assert run["summary"]["bytewax"]["of_peer"] == {"median": 2.0, "min": 0.5, "max": 3.0}
    assert "of_peer" not in run["summary"]["kizuna"]
    assert "faust" not in run["summary"]
    assert "0.50 – 3.00" in printed(run)


def test_two_runs_are_compared_by_what_both_have() -> None:
    before = run_of({"kizuna": [10.0], "bytewax": [20.0], "gone": [1.0]})
    now = run_of({"kizuna": [30.0], "bytewax": [20.0], "new": [1.0]})
    assert [(row["name"], row["whole"], row["of_peer"]) for row in compared(now, before)] == [
        ("kizuna", (10.0, 30.0), None),
        ("bytewax", (20.0, 20.0), (0.5, 1.5)),
    ]
    text = printed(now, before | {"events": 50})
    assert "3.00" in text
    assert "events differ" in text


def test_a_run_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "picture.png", run_of({"kizuna": [10.0, 12.0], "bytewax": [20.0, 21.0]}))
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("count", [1_000, 400])
def test_an_input_holds_so_many_and_ends_with_a_change_in_every_partition(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "RESULTS", tmp_path)
    for source in (made(1_000, PROGRAM, 12), grocery(1_000, PROGRAM, 12)):
        events = [event for part in source.parts(count) for event in part]
        again = [event for part in source.parts(count) for event in part]
        assert events == again
        assert len(events) == count
        made_of = Reference(PROGRAM.window, TIERS)
        last: dict[int, bool] = {}
        times = []
        for event in events:
            last[home(event.key, 12)] = made_of.read(event.value) is not None
            body = msgspec.json.decode(event.value)
            assert body["customer_id"].encode() == event.key
            times.append(parse_rfc3339(body["occurred_at"]))
        assert last == dict.fromkeys(range(12), True)
        assert times == sorted(times)
        assert made_of.events == count


def test_the_grocerys_tiers_go_on_changing_when_the_window_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [event for event in data.events() if event.key < b"11"]
    for module, name in ((inputs, "of_the_year"), (years, "events")):
        monkeypatch.setattr(module, name, lambda: some)
    year = sum(event.topic == PURCHASES for event in some)
    made_of = Reference(PROGRAM.window, TIERS)
    by_year: Counter[str] = Counter()
    orders = set()
    count = 3 * year + 48
    for part in grocery(count, PROGRAM, 12).parts(count):
        for event in part:
            body = msgspec.json.decode(event.value)
            orders.add(body["order_id"])
            if made_of.read(event.value) is not None and not body["customer_id"].startswith("closing"):
                by_year[body["occurred_at"][:4]] += 1
    assert len(orders) == count
    assert min(by_year["2016"], by_year["2017"]) > 0.7 * by_year["2015"] > 20


def test_the_made_input_is_of_many_who_buy_seldom_and_few_who_buy_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "RESULTS", tmp_path)
    events = [event for part in made(50_000, PROGRAM, 12).parts(50_000) for event in part]
    bought_by = Counter(event.key for event in events)
    often = sorted(bought_by.values(), reverse=True)
    assert 9_900 < len(bought_by) <= 10_012
    assert sum(often[:1_000]) > 0.35 * len(events)
    assert often[len(often) // 2] <= 3
    assert often[0] < 1_500
    years = {json.loads(event.value)["occurred_at"][:4] for event in events}
    assert {"2020", "2021", "2022"} <= years


def test_every_folder_with_a_peer_is_described_as_it_must_be(tmp_path: Path) -> None:
    there = peers()
    assert {"bare", "batched", "folded", "faust", "quixstreams", "bytewax"} <= set(there)
    for peer in there.values():
        assert (peer.folder / (peer.python or "pom.xml")).exists()
    (tmp_path / "peer.toml").write_text(
        'title = "x"\nguarantees = ""\norder = 1\npython = "peer.py"\nmisspelt = 1\n'
    )
    with pytest.raises(BenchmarkError, match="misspelt"):
        read(tmp_path / "peer.toml")
