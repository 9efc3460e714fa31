"""The verifier's part about bonds: none of these wrong records escapes it, and it says what is wrong."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from schemas.program import load_program
from tests.faults.expected import Expected, expect
from tests.faults.reading import Found
from tests.faults.right import PARTITIONS, body, log_of
from tests.faults.verifier import judge
from tests.space import PROGRAM, Read

TRIGGERS = "nurturing-triggers"
OLD = "2017-07-14T00:00:00.000Z"


def last_of(found: Found, topic: str, **said: Any) -> tuple[int, Read]:
    """Where the last record stands whose body says this."""
    records = found.bonds[topic]
    return next(
        (index, records[index])
        for index in reversed(range(len(records)))
        if said.items() <= records[index].json.items()
    )


def say(found: Found, topic: str, of: dict[str, Any], **fields: Any) -> None:
    """The last record that says `of` says something else, wherever it is read."""
    index, record = last_of(found, topic, **of)
    found.bonds[topic][index] = body(record, **fields)
    found.uncommitted_bonds = []


def head(found: Found, name: str, value: bytes) -> None:
    index, record = last_of(found, "attributions")
    found.bonds["attributions"][index] = record._replace(headers=[*record.headers, (name, value)])


def moved(found: Found, **fields: int) -> None:
    index, record = last_of(found, "segment-changes")
    found.bonds["segment-changes"][index] = record._replace(**fields)


def tell_twice(found: Found) -> None:
    found.bonds[TRIGGERS].append(found.bonds[TRIGGERS][0])


def abort_otherwise(found: Found) -> None:
    found.uncommitted_bonds.append(body(found.bonds[TRIGGERS][0], reason="another"))


def do_not_tell(found: Found) -> None:
    found.bonds["segment-changes"].pop(last_of(found, "segment-changes")[0])


def end_elsewhere(found: Found) -> None:
    customer_id = last_of(found, "segment-changes")[1].json["customer_id"]
    say(found, "segment-changes", {}, segment="elsewhere")
    found.segments[customer_id] = found.readable_segments[customer_id] = "elsewhere"


def store_elsewhere(found: Found) -> None:
    found.segments["c3"] = "elsewhere"


def show_elsewhere(found: Found) -> None:
    found.readable_segments["c3"] = None


def touched_by_another(found: Found) -> None:
    _, record = last_of(found, "attributions", status="attributed")
    touch = record.json["touch"] | {"event_id": "t0"}
    say(found, "attributions", {"status": "attributed"}, touch=touch)


def of_a_stranger(found: Found) -> None:
    _, record = last_of(found, "segment-changes", segment_seq=1)
    found.bonds["segment-changes"].append(body(record, customer_id="stranger"))


def all_at_once(found: Found) -> None:
    """Every e-mail is sent at the instant of the customer's first one."""
    first: dict[str, str] = {}
    told = found.bonds[TRIGGERS]
    for index, record in enumerate(told):
        said = record.json
        if (said["status"], said["channel"]) == ("sent", "email"):
            at = first.setdefault(said["customer_id"], said["effective_at"])
            told[index] = body(record, effective_at=at)


def begin_before(found: Found) -> None:
    """The second run of a scenario began when the first did."""
    _, record = last_of(found, TRIGGERS, scenario="come-back", run=2)
    said = {"scenario": "come-back", "customer_id": record.json["customer_id"]}
    _, first = last_of(found, TRIGGERS, run=1, **said)
    say(found, TRIGGERS, said | {"run": 2}, run_started_at=first.json["run_started_at"])


def begin_long_ago(found: Found, scenario: str) -> None:
    """All its runs, so that the goal was there before each step."""
    told = found.bonds[TRIGGERS]
    told[:] = [body(r, run_started_at=OLD) if r.json["scenario"] == scenario else r for r in told]


#: What is wrong of bonds, and what the verdict must hold of it.
WRONG_BONDS: dict[str, tuple[Callable[[Found], None], str]] = {
    "a trigger twice": (tell_twice, "times that a read_committed reader saw it: 2"),
    "one id with two bodies": (abort_otherwise, ": a second body: "),
    "another type": (lambda found: head(found, "ce_type", b"x"), ": ce_type: "),
    "another id in the header": (lambda found: head(found, "ce_id", b"x"), ": ce_id: "),
    "no positions": (lambda found: head(found, "loyalty-watermarks", b""), ": watermarks: 0"),
    "an id that is not its own": (lambda found: say(found, TRIGGERS, {}, run=77), ": id: "),
    "another partition": (lambda found: moved(found, partition=0), ": partition: 0"),
    "a hole in the one sequence": (lambda found: head(found, "loyalty-bond", b'{"seq": 900}'), ": seq: "),
    "a hole in segment_seq": (
        lambda found: say(found, "segment-changes", {}, segment_seq=99),
        ": segment_seq: ",
    ),
    "a hole in attribution_seq": (
        lambda found: say(found, "attributions", {}, attribution_seq=99),
        ": attribution_seq: ",
    ),
    "another previous segment": (
        lambda found: say(found, "segment-changes", {}, previous_segment="nowhere"),
        ": previous_segment: ",
    ),
    "time that goes back": (
        lambda found: say(found, "attributions", {}, effective_at=OLD),
        ": effective_at is before ",
    ),
    "another order in the log": (lambda found: moved(found, offset=-1), ": published before "),
    "another revision": (lambda found: say(found, "attributions", {}, revision=9), ": revision: "),
    "a change of segment that is not there": (do_not_tell, ": records decided: "),
    "another segment in the end": (end_elsewhere, ": last segment: 'elsewhere'"),
    "another segment in the store": (store_elsewhere, ": stored segment: 'elsewhere'"),
    "no segment in the readable hash": (show_elsewhere, ": readable segment: None"),
    "another touch": (touched_by_another, ": attribution of ("),
    "another amount": (
        lambda found: say(found, "attributions", {"status": "attributed"}, amount="0.77"),
        ": attribution of (",
    ),
    "an attribution that is withdrawn, and was not": (
        lambda found: say(found, "attributions", {"status": "attributed"}, status="withdrawn"),
        ": attribution of (",
    ),
    "of somebody of whom nothing was read": (of_a_stranger, "stranger: told of, and nothing was read"),
    "sent to somebody who is held out": (
        lambda found: say(found, TRIGGERS, {"status": "held_out"}, status="sent"),
        ": held out: False, expected True",
    ),
    "another draw": (lambda found: say(found, TRIGGERS, {}, holdout=None), ": holdout: None"),
    "more than a cap allows": (all_at_once, ": one more than 1, Cap(most=1, channel='email'"),
    "a step too far": (
        lambda found: say(found, TRIGGERS, {"step": 2}, step=3),
        ": step: 3, expected 2",
    ),
    "a run too soon": (begin_before, ": too soon after "),
    "another message": (lambda found: say(found, TRIGGERS, {}, content="buy!"), ": message: "),
    "a step after the order that was wanted": (
        lambda found: begin_long_ago(found, "almost-there"),
        ": of a run whose order had come",
    ),
    "a step after the visit that was wanted": (
        lambda found: begin_long_ago(found, "second-visit"),
        ": of a run whose visit had come",
    ),
}


@pytest.mark.parametrize("name", WRONG_BONDS)
def test_what_is_wrong_of_bonds_is_noticed_and_named(fallen: Expected, right: Found, name: str) -> None:
    found = deepcopy(right)
    doctor, said = WRONG_BONDS[name]
    doctor(found)
    wrong = judge(fallen, found).wrong
    assert any(said in line for line in wrong), wrong[:5]


def test_by_a_program_without_bonds_nothing_is_told_of_them(right: Found, tmp_path: Path) -> None:
    file = tmp_path / "program.toml"
    file.write_text(PROGRAM.format(window="30d", ledger="120d", silver="100.00"))
    verdict = judge(expect(load_program(file), log_of(), PARTITIONS), deepcopy(right))
    assert any("records by a program without bonds" in line for line in verdict.wrong)


def test_where_redis_lost_writes_an_aborted_transaction_may_hold_another_body(
    expected: Expected, right: Found
) -> None:
    found = deepcopy(right)
    abort_otherwise(found)
    assert judge(expected, found, lost_writes=True).wrong == []
