"""`kizuna publish`."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from cli.local_stack import LocalStack
from schemas.murmur2 import home
from tests.cli.conftest import KIZUNA, PARTITIONS, Cli, wait_until
from tests.cli.shop import purchase, records


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
    out, _ = process.communicate(lines.encode(), timeout=200)
    reader.join()
    os.close(main)
    assert process.returncode == 0
    assert b"20,000 records sent" in out
    assert b"records, " in b"".join(shown)


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
