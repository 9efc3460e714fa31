"""`python -m cli.demo`: two months of the year through real servers and a real worker, whatever happens."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.demo.data import events
from cli.local_jars import ROOT
from streams.protocols import PURCHASES, TOUCHPOINTS

Started = subprocess.Popen[str]


class Demo:
    """Starts the demo, and finds what it has started: its TMPDIR tells, all of it lies below."""

    def __init__(self, place: Path) -> None:
        self.output = place / "output"
        self.tmp = place / "tmp"
        self.tmp.mkdir()
        self._started: list[Started] = []

    def start(self, *options: str) -> Started:
        command = [sys.executable, "-m", "cli.demo", "--months", "2", "--output", str(self.output), *options]
        process = subprocess.Popen(
            command,
            env=os.environ | {"TMPDIR": str(self.tmp)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def running(self) -> dict[int, str]:
        """Command lines by process id."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                # The worker's own TMPDIR lies below the demo's.
                if f"TMPDIR={self.tmp}".encode() in (process / "environ").read_bytes():
                    found[int(process.name)] = (
                        (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    )
            except OSError:  # it has ended, or is another user's
                continue
        return found

    def worker(self, demo: Started) -> int:
        """The worker's process id, once it has read something."""
        until = time.monotonic() + 120
        while time.monotonic() < until and demo.poll() is None:
            workers = [pid for pid, command in self.running().items() if command.endswith("kizuna worker ")]
            log = self.output / "worker.log"
            if workers and log.exists() and "took over" in log.read_text():
                return workers[0]
            time.sleep(0.05)
        raise AssertionError("no worker was started")

    def left(self) -> list[object]:
        """What must not be there when it has ended: processes, files."""
        return [*self.running().values(), *self.tmp.iterdir()]

    def end(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.communicate()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path)
    yield demo
    demo.end()


def test_the_year_s_first_months_come_out_equal_and_nothing_is_left(demo: Demo) -> None:
    process = demo.start()
    said, errors = process.communicate()
    assert process.returncode == 0, said + errors
    assert "states: equal (2,177 customers)" in said
    assert "tier changes: equal (1,228)" in said
    assert "segments: equal (2,177 customers)" in said
    assert "attributions: equal (811 conversions)" in said
    assert "triggers: as allowed (" in said
    assert "63 of 63 redemptions have their touch" in said
    assert "Dead letters: 0" in said
    assert "One of them: customer" in said
    assert "100 %" in said
    for name in ("tier-changes.png", "loyalty.png"):
        picture = demo.output / name
        assert str(picture) in said
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert demo.left() == []


def test_a_program_without_bonds_comes_out_as_ever(demo: Demo) -> None:
    process = demo.start("--months", "1", "--program", str(ROOT / "examples" / "grocery.toml"), "--json")
    said, errors = process.communicate()
    assert process.returncode == 0, said + errors
    told = json.loads(said)
    assert told["states_equal"]
    assert told["changes_equal"]
    assert not any("segment" in name or "trigger" in name or "attribut" in name for name in told)
    assert not (demo.output / "loyalty.png").exists()


def test_a_worker_killed_in_the_middle_changes_nothing(demo: Demo) -> None:
    process = demo.start("--kills", "1", "--json")
    said, errors = process.communicate()
    assert process.returncode == 0, said + errors
    told = json.loads(said)
    assert told["states_equal"]
    assert told["changes_equal"]
    assert told["segments_equal"]
    assert told["attributions_equal"]
    assert told["triggers_kept"]
    (kill,) = told["kills"]
    assert 0 < kill["committed"] < told["events"]
    assert kill["unread"] > 0
    assert f"kill -9 of worker {kill['pid']}" in errors
    assert demo.left() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_on_the_way_it_leaves_nothing(demo: Demo, number: signal.Signals) -> None:
    process = demo.start()
    demo.worker(process)
    process.send_signal(number)
    said, errors = process.communicate(timeout=30)
    assert process.returncode == 130, said + errors
    # Where the signal comes while Python makes an event loop, Python itself tells of the half that is there.
    ours, half_a_loop, _ = errors.partition("Exception ignored in: <function BaseEventLoop.__del__")
    assert "Traceback" not in ours, errors
    assert not half_a_loop or "_signal_handlers" in errors, errors
    assert demo.left() == []


def test_a_worker_that_dies_is_told_with_the_end_of_its_log(demo: Demo) -> None:
    process = demo.start()
    os.kill(demo.worker(process), signal.SIGKILL)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 1, said + errors
    assert "the worker ended by signal SIGKILL" in errors
    assert "took over 12 shards" in errors
    assert demo.left() == []


def test_the_year_is_what_the_data_say() -> None:
    year = events()
    purchases = [event for event in year if event.topic == PURCHASES]
    touchpoints = [event for event in year if event.topic == TOUCHPOINTS]
    assert (len(purchases), len(touchpoints)) == (155_848, 6_589 + 2_102)
    assert len({event.key for event in purchases}) == 2_469
    assert [event.occurred_at for event in year] == sorted(event.occurred_at for event in year)
    bodies = [json.loads(event.value) for event in year]
    ids = {(event.topic, body["event_id"]) for event, body in zip(year, bodies, strict=True)}
    assert len(ids) == len(year)
    # The sum of all lines' sales_value, in cents.
    total = sum(round(100 * float(body["amount"])) for body in bodies if body["type"] == "purchase")
    assert total == 459_603_958
    campaigns = [body for body in bodies if body.get("direction") == "inbound"]
    assert all(body["channel"] == "store" and body["campaign_id"] for body in campaigns)
    with_coupons = [body for body in bodies if body["type"] == "purchase" and "campaign_id" in body]
    redeemed = {(body["customer_id"], body["occurred_at"][:10], body["campaign_id"]) for body in campaigns}
    found = {(body["customer_id"], body["occurred_at"][:10], body["campaign_id"]) for body in with_coupons}
    assert len(with_coupons) == 828
    assert found <= redeemed
