"""Tiers by hand: they hold from the command to its end, which falls due by itself, and leave nothing behind."""

import json
from collections.abc import Callable

from tests.e2e.test_grace import told, wait_told
from tests.space import Space, now_ms, override, purchase, text_of, wait_until

START = 1_500_000_000_000
HOUR = 3_600_000


def dead_letters(space: Space) -> dict[str, str]:
    """Reason and detail by the event_id of the original."""
    return {
        record.json[
            "event_id"
        ]: f"{record.header['dlq-reason'].decode()} {record.header['dlq-detail'].decode()}"  # type: ignore[union-attr]
        for record in space.read("dead-letters")
    }


def test_a_pin_by_the_command_holds_until_its_end_which_comes_by_itself_across_a_kill(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=1)
    worker = space.worker()
    space.publish([purchase("900", 1, "150.00", now_ms())])
    until = now_ms() + 30_000
    sent = space.kizuna(
        *("customer", "900", "override", "pin", "gold", "--until", text_of(until)),
        *("--actor", "anna", "--reason", "complaint 4711", "--json"),
    )
    assert sent.returncode == 0, sent.stderr.decode()
    command = json.loads(sent.stdout)["value"]
    found = wait_told(space, "900", 2, now_ms())
    assert found[1][:3] == ("changed", "gold", "override")
    body = space.changes("900")[1]
    assert (body["cause_source"], body["cause_event_id"]) == ("kizuna-cli", command["event_id"])
    assert body["effective_at"] == command["occurred_at"]
    held = space.why("900")
    assert (held["tier"], held["earned"]) == ("gold", "silver")
    assert held["override"]["actor"] == "anna"
    assert held["override"]["reason"] == "complaint 4711"
    assert held["override"]["until"] == text_of(until)
    worker.kill()
    assert now_ms() < until, "this machine is too slow for this test"
    wait_until(lambda: now_ms() > until, 40)
    space.worker(KIZUNA_SESSION_TIMEOUT=6)
    found = wait_told(space, "900", 3, until)
    assert found[2] == ("changed", "silver", "override", text_of(until))
    assert space.changes("900")[2]["cause_event_id"] is None
    assert space.readable("900")["tier"] == "silver"


def test_pins_floors_and_clears_follow_each_other_as_they_occurred(new_space: Callable[..., Space]) -> None:
    space = new_space(partitions=2, clock="event", window="100d", ledger="300d")
    space.worker()
    space.publish([purchase("900", 1, "150.00", START), purchase("901", 1, "10.00", START)])
    space.publish(
        [
            override("900", 1, "pin", "member", START + HOUR, START + 5 * HOUR),
            override("900", 2, "floor", "gold", START + 2 * HOUR, START + 9 * HOUR),
            # Older than the one before: it changes nothing, and comes twice.
            override("900", 3, "pin", "member", START + 2 * HOUR - 1, START + 9 * HOUR),
            override("900", 3, "pin", "member", START + 2 * HOUR - 1, START + 9 * HOUR),
            override("901", 4, "floor", "silver", START + HOUR, START + 4 * HOUR),
            override("901", 5, "clear", "", START + 3 * HOUR, 0),
            override("901", 6, "pin", "platinum", START + HOUR, START + 4 * HOUR),
            override("901", 7, "pin", "gold", START + HOUR, START + HOUR),
            override("901", 8, "pin", "gold", START + HOUR, START + 4 * HOUR, actor=""),
        ]
    )
    space.wait_read()
    # The event clock goes on by purchases only.
    space.publish(
        [purchase("900", 9, "1.00", START + 10 * HOUR), purchase("901", 9, "1.00", START + 10 * HOUR)]
    )
    space.wait_read()
    assert wait_told(space, "900", 4, now_ms()) == [
        ("changed", "silver", "purchase", text_of(START)),
        ("changed", "member", "override", text_of(START + HOUR)),
        ("changed", "gold", "override", text_of(START + 2 * HOUR)),
        ("changed", "silver", "override", text_of(START + 9 * HOUR)),
    ]
    assert told(space, "901") == [
        ("changed", "silver", "override", text_of(START + HOUR)),
        ("changed", "member", "override", text_of(START + 3 * HOUR)),
    ]
    letters = dead_letters(space)
    assert sorted(letters) == ["c6", "c7", "c8"]
    assert letters["c6"].startswith("invalid_event tier: ")
    assert letters["c7"].startswith("invalid_event until: ")
    assert letters["c8"].startswith("invalid_event actor: ")


def test_a_command_waits_for_the_purchases_that_were_sent_before_it(new_space: Callable[..., Space]) -> None:
    space = new_space(partitions=1, window="60s", ledger="1h", silver="10.00")
    worker = space.worker()
    at = now_ms() - 45_000
    space.publish([purchase("900", 1, "10.00", at)])
    space.wait_read()
    worker.stop()
    # The purchase that saves the tier, a great many others, and then the command, all unread.
    wait_until(lambda: now_ms() > at + 55_000, 30)
    saving = now_ms()
    assert saving < at + 60_000, "this machine is too slow for this test"
    others = [purchase(f"c{n % 1_000}", n, "1.00", saving) for n in range(20_000)]
    space.publish([*others, purchase("900", 2, "10.00", saving)])
    wait_until(lambda: now_ms() > at + 60_000, 30)
    until = now_ms() + 120_000
    space.publish([override("900", 1, "floor", "member", now_ms(), until)])
    space.worker()
    space.wait_read()
    assert told(space, "900") == [("changed", "silver", "purchase", text_of(at))]
