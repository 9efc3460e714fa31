"""What holds for all commands, and program check and topics create."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ROOT, Cli, Done
from tests.cli.shop import GROCERY, LOYAL

COMMANDS = (
    (),
    ("local", "up"),
    ("topics", "create"),
    ("program", "check"),
    ("program", "apply"),
    ("worker",),
    ("publish",),
    ("tail",),
    ("customer",),
    ("state", "dump"),
    ("outbox", "show"),
    ("outbox", "release"),
    ("outbox", "drop"),
    ("dead-letters", "list"),
    ("dead-letters", "replay"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(offline: Cli, command: tuple[str, ...]) -> None:
    printed = offline(*command, "--help").ok
    assert printed.startswith(f"Usage: kizuna {' '.join(command)}".rstrip())
    assert command[:1] in {("worker",), ("local",), ()} or "--json" in printed


@pytest.mark.parametrize("command", ["why", "override"])
def test_the_commands_about_one_customer_have_help(offline: Cli, command: str) -> None:
    printed = offline("customer", "900", command, "--help").ok
    assert printed.startswith(f"Usage: kizuna customer ID {command} [OPTIONS]")
    assert "--json" in printed
    assert offline("customer", command, "--help").ok == printed


def test_the_first_help_shows_every_command_and_the_first_steps(offline: Cli) -> None:
    printed = offline("--help").ok
    assert all(command[0] in printed for command in COMMANDS[1:])
    assert "kizuna worker --program examples/grocery.toml" in printed


@pytest.mark.parametrize(
    "wrong",
    [
        ("--nope",),
        ("nope",),
        ("customer",),
        ("customer", "900", "--as-of", "yesterday"),
        ("customer", "900", "nope"),
        ("customer", "900", "why", "why"),
        ("customer", "900", "override", "pin", "--reason", "x"),
        ("customer", "900", "override", "pin", "gold", "--reason", "x"),
        ("customer", "900", "override", "clear", "gold", "--reason", "x"),
        ("customer", "900", "override", "pin", "gold", "--until", "30d"),
        ("customer", "900", "override", "pin", "gold", "--until", "soon", "--reason", "x"),
        ("program", "apply"),
        ("program", "apply", "program.toml", "--protect-until", "30d"),
        ("outbox", "drop"),
        ("outbox", "drop", "--keep-until", "2020-01-01T00:00:00Z", "--clock", "wall"),
        ("outbox", "release", "--partition", "all"),
        ("publish", "-", "--topic", "tier-changes"),
        ("tail", "nope"),
        ("tail", "purchases", "--limit", "0"),
        ("topics", "create", "--retention", "forever"),
        ("dead-letters", "list", "--since", "soon"),
        ("dead-letters", "list", "--offset", "3"),
        ("dead-letters", "replay"),
        ("dead-letters", "replay", "--all", "--reason", "misrouted"),
        ("worker", "--web-port", "70000"),
    ],
    ids=" ".join,
)
def test_a_wrong_use_is_one_line_and_names_the_help(offline: Cli, wrong: tuple[str, ...]) -> None:
    done = offline(*wrong)
    assert done.error.endswith("--help)")
    assert done.code == 2


def test_without_kafka_every_command_says_so_within_seconds(offline: Cli) -> None:
    commands = (
        ("topics", "create"),
        ("publish", "-"),
        ("tail", "tier-changes"),
        ("dead-letters", "list"),
        ("dead-letters", "replay", "--all"),
        ("customer", "900", "override", "clear", "--reason", "x", "--program", str(GROCERY)),
    )
    began = time.monotonic()
    for process in [offline.start(*command) for command in commands]:
        out, err = process.communicate(timeout=20)
        said = Done(process.returncode, out, err).error
        assert said.startswith(f"no Kafka broker answers at {offline.env['KIZUNA_BROKERS']}")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    "command",
    [("customer", "900"), ("customer", "900", "why"), ("state", "dump"), ("outbox", "show")],
    ids=" ".join,
)
def test_without_redis_it_says_so(offline: Cli, command: tuple[str, ...]) -> None:
    url = offline.env["KIZUNA_REDIS_URL"].replace("//", "//user:secret@")
    error = offline(*command, "--redis-url", url, KIZUNA_PROGRAM=str(GROCERY)).error
    assert error.startswith("no Redis answers at redis://user:***@")
    assert "secret" not in error


def test_without_redis_no_program_is_applied(offline: Cli) -> None:
    url = offline.env["KIZUNA_REDIS_URL"].replace("//", "//user:secret@")
    error = offline("program", "apply", GROCERY, "--redis-url", url).error
    assert "Redis" in error
    assert "secret" not in error


def test_a_setting_that_cannot_be_is_one_line(offline: Cli) -> None:
    assert "KIZUNA_BROKERS" in offline("tail", "purchases", KIZUNA_BROKERS=" , ").error
    assert "KIZUNA_CLOCK" in offline("customer", "900", KIZUNA_CLOCK="sundial").error
    assert "cannot be read" in offline("customer", "900", "--program", "nope.toml").error
    error = offline("customer", "900", "--program", GROCERY, "--redis-url", "nope").error
    assert error.startswith("no Redis can be at nope")


# --- program check


def test_program_check_prints_what_the_file_means(offline: Cli) -> None:
    printed = json.loads(offline("program", "check", GROCERY, "--json").ok)
    assert printed["id"] == "grocery"
    assert len(printed["version"]) == 16
    assert [tier["name"] for tier in printed["tiers"]] == ["member", "silver", "gold"]
    assert printed["tiers"][0] == {
        "name": "member",
        "min_monetary": None,
        "min_frequency": None,
        "max_recency": None,
        "retain_monetary": None,
        "retain_frequency": None,
        "grace_period": "0s",
        "downgrade": "requalify",
        "refund_policy": "reverse",
        "benefits": [],
    }
    assert printed["protect_until"] is None
    text = offline("program", "check", GROCERY).ok
    assert printed["version"] in text
    assert "silver: at least 200.00 USD, at least 5 orders" in text
    assert "to stay" not in text


def test_program_check_prints_what_it_takes_to_stay(offline: Cli, tmp_path: Path) -> None:
    file = tmp_path / "program.toml"
    file.write_text(
        GROCERY.read_text()
        .replace('max_future = "5m"', 'max_future = "5m"\nprotect_until = 2027-01-01T00:00:00Z')
        .replace(
            "min_frequency = 5\n",
            'min_frequency = 5\nretain_monetary = "150.00"\nretain_frequency = 0\ngrace_period = "14d"\n'
            'benefits = ["free delivery"]\n',
        )
        .replace(
            'max_recency = "60d"', 'max_recency = "60d"\ndowngrade = "one_down"\nrefund_policy = "grace"'
        )
    )
    printed = json.loads(offline("program", "check", file, "--json").ok)
    assert printed["protect_until"] == "2027-01-01T00:00:00.000Z"
    _, silver, gold = printed["tiers"]
    assert (silver["retain_monetary"], silver["retain_frequency"]) == ("150.00", None)
    assert (silver["grace_period"], silver["benefits"]) == ("14d", ["free delivery"])
    assert (gold["retain_monetary"], gold["retain_frequency"]) == ("800.00", 15)
    assert (gold["downgrade"], gold["refund_policy"]) == ("one_down", "grace")
    lines = [line.strip() for line in offline("program", "check", file).ok.splitlines()]
    assert "to stay: at least 150.00 USD" in lines
    assert "who no longer qualifies: 14d of grace" in lines
    assert "gives: free delivery" in lines
    assert "who no longer qualifies: then down one tier, refunds are given grace, too" in lines


def test_program_check_prints_what_bonds_ask_for(offline: Cli) -> None:
    text = offline("program", "check", LOYAL).ok
    reference = (ROOT / "docs" / "commands.md").read_text("utf-8")
    block = reference[reference.index("check examples/loyal.toml") :].split("```")[0]
    shown = block.splitlines()[2:]
    assert len(shown) == 6
    assert [line for line in shown if line not in text.splitlines()] == []
    for line in ("email: at most 1 in a local day", "call: never", "regular: everyone else", "at any time: "):
        assert line in text
    assert "bonds" not in json.loads(offline("program", "check", GROCERY, "--json").ok)


def test_program_check_prints_bonds_in_the_files_own_terms(offline: Cli, tmp_path: Path) -> None:
    printed = json.loads(offline("program", "check", LOYAL, "--json").ok)["bonds"]
    file = tmp_path / "again.toml"
    program = LOYAL.read_text()
    file.write_text(program[: program.index("[attachment]")] + as_toml(printed))
    # Whoever writes what is printed into a file has the same program.
    again, first = (json.loads(offline("program", "check", f, "--json").ok) for f in (file, LOYAL))
    assert again == first


def as_toml(sections: dict[str, Any]) -> str:
    """Sections as inline values, without what is null."""

    def value(content: Any) -> str:
        if isinstance(content, dict):
            inner = (f"{key} = {value(item)}" for key, item in content.items() if item is not None)
            return f"{{{', '.join(inner)}}}"
        if isinstance(content, list):
            return f"[{', '.join(map(value, content))}]"
        return json.dumps(content)

    tables = []
    for name, content in sections.items():
        for table in content if isinstance(content, list) else [content]:
            head = f"[[{name}]]" if isinstance(content, list) else f"[{name}]"
            lines = [f"{key} = {value(item)}" for key, item in table.items() if item is not None]
            tables.append("\n".join((head, *lines)))
    return "\n".join(tables)


def test_program_check_names_the_key_that_is_wrong(offline: Cli, tmp_path: Path) -> None:
    file = tmp_path / "program.toml"
    file.write_text(GROCERY.read_text().replace('currency = "USD"', 'currency = "Taler"'))
    assert "program.currency" in offline("program", "check", file).error
    assert "cannot be read" in offline("program", "check", tmp_path / "none.toml").error


# --- topics create


def test_topics_create_makes_what_is_missing_and_checks_the_rest(kizuna: Cli) -> None:
    made = json.loads(kizuna("topics", "create", "--topic-prefix", "made.", "--partitions", "2", "--json").ok)
    assert "made.purchases" in made["created"]
    assert set(made["partitions"].values()) == {2}
    assert made["faults"] == []
    again = kizuna("topics", "create", "--topic-prefix", "made.").ok
    assert "made.purchases" in again
    assert "created" not in again
    other = kizuna("topics", "create", "--topic-prefix", "made.", "--partitions", "3")
    assert other.code == 1
    assert "topic made.purchases has 2 partitions, not 3" in other.err


def test_topics_create_says_what_the_broker_refused(kizuna: Cli) -> None:
    error = kizuna("topics", "create", "--topic-prefix", "three.", "--replication", "3").error
    assert "replication factor of 3 cannot be reached" in error
    assert "CreateTopicsRequest" not in error
