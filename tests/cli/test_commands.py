"""What holds for all commands, and those that need no worker: publish, tail, program check, topics create."""

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from cli.local_stack import LocalStack
from schemas.example_files import OutputExample, output_examples
from streams.placement import home
from streams.topics import ATTRIBUTIONS, NURTURING_TRIGGERS, SEGMENT_CHANGES
from tests.cli.conftest import KIZUNA, PARTITIONS, ROOT, Cli, Done, wait_until

GROCERY = ROOT / "examples" / "grocery.toml"
LOYAL = ROOT / "examples" / "loyal.toml"


def purchase(event_id: str, customer_id: str, **given: Any) -> str:
    return json.dumps(
        {
            "event_id": event_id,
            "type": "purchase",
            "customer_id": customer_id,
            "occurred_at": "2024-01-05T10:00:00Z",
            "order_id": event_id,
            "amount": "5.00",
            "currency": "USD",
            **given,
        }
    )


@pytest.fixture(scope="session")
def quiet(kizuna: Cli) -> Cli:
    """`kizuna` on topics that no worker reads."""
    found = Cli(kizuna.env | {"KIZUNA_TOPIC_PREFIX": "quiet."})
    assert found("topics", "create", "--partitions", str(PARTITIONS)).ok
    return found


def records(stack: LocalStack, topic: str, count: int) -> list[Any]:
    """All records of a topic, which are so many."""
    consumer = KafkaConsumer(
        bootstrap_servers=stack.brokers, auto_offset_reset="earliest", consumer_timeout_ms=20_000
    )
    consumer.assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
    found = [next(consumer) for _ in range(count)]
    assert sum(consumer.end_offsets(list(consumer.assignment())).values()) == count
    consumer.close()
    return found


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


# --- publish


def test_publish_sends_the_lines_as_they_are_to_their_customers_partition(
    kizuna: Cli, stack: LocalStack, tmp_path: Path
) -> None:
    assert kizuna("topics", "create", "--topic-prefix", "sent.", "--partitions", str(PARTITIONS)).ok
    lines = [purchase(f"e{i}", f"客{i}") for i in range(20)]
    lines[3] = lines[3].replace('"5.00"', "5.0e0").replace(": ", ":   ")
    odd = ["not json", "[]", '{"customer_id": 7}', '{"customer_id": ""}', '{"customer_id": "\\ud800"}']
    file = tmp_path / "events.jsonl"
    file.write_text("\n\n".join([*lines, *odd]) + "\r\n  \n")

    done = kizuna("publish", file, "--topic-prefix", "sent.", "--json")

    told = json.loads(done.ok)
    assert (told["topic"], told["records"], told["without_customer_id"]) == ("sent.purchases", 25, 5)
    assert "5 lines without a customer_id" in done.err
    found = records(stack, "sent.purchases", 25)
    assert sorted(record.value.decode() for record in found) == sorted([*lines, *odd])
    for record in found:
        key = json.loads(record.value)["customer_id"].encode() if record.value.decode() in lines else None
        assert record.key == key
        assert key is None or record.partition == home(key, PARTITIONS)


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "snappy", "zstd"])
def test_publish_reads_standard_input_and_compresses(quiet: Cli, compression: str) -> None:
    line = json.dumps({"type": "touchpoint", "customer_id": "900"})
    done = quiet("publish", "-", "--topic", "touchpoints", "--compression", compression, stdin=line)
    assert done.ok.startswith("1 record sent to quiet.touchpoints in ")
    assert done.err == ""


def test_publish_of_nothing_is_no_failure(quiet: Cli) -> None:
    assert quiet("publish", "-").ok.startswith("0 records sent")


def test_publish_says_which_line_could_not_be_delivered(quiet: Cli) -> None:
    good = json.dumps({"customer_id": "900"})
    for size in (2_000_000, 5_000_000):
        error = quiet("publish", "-", stdin=f"{good}\n{'a' * size}\n{good}\n").error
        assert error.startswith("line 2 could not be delivered")
        assert "everything up to line 1 is in Kafka" in error


def test_publish_says_what_is_missing(kizuna: Cli, tmp_path: Path) -> None:
    assert (
        kizuna("publish", tmp_path / "none").error
        == f"{tmp_path}/none: cannot be read (No such file or directory)"
    )
    assert "Is a directory" in kizuna("publish", tmp_path).error
    error = kizuna("publish", "-", "--topic-prefix", "missing.").error
    assert error == "topic missing.purchases is missing (kizuna topics create)"


def test_publish_shows_progress_on_a_terminal(quiet: Cli) -> None:
    main, child = os.openpty()
    lines = "\n".join(json.dumps({"customer_id": f"c{i}"}) for i in range(20_000))
    process = subprocess.Popen(
        [KIZUNA, "publish", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=child,
        env=quiet.env | {"TERM": "xterm"},
    )
    os.close(child)
    shown: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(main, 4096):
                shown.append(part)
        except OSError:  # the other end is closed
            return

    reader = threading.Thread(target=read)
    reader.start()
    out, _ = process.communicate(lines.encode(), timeout=60)
    reader.join()
    os.close(main)
    assert process.returncode == 0
    assert b"20,000 records sent" in out
    assert b"records, " in b"".join(shown)


# --- tail


def test_tail_follows_until_ctrl_c(quiet: Cli) -> None:
    process = quiet.start("tail", "purchases", "--json")
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stderr.readline() == "following quiet.purchases, Ctrl-C ends it\n"
    assert quiet("publish", "-", stdin=purchase("tail-1", "佐藤", amount=1.50)).ok

    record = json.loads(process.stdout.readline())

    assert record["value"]["event_id"] == "tail-1"
    assert record["key"] == "佐藤"
    assert (record["topic"], record["partition"]) == ("quiet.purchases", home("佐藤".encode(), PARTITIONS))
    assert list(record) == ["topic", "partition", "offset", "timestamp", "key", "headers", "value"]
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 130


def test_tail_shows_any_record_and_no_aborted_one(kizuna: Cli, stack: LocalStack) -> None:
    assert kizuna("topics", "create", "--topic-prefix", "odd.", "--partitions", "1").ok
    producer = KafkaProducer(bootstrap_servers=stack.brokers, transactional_id="shop")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send("odd.purchases", b'{"aborted": true}')
    producer.flush()
    producer.abort_transaction()
    producer.begin_transaction()
    producer.send("odd.purchases", b'{"a":\n 1.10}', headers=[("h", b"1"), ("h", b"2"), ("\u00e9", b"\xff")])
    producer.send("odd.purchases", b"\x1b[31mtext", key=b"\xff")
    producer.send("odd.purchases", None, key=b"k")
    producer.send("odd.purchases", b"NaN")
    producer.flush()
    producer.commit_transaction()
    producer.close()

    lines = kizuna("tail", "purchases", "--topic-prefix", "odd.", "--no-follow", "--json").ok.splitlines()

    found = [json.loads(line) for line in lines]
    assert [record["value"] for record in found] == [{"a": 1.1}, "\x1b[31mtext", None, "NaN"]
    assert lines[0].endswith('"value": {"a":  1.10}}')
    assert found[0]["headers"] == {"h": ["1", "2"], "é": {"base64": "/w=="}}
    assert [record["key"] for record in found] == [None, {"base64": "/w=="}, "k", None]
    text = kizuna("tail", "purchases", "--topic-prefix", "odd.", "--no-follow").ok
    assert "\x1b" not in text
    assert "\\x1b[31mtext" in text


def test_tail_tells_the_three_kinds_of_tier_changes_apart(kizuna: Cli, stack: LocalStack) -> None:
    assert kizuna("topics", "create", "--topic-prefix", "kinds.", "--partitions", "1").ok
    body = {
        "customer_id": "900",
        "previous_tier": "gold",
        "tier": "gold",
        "reason": "window_expiry",
        "effective_at": "2024-01-05T10:00:00.000Z",
    }
    until = {"at_risk_until": "2024-02-05T10:00:00.000Z"}
    changed = {"tier": "silver", "direction": "downgrade"}
    producer = KafkaProducer(bootstrap_servers=stack.brokers)
    for given, kind in (
        (until, b"loyalty.tier.at-risk.v1"),
        (until, None),
        ({}, b"loyalty.tier.retained.v1"),
        ({}, None),
        (changed, b"loyalty.tier.changed.v1"),
        (changed, None),
    ):
        headers = [] if kind is None else [("ce_type", kind)]
        producer.send("kinds.tier-changes", json.dumps(body | given).encode(), b"900", headers=headers)
    producer.close()

    lines = kizuna("tail", "tier-changes", "--topic-prefix", "kinds.", "--no-follow").ok.splitlines()

    at = "2024-01-05T10:00:00Z  900           "
    at_risk = f"{at}gold at risk until 2024-02-05T10:00:00Z  window_expiry"
    retained = f"{at}gold retained  window_expiry"
    fell = f"{at}gold → silver  window_expiry"
    assert lines == [at_risk, at_risk, retained, retained, fell, fell]
    found = kizuna(
        "tail", "tier-changes", "--topic-prefix", "kinds.", "--no-follow", "--json"
    ).ok.splitlines()
    assert [json.loads(line)["value"] for line in found[::2]] == [body | until, body, body | changed]


@pytest.mark.parametrize(
    ("topic", "ce_type", "names"),
    [
        (SEGMENT_CHANGES, "loyalty.segment.changed.v1", ["first", "", "by-time"]),
        (NURTURING_TRIGGERS, "loyalty.nurturing.triggered.v1", ["", "suppressed", "held-out", "reserved"]),
        (ATTRIBUTIONS, "loyalty.attribution.changed.v1", ["", "withdrawn", "of-a-visit"]),
    ],
)
def test_tail_tells_of_bonds(
    kizuna: Cli, stack: LocalStack, topic: str, ce_type: str, names: list[str]
) -> None:
    """The records are the published examples; those of the command reference are shown as it shows them."""
    prefix = f"tail-{topic}."
    assert kizuna("topics", "create", "--topic-prefix", prefix, "--partitions", "1").ok
    examples = {example.name: example for example in output_examples() if example.ce_type == ce_type}
    shown = [examples["-".join(filter(None, (only(examples).schema, name)))].value for name in names]
    assert len(shown) == len(examples)
    producer = KafkaProducer(bootstrap_servers=stack.brokers)
    for value in shown:
        producer.send(prefix + topic, json.dumps(value).encode(), b"900")
    # What cannot be told is shown as it is.
    for other in (b'{"customer_id": "900"}', b"\x1b[31m", None, b"[1]"):
        producer.send(prefix + topic, other, b"900")
    producer.close()

    lines = kizuna("tail", topic, "--topic-prefix", prefix, "--no-follow").ok.splitlines()

    assert lines[: len(shown)] == BONDS_TOLD[topic]
    assert [line.split("  ")[-1] for line in lines[len(shown) :]] == [
        *('{"customer_id": "900"}', "\\x1b[31m", "-", "[1]")
    ]
    found = kizuna("tail", topic, "--topic-prefix", prefix, "--no-follow", "--json").ok.splitlines()
    assert [json.loads(line)["value"] for line in found[: len(shown)]] == shown


def only(examples: dict[str, OutputExample]) -> OutputExample:
    (found,) = [example for example in examples.values() if example.name == example.schema]
    return found


BONDS_TOLD = {
    SEGMENT_CHANGES: [
        "2017-04-02T11:53:26Z  901           → first_time  purchase  value 3, attachment 0",
        "2017-04-20T18:02:11Z  900           spender → loyal  touchpoint  value 9, attachment 14",
        "2017-07-02T11:53:26Z  901           first_time → dormant  time  value 3, attachment 0",
    ],
    NURTURING_TRIGGERS: [
        "2017-05-01T09:00:00Z  900           sent by email: come-back 1/2, we-miss-you",
        "2017-05-15T09:00:00Z  900           suppressed by mail: come-back 2/2, coupon-come-back"
        "  cap: mail, 2 within 28d",
        "2017-05-01T09:00:00Z  902           held_out by email: come-back 1/2, we-miss-you  holdout: scenario",
        "2017-05-20T14:30:00Z  900           reserved by call: a contact",
    ],
    ATTRIBUTIONS: [
        "2017-05-03T17:02:41Z  900           order 31198570921 in store 318  38.20 USD"
        "  2d 8h after email mail-5512  window",
        "2017-05-06T10:11:00Z  900           order 31198570921 in store 318  withdrawn",
        "2017-06-10T00:00:00Z  900           visit  19d 0h after mail mail-18-900  campaign",
    ],
}


def test_the_command_reference_shows_what_tail_shows_of_bonds() -> None:
    reference = (ROOT / "docs" / "commands.md").read_text("utf-8")
    for lines in BONDS_TOLD.values():
        assert sum(line in reference for line in lines) >= 2


def test_tail_ends_after_the_limit_or_where_the_topic_ends(quiet: Cli) -> None:
    lines = "\n".join(json.dumps({"type": "touchpoint", "customer_id": f"l{i}"}) for i in range(5))
    assert quiet("publish", "-", "--topic", "touchpoints", stdin=lines).ok
    assert len(quiet("tail", "touchpoints", "--from-beginning", "--limit", "2").ok.splitlines()) == 2
    assert quiet("tail", "tier-changes", "--no-follow").ok == ""


def test_a_reader_that_goes_away_is_no_error(quiet: Cli) -> None:
    lines = "\n".join(json.dumps({"customer_id": f"c{i}"}) for i in range(5_000))
    assert quiet("publish", "-", stdin=lines).ok
    with quiet.start("tail", "purchases", "--from-beginning", "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == "following quiet.purchases, Ctrl-C ends it\n"


def test_tail_says_what_is_missing(kizuna: Cli) -> None:
    error = kizuna("tail", "tier-changes", "--topic-prefix", "missing.").error
    assert error == "topic missing.tier-changes is missing (kizuna topics create)"


def test_ctrl_c_while_it_sends_is_told_and_no_traceback(quiet: Cli, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = quiet.start("publish", pipe)
    with pipe.open("w") as lines:
        lines.write(json.dumps({"customer_id": "interrupted"}) + "\n" * 10_000)
        lines.flush()
        wait_until(lambda: "interrupted" in quiet("tail", "purchases", "--no-follow", "--json").ok)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.startswith("interrupted: ")
    assert err.count("\n") == 1
