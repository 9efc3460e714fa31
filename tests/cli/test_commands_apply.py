"""A store moved to another version of its program, with and without workers."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import Consumer

from cli.local_stack import LocalStack
from streams.keys import ShardKeys
from tests.cli.conftest import PARTITIONS, Cli, wait_until, working
from tests.cli.shop import GROCERY, purchase

CUSTOMERS = {"800": 6, "801": 5, "802": 1}


def changed(folder: Path, name: str, silver_orders: int) -> Path:
    file = folder / f"{name}.toml"
    file.write_text(GROCERY.read_text().replace("min_frequency = 5", f"min_frequency = {silver_orders}"))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def moved(kizuna: Cli, folder: Path) -> Cli:
    """A store of its own, in which three customers were counted; its worker has gone."""
    found = Cli(
        kizuna.env
        | {
            "KIZUNA_TOPIC_PREFIX": "moved.",
            "KIZUNA_REDIS_PREFIX": "moved",
            "KIZUNA_GROUP": "moved",
            "KIZUNA_PROGRAM": str(changed(folder, "first", 5)),
        }
    )
    assert found("topics", "create", "--partitions", str(PARTITIONS)).ok
    events = [
        purchase(f"{customer_id}-{n}", customer_id, occurred_at=f"2024-01-0{n + 1}T10:00:00Z", amount="50.00")
        for customer_id, orders in CUSTOMERS.items()
        for n in range(orders)
    ]
    assert found("publish", "-", stdin="\n".join(events)).ok

    def counted() -> bool:
        lines = map(json.loads, found("state", "dump", "--json").ok.splitlines())
        return {line["customer_id"]: line["lifetime_orders"] for line in lines} == CUSTOMERS

    with working(found, folder / "log"):
        wait_until(counted)
    return found


def tiers(kizuna: Cli, program: Path) -> dict[str, str]:
    lines = kizuna("state", "dump", "--json", "--program", program, "--as-of", "2024-01-20T00:00:00Z").ok
    return {line["customer_id"]: line["tier"] for line in map(json.loads, lines.splitlines())}


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture
def member(stack: LocalStack, moved: Cli) -> Iterator[Consumer]:
    """Somebody in the workers' group who moves nobody."""
    consumer = Consumer(
        {"bootstrap.servers": stack.brokers, "group.id": "moved", "enable.auto.commit": False}
    )
    consumer.subscribe(["moved.purchases"])
    wait_until(lambda: consumer.poll(0.1) or consumer.assignment())
    yield consumer
    consumer.close()


def test_a_dry_run_shows_who_would_go_where_and_changes_nothing(moved: Cli, folder: Path) -> None:
    file = changed(folder, "stricter", 6)
    done = moved("program", "apply", file, "--dry-run", KIZUNA_BROKERS="127.0.0.1:1")
    assert ["silver", "member", "1", "0"] in rows(done.ok)
    assert ["silver", "silver", "1", "0"] in rows(done.ok)
    assert ["member", "member", "1", "0"] in rows(done.ok)
    assert done.out.endswith("3 customers: 0 up, 1 down, 2 same\n")
    assert done.err == "nothing was changed\n"
    printed = json.loads(moved("program", "apply", file, "--dry-run", "--json").ok)
    assert (printed["dry_run"], printed["already_applied"], printed["customers"]) == (True, False, 3)
    assert printed["moves"][1:] == [
        {"from": "silver", "to": "member", "direction": "down", "customers": 1, "at_risk": 0},
        {"from": "silver", "to": "silver", "direction": "same", "customers": 1, "at_risk": 0},
    ]
    assert tiers(moved, folder / "first.toml") == {"800": "silver", "801": "silver", "802": "member"}


def test_protection_is_foreseen_as_well(moved: Cli, folder: Path) -> None:
    file = changed(folder, "protecting", 6)
    file.write_text(
        file.read_text().replace(
            'max_future = "5m"', 'max_future = "5m"\nprotect_until = 2025-01-01T00:00:00Z'
        )
    )
    printed = json.loads(moved("program", "apply", file, "--dry-run", "--json").ok)
    assert (printed["protect_until"], printed["down"]) == ("2025-01-01T00:00:00.000Z", 0)
    ended = ("--protect-until", "2020-01-01T00:00:00Z")
    assert json.loads(moved("program", "apply", file, "--dry-run", "--json", *ended).ok)["down"] == 1


def test_a_program_that_cannot_be_applied_is_one_line(moved: Cli, folder: Path) -> None:
    longer = folder / "longer.toml"
    longer.write_text(GROCERY.read_text().replace('"272d"', '"300d"'))
    assert moved("program", "apply", longer).error.startswith("program.ledger: expected at most 272d")
    assert "cannot be read" in moved("program", "apply", folder / "none.toml").error
    error = moved("program", "apply", longer, "--redis-prefix", "other").error
    assert "no worker has begun a store" in error


def test_what_the_store_is_on_already_is_said_and_no_failure(moved: Cli, folder: Path) -> None:
    done = moved("program", "apply", folder / "first.toml")
    assert done.ok == ""
    assert done.err.endswith("already: nothing to do\n")
    assert json.loads(moved("program", "apply", folder / "first.toml", "--json").ok)["already_applied"]


def test_it_is_broken_off_and_goes_on_without_a_worker(
    moved: Cli, folder: Path, stack: LocalStack, member: Consumer
) -> None:
    file = changed(folder, "applied", 6)
    process = moved.start("program", "apply", file)

    def listed() -> bool:
        with redis.Redis.from_url(stack.redis_url) as client:
            return all(
                client.hget(ShardKeys("moved", partition).shard, "program:listed")
                for partition in range(PARTITIONS)
            )

    wait_until(listed)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (out, process.returncode) == ("", 130)
    assert err == "interrupted: the change is begun and not over, the same command goes on\n"
    under_way = moved("program", "apply", file, "--dry-run")
    assert under_way.err == "nothing was changed, the change of the others is under way\n"
    another = moved("program", "apply", changed(folder, "another", 7)).error
    assert another.startswith("another change of the program is under way")

    member.close()
    done = moved("program", "apply", file, "--json")

    printed: Any = json.loads(done.ok)
    assert (printed["dry_run"], printed["customers"], printed["down"]) == (False, 3, 1)
    assert {"from": "silver", "to": "member", "direction": "down", "customers": 1} in printed["moves"]
    assert tiers(moved, file) == {"800": "silver", "801": "member", "802": "member"}
    assert "the store was built for program version" in moved("customer", "800").error


def test_a_worker_of_the_new_version_moves_them(moved: Cli, folder: Path) -> None:
    before = Cli(moved.env | {"KIZUNA_PROGRAM": str(folder / "applied.toml")})
    file = changed(folder, "milder", 4)
    with working(before, folder / "log-before"):
        applying = moved.start("program", "apply", file)
        after = Cli(moved.env | {"KIZUNA_PROGRAM": str(file)})
        out, err = applying.communicate(timeout=200)
    assert applying.returncode == 0, err
    assert ["member", "silver", "1"] in rows(out)
    assert "1 up, 0 down, 2 same" in out
    assert tiers(after, file) == {"800": "silver", "801": "silver", "802": "member"}
