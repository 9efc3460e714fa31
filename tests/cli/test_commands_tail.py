"""`kizuna tail`."""

import json
import signal

import pytest
from kafka import KafkaProducer

from cli.local_stack import LocalStack
from schemas.example_files import OutputExample, output_examples
from schemas.murmur2 import home
from streams.topics import ATTRIBUTIONS, NURTURING_TRIGGERS, SEGMENT_CHANGES
from tests.cli.conftest import PARTITIONS, ROOT, Cli
from tests.cli.shop import purchase


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
