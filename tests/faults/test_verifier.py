"""The verifier itself: it is content with right outputs, and with none of these wrong ones."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import msgspec
import pytest

from tests.faults.expected import Expected, expect, home
from tests.faults.load import START, STEP
from tests.faults.reading import Found
from tests.faults.right import LATE, PARTITIONS, body, log_of, tell_bonds
from tests.faults.verifier import judge
from tests.space import Read, purchase


def test_right_outputs_are_clean_and_much_was_compared(expected: Expected, right: Found) -> None:
    verdict = judge(expected, deepcopy(right))
    assert verdict.wrong == []
    assert verdict.is_clean
    assert (verdict.customers, verdict.dead_letters > 1, verdict.promised > 20) == (20, True, True)
    assert (verdict.segments, verdict.told > 300, verdict.attributions > 100) == (20, True, True)
    assert min(verdict.triggers[status] for status in ("sent", "held_out", "suppressed")) > 5, verdict
    assert min(verdict.full_caps, verdict.goals) > 20, verdict


def test_nothing_compared_is_not_clean(program: Any) -> None:
    assert not judge(expect(program, {}, PARTITIONS), Found()).is_clean


def change_last(found: Found, **fields: Any) -> None:
    found.changes[-1] = found.tiers[-1] = found.uncommitted[-1] = body(found.changes[-1], **fields)


def second_body(found: Found) -> None:
    found.uncommitted.append(body(found.changes[0], effective_at="2017-01-01T00:00:00.000Z"))


def without_change(found: Found) -> None:
    for records in (found.changes, found.tiers, found.uncommitted):
        del records[1]


def without_last_change(found: Found) -> None:
    """A fall that never was published, nor stored."""
    gone = found.changes[-1]
    for records in (found.changes, found.tiers, found.uncommitted):
        records.pop()
    standing = gone.json["previous_tier"], gone.json["tier_seq"] - 1
    found.stored[gone.json["customer_id"]] = found.readable[gone.json["customer_id"]] = standing


def other_state(found: Found) -> None:
    customer_id = found.changes[-1].json["customer_id"]
    found.stored[customer_id] = "gold", 99


def other_readable(found: Found) -> None:
    customer_id = found.changes[-1].json["customer_id"]
    found.readable[customer_id] = found.readable[customer_id][0], 99


def lost_event(found: Found) -> None:
    line = found.dump["c3"]
    line["frequency"] -= 1


def unknown_customer(found: Found) -> None:
    found.dump["nobody"] = dict(found.dump["c3"], customer_id="nobody")


def lost_letter(found: Found) -> None:
    found.dead_letters.pop()


def letter_twice(found: Found) -> None:
    found.dead_letters.append(found.dead_letters[0])


def letter_of_a_good_record(found: Found) -> None:
    letter = found.dead_letters[0]
    moved = [(n, b"1000000" if n == "dlq-offset" else v) for n, v in letter.headers]
    found.dead_letters.append(letter._replace(headers=moved))


def letter_damaged(found: Found) -> None:
    found.dead_letters[0] = found.dead_letters[0]._replace(value=b"something else")


def letter_with_other_reason(found: Found) -> None:
    letter = found.dead_letters[0]
    found.dead_letters[0] = letter._replace(headers=[("dlq-reason", b"too_late"), *letter.headers[1:]])


WRONG: dict[str, Callable[[Found], None]] = {
    "a change twice": lambda found: found.changes.append(found.changes[-1]),
    "a change twice in customer-tiers": lambda found: found.tiers.append(found.tiers[-1]),
    "a hole in tier_seq": without_change,
    "a sequence that jumps": lambda found: change_last(found, tier_seq=77),
    "another previous tier": lambda found: change_last(found, previous_tier="platinum"),
    "another time": lambda found: change_last(found, effective_at="2019-01-01T00:00:00.000Z"),
    "another cause": lambda found: change_last(found, cause_event_id="e0"),
    "other metrics in a change": lambda found: change_last(found, rfm={}),
    "one id with two bodies": second_body,
    "a change that is not there": without_last_change,
    "another state": other_state,
    "another readable hash": other_readable,
    "customer-tiers behind": lambda found: found.tiers.pop() and None,
    "another partition": lambda found: found.changes.append(
        found.changes.pop()._replace(partition=1 - found.changes[-1].partition)
    ),
    "an event not counted": lost_event,
    "a customer from nowhere": unknown_customer,
    "a dead letter not there": lost_letter,
    "a dead letter twice": letter_twice,
    "a dead letter of a good record": letter_of_a_good_record,
    "a dead letter with other bytes": letter_damaged,
    "a dead letter with another reason": letter_with_other_reason,
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_output_is_noticed(expected: Expected, right: Found, name: str) -> None:
    found = deepcopy(right)
    WRONG[name](found)
    assert not judge(expected, found).is_clean


@pytest.mark.parametrize("copies", [0, 2])
def test_a_record_sent_on_never_or_twice_is_noticed(program: Any, right: Found, copies: int) -> None:
    logs = log_of()
    (sent_on,) = (r for r in logs["purchases"] if r.headers)
    logs["purchases"].remove(sent_on)
    logs["purchases"] += [sent_on] * copies
    verdict = judge(expect(program, logs, PARTITIONS), deepcopy(right))
    assert any(wrong.startswith(f"sent on {copies} times, expected 1") for wrong in verdict.wrong)


def test_where_redis_lost_writes_dead_letters_may_come_twice_and_changes_may_not(
    expected: Expected, computed: Expected, right: Found
) -> None:
    found = deepcopy(right)
    letter_twice(found)
    assert judge(expected, found, lost_writes=True).is_clean
    found.changes.append(found.changes[-1])
    assert not judge(deepcopy(computed), found, lost_writes=True).is_clean


def test_out_of_time_order_the_changes_may_differ_from_the_batch_computation_but_not_the_facts(
    program: Any, right: Found
) -> None:
    logs = log_of(misplaced=False)
    # The whole log, then one late event more: of a customer with an order on the last day.
    for partition in range(PARTITIONS):
        customer = next(f"c{n}" for n in range(20) if home(f"c{n}", PARTITIONS) == partition)
        value = json.dumps(purchase(customer, f"late{partition}", "0.00", START + STEP)).encode()
        logs["purchases"].append(Read(partition, 10**6, LATE, customer.encode(), value, []))
    expected = expect(program, logs, PARTITIONS)
    assert expected.ordered == [False, False]
    found = deepcopy(right)
    found.dump = msgspec.to_builtins(expect(program, logs, PARTITIONS).lines(found.as_of))
    change_last(found, cause_event_id="e0")
    tell_bonds(found, program, logs)
    assert judge(expected, found).is_clean
    lost_event(found)
    assert not judge(expect(program, logs, PARTITIONS), found).is_clean
