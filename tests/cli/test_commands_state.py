"""What the worker made of events: customer, state dump, tail tier-changes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Cli, wait_until
from tests.cli.shop import purchase

KEYS = [
    *("customer_id", "as_of", "tier", "tier_seq", "frequency", "monetary", "last_purchase_at", "r", "f", "m"),
    *("lifetime_orders", "lifetime_monetary", "contacts"),
]
AS_OF = "2024-01-20T00:00:00Z"


@pytest.fixture(scope="session")
def counted(kizuna: Cli, worker: None) -> Cli:
    """The worker has counted: 900 with five orders and a contact, and two with one order each."""
    events = [
        purchase(f"s{day}", "900", occurred_at=f"2024-01-0{day}T10:00:00Z", amount="50.00")
        for day in range(1, 6)
    ]
    events += [purchase("s6", "\U0001f600"), purchase("s7", "\uffee", amount="0")]
    touch = {
        "event_id": "t1",
        "type": "touchpoint",
        "customer_id": "900",
        "occurred_at": "2024-01-10T10:00:00Z",
        "channel": "email",
        "direction": "outbound",
    }
    assert kizuna("publish", "-", "--topic", "touchpoints", stdin=json.dumps(touch)).ok
    assert kizuna("publish", "-", stdin="\n".join(events)).ok

    def shown() -> bool:
        done = kizuna("state", "dump", "--json", "--as-of", AS_OF)
        lines = {line["customer_id"]: line for line in map(json.loads, done.ok.splitlines())}
        return (
            {"900", "\U0001f600", "\uffee"} <= lines.keys()
            and lines["900"]["frequency"] == 5
            and lines["900"]["contacts"] != {}
        )

    wait_until(shown)
    return kizuna


def test_customer_is_a_line_of_the_dump(counted: Cli) -> None:
    line = counted("customer", "900", "--as-of", AS_OF, "--json").ok
    found = json.loads(line)
    assert list(found) == KEYS
    assert found == {
        "customer_id": "900",
        "as_of": "2024-01-20T00:00:00.000Z",
        "tier": "silver",
        "tier_seq": 1,
        "frequency": 5,
        "monetary": "250.00",
        "last_purchase_at": "2024-01-05T10:00:00.000Z",
        "r": 4,
        "f": 3,
        "m": 3,
        "lifetime_orders": 5,
        "lifetime_monetary": "250.00",
        "contacts": {"email": {"inbound": 0, "outbound": 1}},
    }
    assert line in counted("state", "dump", "--as-of", AS_OF, "--json").ok


def test_customer_for_a_person(counted: Cli) -> None:
    text = counted("customer", "900", "--as-of", AS_OF).ok
    assert "silver" in text
    assert "250.00 USD in the window" in text
    assert "14d 14h before" in text
    assert text.splitlines()[-1].split() == ["email", "0", "1"]
    assert "none in the contact window" in counted("customer", "\uffee", "--as-of", AS_OF).ok


def test_customer_as_of_later_shows_what_falls_due(counted: Cli) -> None:
    found = json.loads(counted("customer", "900", "--as-of", "2025-06-01T00:00:00Z", "--json").ok)
    assert (found["tier"], found["frequency"], found["lifetime_orders"]) == ("member", 0, 5)
    assert found["contacts"] == {}


def test_customer_refuses_what_it_cannot_answer(counted: Cli) -> None:
    assert counted("customer", "nobody").error == "no customer 'nobody'"
    assert (
        "is before the newest purchase" in counted("customer", "900", "--as-of", "2023-12-31T00:00:00Z").error
    )
    assert (
        "is before the newest purchase" in counted("state", "dump", "--as-of", "2023-12-31T00:00:00Z").error
    )


def test_the_dump_is_sorted_by_code_points(counted: Cli) -> None:
    lines = [json.loads(line) for line in counted("state", "dump", "--json").ok.splitlines()]
    ids = [line["customer_id"] for line in lines]
    assert ids == sorted(set(ids))
    # UTF-16 would have them the other way round.
    assert ids.index("\uffee") < ids.index("\U0001f600")
    assert all(list(line) == KEYS for line in lines)
    table = counted("state", "dump").ok.splitlines()
    assert table[0].split()[:2] == ["customer", "tier"]
    assert len(table) == len(ids) + 1


def test_another_program_or_prefix_is_refused(counted: Cli, tmp_path: Path) -> None:
    error = counted("customer", "900", "--redis-prefix", "other").error
    assert "no worker has begun a store" in error
    other = tmp_path / "other.toml"
    other.write_text(
        Path(counted.env["KIZUNA_PROGRAM"]).read_text().replace('id = "grocery"', 'id = "other"')
    )
    assert "was built for program 'grocery'" in counted("state", "dump", "--program", other).error


def test_tail_shows_the_tier_changes(counted: Cli) -> None:
    def shown() -> list[str]:
        found = counted("tail", "tier-changes", "--no-follow").ok.splitlines()
        return [line for line in found if "  900  " in line]

    (line,) = wait_until(shown)
    assert line.split() == ["2024-01-05T10:00:00Z", "900", "member", "→", "silver", "purchase"]
    for topic in ("tier-changes", "customer-tiers"):
        records = map(json.loads, counted("tail", topic, "--no-follow", "--json").ok.splitlines())
        (change,) = [record for record in records if record["key"] == "900"]
        assert change["value"]["tier"] == "silver"
        assert change["headers"]["ce_id"] == "grocery/900/1"


def test_what_could_not_be_used_is_repaired_and_counted(
    counted: Cli, orders_of: Callable[[str], int]
) -> None:
    assert counted("publish", "-", stdin=purchase("s9", "repaired", currency="GBP")).ok

    def listed() -> Any:
        lines = counted("dead-letters", "list", "--reason", "unsupported_currency", "--json").ok.splitlines()
        return [found for found in map(json.loads, lines) if found["key"] == "repaired"]

    (letter,) = wait_until(listed)
    assert letter["topic"] == "loyalty.purchases"
    one = ("--topic", "purchases", "--partition", str(letter["partition"]), "--offset", str(letter["offset"]))
    assert orders_of("repaired") == 0
    replayed = counted("dead-letters", "replay", *one, "--yes", "--edit-with", "sed s/GBP/USD/")
    assert replayed.ok == "1 dead letter sent back: 1 to loyalty.purchases\n"
    wait_until(lambda: orders_of("repaired") == 1)
