"""Compiled, the rules decide and keep what the plain Python ones do, to the byte."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from random import Random

import pytest

from loyalty import Packing, Rules
from loyalty.bond import BondChange
from schemas import compiled
from schemas.events import PurchaseMade, RefundMade, TouchpointMade
from schemas.program import load_program
from schemas.tier_change import encode
from tests.loyalty.worlds import DAY, Event, command, purchase, refund, touch

ROOT = Path(__file__).parents[2]
SEEDS = range(12)


def events(random: Random, count: int) -> Iterator[Event]:
    """What shops and channels tell of a few customers within two years, some of it late, some of it twice."""
    told: list[Event] = []
    for number in range(count):
        at = 1_600_000_000_000 + number * 730 * DAY // count - random.choice([0, 0, 0, 1, DAY, 20 * DAY])
        who = {"customer_id": str(random.randrange(6)), "event_id": str(number)}
        bought = {"channel": random.choice(["store", "web"]), "store_id": random.choice([None, "s1"])}
        named = {
            "action": random.choice(
                [None, "send", "review", "visit", "redeem", "receipt", "pause", "cancel"]
            ),
            "campaign_id": random.choice([None, "c1", "free coffee"]),
        }
        order = str(random.randrange(number // 3 + 1))
        subscription = {"subscription_id": random.choice([None, None, "box"])}
        event: Event = purchase(at, order, random.randrange(120_00), **who, **bought, **subscription)
        drawn = random.random()
        if drawn < 0.1:
            event = refund(at, order, random.randrange(60_00), **who)
        elif drawn < 0.5:
            channel = random.choice(["email", "mail", "app", "store"])
            event = touch(at, channel, random.choice(["inbound", "outbound"]), **who, **named, **subscription)
        elif drawn < 0.52:
            event = command(at, random.choice(["pin", "floor", "clear"]), "gold", at + 40 * DAY, **who)
        told.append(event)
        yield event if random.random() < 0.97 else random.choice(told)


def outcome(seed: int) -> str:
    """How much a random log decides; a digest of that, and of how each customer is kept."""
    random, digest, decided = Random(seed), blake2b(digest_size=16), 0
    program = load_program(ROOT / "examples" / ("grocery.toml" if seed % 4 == 0 else "loyal.toml"))
    rules = Rules(program)
    packing = Packing(rules)
    customers = {str(number): rules.new_customer(str(number)) for number in range(6)}
    newest: dict[type, int] = {}
    for event in events(random, 1_500):
        customer, kind = customers[event.customer_id], PurchaseMade
        if isinstance(event, PurchaseMade | RefundMade):
            made = rules.apply(customer, event, newest.get(kind))
        else:
            kind = type(event)
            fold = rules.touch if isinstance(event, TouchpointMade) else rules.command
            made = fold(customer, event, newest.get(kind))
        newest[kind] = max(event.occurred_at, newest.get(kind, 0))
        if random.random() < 0.05:
            made = (made or []) + rules.advance(customer, event.occurred_at)
        decided += len(made or [])
        for decision in made or []:
            told = isinstance(decision, BondChange)
            digest.update(decision.value if told else encode(rules.change_body(decision)))
        digest.update(repr(rules.next_due(customer)).encode())
        if random.random() < 0.05:
            packed = packing.pack(customer, newest.get(PurchaseMade), None)
            digest.update(packed.head + b"".join(packed.written.values()))
            digest.update(repr(rules.readable(customer)).encode())
    return f"{decided} {digest.hexdigest()}"


def test_compiled_or_not_the_same_is_decided_and_kept() -> None:
    told = {}
    for switch in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.loyalty.test_compiled"],
            cwd=ROOT,
            env=os.environ | {compiled.SWITCH: switch},
            text=True,
            capture_output=True,
            check=True,
        )
        way, *told[switch] = done.stdout.splitlines()
        if switch == "1" or compiled.place().is_dir():
            assert way == ("python" if switch == "1" else "compiled")
    assert told["0"] == told["1"]
    assert len(told["0"]) == len(SEEDS)
    assert min(int(line.split()[0]) for line in told["0"]) > 20


def test_a_build_of_other_sources_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_PLACE", tmp_path)
    assert compiled.found({}) is None
    (tmp_path / "0123456789abcdef").mkdir()
    assert compiled.found({}) is None
    compiled.place().mkdir()
    assert compiled.found({}) == compiled.place()
    assert compiled.found({compiled.SWITCH: "1"}) is None


def test_a_changed_line_of_the_sources_belongs_to_another_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compiled.place().name
    for package in ("loyalty", "schemas"):
        (tmp_path / package).mkdir()
        for source in (ROOT / package).glob("*.py"):
            (tmp_path / package / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    assert compiled.place().name == before
    with (tmp_path / "schemas" / "money.py").open("a") as source:
        source.write("\n")
    assert compiled.place().name != before


@pytest.mark.parametrize(
    "name", [f"{package}/{name}" for package, names in compiled.MODULES.items() for name in names]
)
def test_no_class_that_is_compiled_says_anything_in_its_head_that_mypyc_would_forget(name: str) -> None:
    source = (compiled.ROOT / f"{name}.py").read_text()
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    assert [
        node.name for node in classes if node.keywords or "Struct" in " ".join(map(ast.unparse, node.bases))
    ] == []


if __name__ == "__main__":
    print("compiled" if compiled.is_at_work() else "python")
    for number in SEEDS:
        print(outcome(number))
