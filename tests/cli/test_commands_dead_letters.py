"""`kizuna dead-letters`, on dead letters of every kind."""

import asyncio
import json
import os
import subprocess
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from cli.local_stack import LocalStack
from schemas.dead_letter import Headers, dead_letter_headers, fit
from schemas.murmur2 import home
from schemas.rejection import Reason
from tests.cli.conftest import KIZUNA, PARTITIONS, Cli
from tests.cli.shop import records

Letter = tuple[bytes | None, bytes | None, Headers]

_prefixes = count()


@pytest.fixture
def fresh(kizuna: Cli) -> Cli:
    """`kizuna` on topics of the test's own."""
    found = Cli(kizuna.env | {"KIZUNA_TOPIC_PREFIX": f"dead{next(_prefixes)}."})
    assert found("topics", "create", "--partitions", str(PARTITIONS)).ok
    return found


@pytest.fixture
def bury(fresh: Cli, stack: LocalStack) -> Callable[[list[Letter]], None]:
    """Write dead letters as the worker does."""

    async def write(letters: list[Letter]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=stack.brokers) as producer:
            for key, value, headers in letters:
                batch = producer.create_batch()
                batch.append(timestamp=None, key=key, value=value, headers=headers)
                batch.close()
                partition = 0 if key is None else home(key, PARTITIONS)
                topic = fresh.env["KIZUNA_TOPIC_PREFIX"] + "dead-letters"
                await (await producer.send_batch(batch, topic, partition=partition))

    return lambda letters: asyncio.run(write(letters))


def letter(
    fresh: Cli,
    key: bytes | None,
    value: bytes | None,
    headers: Headers | None = None,
    reason: Reason = Reason.NOT_JSON,
    topic: str = "purchases",
    place: tuple[int, int] = (1, 17),
) -> Letter:
    name = fresh.env["KIZUNA_TOPIC_PREFIX"] + topic
    return key, value, dead_letter_headers(headers or [], reason, "value: expected JSON", name, *place, 1_000)


def test_list_tells_when_why_and_where(fresh: Cli, bury: Any) -> None:
    prefix = fresh.env["KIZUNA_TOPIC_PREFIX"]
    bury(
        [
            letter(fresh, b"900", b"{", [("trace", b"7"), ("loyalty-rerouted", b"1")]),
            letter(fresh, None, None, reason=Reason.INVALID_EVENT, topic="touchpoints", place=(0, 3)),
        ]
    )

    done = fresh("dead-letters", "list")
    assert f"not_json              {prefix}purchases[1]@17  key 900  value: expected JSON" in done.ok
    assert done.err == "2 dead letters: 1 invalid_event, 1 not_json\n"

    (found,) = map(
        json.loads, fresh("dead-letters", "list", "--topic", "purchases", "--json").ok.splitlines()
    )
    assert found.pop("dead_letter").keys() == {"partition", "offset", "timestamp"}
    assert found == {
        "reason": "not_json",
        "detail": "value: expected JSON",
        "topic": f"{prefix}purchases",
        "partition": 1,
        "offset": 17,
        "timestamp": "1970-01-01T00:00:01.000Z",
        "cut": False,
        "key": "900",
        "headers": {"trace": "7"},
        "value": "{",
    }
    for choice, number in (
        (("--reason", "invalid_event"), 1),
        (("--reason", "too_late"), 0),
        (("--limit", "1"), 1),
        (("--since", "1h"), 2),
        (("--since", "2100-01-01T00:00:00Z"), 0),
        (("--topic", "purchases", "--partition", "1", "--offset", "17"), 1),
        (("--topic", "purchases", "--partition", "1", "--offset", "18"), 0),
    ):
        assert len(fresh("dead-letters", "list", *choice, "--json").ok.splitlines()) == number
    assert "invalid_event" in fresh("tail", "dead-letters", "--no-follow").ok


def test_replay_sends_back_the_record_as_it_was(fresh: Cli, bury: Any, stack: LocalStack) -> None:
    own: Headers = [("trace", b"7"), ("empty", None), ("dlq-reason", b"a shop's own"), ("trace", b"8")]
    bury(
        [
            letter(fresh, b"900", b"{", [*own, ("loyalty-rerouted", b"1")]),
            letter(fresh, None, b"x", place=(3, 5)),
            letter(fresh, None, None, place=(1, 5)),
            # A worker that was set back wrote it twice.
            letter(fresh, b"900", b"{", [*own, ("loyalty-rerouted", b"1")]),
        ]
    )

    done = fresh("dead-letters", "replay", "--all", "--yes", "--json")

    topic = f"{fresh.env['KIZUNA_TOPIC_PREFIX']}purchases"
    assert json.loads(done.ok) == {
        "dry_run": False,
        "sent": 3,
        "topics": {topic: 3},
        "left_out": 0,
        "impossible": [],
    }
    found = {record.partition: record for record in records(stack, topic, 3)}
    back = found[home(b"900", PARTITIONS)]
    assert (back.key, back.value) == (b"900", b"{")
    assert back.headers == [("trace", b"7"), ("empty", None), ("trace", b"8")]
    assert (found[3].key, found[3].value) == (None, b"x")
    assert (found[1].key, found[1].value, found[1].headers) == (None, None, [])


def test_replay_takes_what_was_chosen_and_nothing_else(fresh: Cli, bury: Any, stack: LocalStack) -> None:
    bury([letter(fresh, b"900", b"%d" % offset, place=(1, offset)) for offset in range(3)])
    one = ("--topic", "purchases", "--partition", "1", "--offset", "1")

    dry = fresh("dead-letters", "replay", *one, "--dry-run")
    assert dry.ok.splitlines()[-1].startswith("1 dead letter would be sent back")
    assert "purchases[1]@1 " in dry.ok
    asked = fresh("dead-letters", "replay", *one)
    assert asked.error == "1 dead letter would be sent back: say --yes, or --dry-run to see what"
    assert fresh("dead-letters", "replay", *one, "--yes").ok.startswith("1 dead letter sent back")
    assert fresh("dead-letters", "replay", "--reason", "too_late", "--yes").ok == "0 dead letters sent back\n"

    (record,) = records(stack, f"{fresh.env['KIZUNA_TOPIC_PREFIX']}purchases", 1)
    assert record.value == b"1"
    error = fresh("dead-letters", "replay", *one[:-1], "9", "--yes").error
    assert error.startswith("there is no dead letter of")


def test_replay_skips_what_it_cannot_send_and_says_so(fresh: Cli, bury: Any, stack: LocalStack) -> None:
    prefix = fresh.env["KIZUNA_TOPIC_PREFIX"]
    key, value, headers = letter(fresh, b"900", b"a" * 100_000, reason=Reason.TOO_LARGE, place=(1, 1))
    cut = fit(key, value, headers, 80_000)
    assert cut[1] != value
    bury(
        [
            cut,
            letter(fresh, b"900", b"ok", place=(1, 2)),
            letter(fresh, b"1", b"x", topic="elsewhere"),
            (b"1", b"x", []),
        ]
    )

    done = fresh("dead-letters", "replay", "--all", "--yes")

    assert done.code == 1
    assert done.out.startswith(f"1 dead letter sent back: 1 to {prefix}purchases")
    assert f"{prefix}purchases[1]@1: it was too large to be kept whole, and cannot be sent back" in done.err
    assert f"its topic '{prefix}elsewhere' is no input here" in done.err
    assert "it names no topic" in done.err
    assert done.err.endswith("Error: 3 dead letters cannot be sent back\n")
    (record,) = records(stack, f"{prefix}purchases", 1)
    assert record.value == b"ok"
    listed = fresh("dead-letters", "list", "--reason", "too_large", "--json").ok
    assert json.loads(listed)["cut"] is True


def test_replay_repairs_with_a_command(fresh: Cli, bury: Any, stack: LocalStack) -> None:
    bury(
        [letter(fresh, b"900", value, place=(1, i)) for i, value in enumerate((b"GBP 1", b"drop", b"GBP 2"))]
    )
    edit = ("--edit-with", "sed -e /drop/d -e s/GBP/USD/")

    assert "becomes USD 1" in fresh("dead-letters", "replay", "--all", "--dry-run", *edit).ok
    done = fresh("dead-letters", "replay", "--all", "--yes", *edit)

    assert done.ok.endswith("; 1 left out by sed\n")
    found = records(stack, f"{fresh.env['KIZUNA_TOPIC_PREFIX']}purchases", 2)
    assert [record.value for record in found] == [b"USD 1", b"USD 2"]
    for wrong, said in (
        ("false", "false ended with 1"),
        ("/nope", "/nope cannot be run"),
        ("sed '", "quotation"),
    ):
        assert said in fresh("dead-letters", "replay", "--all", "--yes", "--edit-with", wrong).error


def test_replay_asks_on_a_terminal(fresh: Cli, bury: Any, stack: LocalStack) -> None:
    bury([letter(fresh, b"900", b"x")])

    def answered(answer: bytes) -> tuple[int, bytes]:
        main, child = os.openpty()
        process = subprocess.Popen(
            [KIZUNA, "dead-letters", "replay", "--all"],
            stdin=child,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=fresh.env,
            start_new_session=True,
        )
        os.close(child)
        os.write(main, answer)
        out, err = process.communicate(timeout=200)
        os.close(main)
        assert b"Send 1 dead letter back? [y/N]" in err
        return process.returncode, out

    assert answered(b"n\n") == (0, b"")
    assert answered(b"y\n")[1].startswith(b"1 dead letter sent back")
    assert len(records(stack, f"{fresh.env['KIZUNA_TOPIC_PREFIX']}purchases", 1)) == 1


def test_many_go_back_in_their_order(fresh: Cli, bury: Any, stack: LocalStack) -> None:
    bury([letter(fresh, b"900", b"%05d" % i + b"." * 3_000, place=(1, i)) for i in range(1_200)])
    began = time.monotonic()
    assert fresh("dead-letters", "replay", "--all", "--yes").ok.startswith("1,200 dead letters sent back")
    assert time.monotonic() - began < 20
    found = records(stack, f"{fresh.env['KIZUNA_TOPIC_PREFIX']}purchases", 1_200)
    assert [int(record.value[:5]) for record in found] == list(range(1_200))
