"""Another version of the program: everyone is moved to it once, beside live events, whatever is killed."""

import itertools
import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.program import load_program
from tests.e2e.test_grace import told
from tests.space import (
    KIZUNA,
    PROGRAM,
    Space,
    Worker,
    now_ms,
    override,
    purchase,
    text_of,
    wait_until,
)

V1 = {"window": "365d", "ledger": "2000d", "silver": "100.00"}


def stricter(space: Space, silver: str = "200.00") -> Path:
    """The same with another threshold, and a way down for gold."""
    text = PROGRAM.format(**V1 | {"silver": silver})
    return space.write_program(text.replace("min_frequency = 3", 'min_frequency = 4\ngrace_period = "30d"'))


def applied(space: Space, file: Path, *more: str) -> dict[str, Any]:
    done = space.kizuna("program", "apply", str(file), *more, "--json")
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def applying(space: Space, file: Path) -> "subprocess.Popen[bytes]":
    """The command, at work."""
    return subprocess.Popen(
        [KIZUNA, "program", "apply", str(file), "--json"],
        env=space.env(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def rows(found: dict[str, Any]) -> dict[tuple[str, str], int]:
    return {(move["from"], move["to"]): move["customers"] for move in found["moves"]}


def wait_ended(worker: Worker) -> str:
    """The last line of a worker that gives way."""
    wait_until(lambda: worker.process.poll() is not None, 30, "the worker ends")
    said = worker.log.read_text()
    assert worker.process.returncode == 0, said
    assert "Traceback" not in said, said
    return said.strip().splitlines()[-1]


def test_a_worker_gives_way_and_one_of_the_new_version_goes_on(new_space: Callable[..., Space]) -> None:
    space = new_space(partitions=3)
    old = space.worker()
    at = now_ms() - 1_000
    space.publish(
        [
            *(purchase(f"g{n}", k, "110.00", at) for n in range(10) for k in range(3)),
            *(purchase(f"s{n}", 1, "150.00", at) for n in range(20)),
            *(purchase(f"m{n}", 1, "10.00", at) for n in range(30)),
        ]
    )
    space.publish([override("m0", 1, "floor", "silver", at, now_ms() + 3_600_000)])
    space.wait_read()
    file = stricter(space)
    refused = space.refusal(KIZUNA_PROGRAM=file)
    assert "kizuna program apply" in refused
    foreseen = applied(space, file, "--dry-run")
    expected = {
        ("gold", "gold"): 10,
        ("silver", "member"): 20,
        ("member", "member"): 29,
        ("silver", "silver"): 1,
    }
    assert rows(foreseen) == expected
    assert [move["at_risk"] for move in foreseen["moves"] if move["from"] == "gold"] == [10]
    assert old.process.poll() is None
    assert len(space.changes()) == 10 + 10 + 20 + 1

    with applying(space, file) as running:
        assert "gives way" in wait_ended(old)
        new = space.worker(KIZUNA_PROGRAM=file)
        out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err.decode()
    assert rows(json.loads(out)) == expected
    space.wait_read()
    moved = [body for body in space.changes() if body["reason"] == "program_change"]
    assert Counter((b["previous_tier"], b["tier"], "at_risk_until" in b) for b in moved) == {
        ("gold", "gold", True): 10,
        ("silver", "member", False): 20,
    }
    assert {body["program"]["version"] for body in moved} == {json.loads(out)["version"]}
    assert {(body["cause_source"], body["cause_event_id"]) for body in moved} == {(None, None)}
    assert len({body["effective_at"] for body in moved}) == 1, "one instant for all"
    # The new rules hold for who comes now.
    space.publish([purchase("s0", 2, "60.00", now_ms())])
    space.wait_read()
    assert told(space, "s0")[-1][:3] == ("changed", "silver", "purchase")
    again = applied(space, file)
    assert again["already_applied"]
    # A worker of the version before is refused, and disturbs nobody.
    assert "kizuna program apply" in space.refusal()
    assert new.process.poll() is None


def test_without_any_worker_the_command_moves_everyone_itself_and_protects_who_was_there(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=2)
    worker = space.worker()
    at = now_ms() - 1_000
    space.publish([purchase(f"s{n}", 1, "150.00", at) for n in range(20)])
    space.wait_read()
    worker.stop()
    file = stricter(space)
    done = applied(space, file, "--protect-until", text_of(now_ms() + 20_000))
    assert rows(done) == {("silver", "silver"): 20}
    assert [body["reason"] for body in space.changes()] == ["purchase"] * 20
    space.worker(KIZUNA_PROGRAM=file)
    assert space.readable("s0")["tier"] == "silver"
    wait_until(lambda: len(space.changes()) == 40, 40, "the end of the protection")
    falls = space.changes()[-20:]
    assert {(b["tier"], b["reason"]) for b in space.changes() if b["direction"] == "downgrade"} == {
        ("member", "program_change")
    }
    assert {body["effective_at"] for body in falls if body["direction"] == "downgrade"} == {
        done["protect_until"]
    }


def test_what_was_sent_before_the_change_and_is_unread_goes_by_the_rules_of_before(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=1)
    worker = space.worker()
    space.publish([purchase("900", 1, "90.00", now_ms())])
    space.wait_read()
    worker.stop()
    sent = now_ms()
    space.publish([purchase("900", 2, "20.00", sent)])
    file = stricter(space)
    with applying(space, file) as running:
        wait_until(
            lambda: space.redis.hget(f"{space.name}:{{0}}:shard", "generation") == "1", 30, "the switch"
        )
        space.worker(KIZUNA_PROGRAM=file)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 0, err.decode()
    space.wait_read()
    assert [row[:3] for row in told(space, "900")] == [
        ("changed", "silver", "purchase"),
        ("changed", "member", "program_change"),
    ]
    assert told(space, "900")[0][3] == text_of(sent)
    versions = [body["program"]["version"] for body in space.changes("900")]
    assert versions == [space.program.version, load_program(file).version]


def test_killed_and_resumed_twice_under_live_load_each_customer_is_moved_once(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=4)
    worker = space.worker()
    at = now_ms() - 1_000
    customers = [f"c{n}" for n in range(12_000)]
    space.publish([purchase(c, 1, "150.00" if n % 3 else "250.00", at) for n, c in enumerate(customers)])
    space.wait_read()
    file = stricter(space)
    foreseen = rows(applied(space, file, "--dry-run"))
    assert foreseen == {("silver", "member"): 8_000, ("silver", "silver"): 4_000}

    live = itertools.count()

    def load() -> None:
        """A part of everyone buys a little, which moves nobody between tiers: some 4,000 events in a second."""
        time.sleep(0.05)
        space.publish(
            [
                purchase(customers[n * 7 % 12_000], f"live{n}", "0.01", now_ms())
                for _, n in zip(range(200), live, strict=False)
            ]
        )

    def moved() -> int:
        return sum(
            int(count)
            for p in range(4)
            for field, count in space.redis.hgetall(f"{space.name}:{{{p}}}:shard").items()
            if field.startswith("moves:")
        )

    running = applying(space, file)
    wait_ended(worker)
    for part in (1, 2):
        worker = space.worker(KIZUNA_PROGRAM=file, KIZUNA_SESSION_TIMEOUT=6, KIZUNA_MOVE_RATE=2_000)
        while moved() < part * 1_500:
            load()
        # Both at once: the command and the worker.
        running.kill()
        worker.kill()
        running.communicate()
        assert moved() < 12_000, "the move was quicker than the kill"
        running = applying(space, file)
    worker = space.worker(KIZUNA_PROGRAM=file)
    while running.poll() is None:
        load()
    out, err = running.communicate()
    assert running.returncode == 0, err.decode()
    assert rows(json.loads(out)) == foreseen, "the dry run was right"
    space.wait_read()
    told_of = Counter(b["customer_id"] for b in space.changes() if b["reason"] == "program_change")
    assert set(told_of.values()) == {1}
    assert len(told_of) == 8_000
    twice = Counter(record.header["ce_id"] for record in space.read_with_confluent("tier-changes"))
    assert max(twice.values()) == 1
    # Nothing of the load is lost, and everybody is on the new program.
    sent = next(live)
    states = [
        json.loads(line)
        for line in space.kizuna("state", "dump", "--json", KIZUNA_PROGRAM=file).stdout.splitlines()
    ]
    assert sum(state["lifetime_orders"] for state in states) == 12_000 + sent
    assert Counter(state["tier"] for state in states) == {"member": 8_000, "silver": 4_000}
