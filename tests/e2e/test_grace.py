"""Grace, loss and regain: at their exact instants without any event, once, whatever happens to the worker."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

from streams.inspection import Inspection
from tests.e2e.test_faults import matches_the_batch, stream
from tests.space import Space, now_ms, purchase, refund, text_of, wait_until

# A worker starts and reads within each of them, also beside other tests.
WINDOW = 60_000
GRACE, GRACE_OF_SILVER = 20_000, 10_000

PROGRAM = """
[program]
id = "shop"
currency = "USD"
window = "60s"
ledger = "1h"

[[tiers]]
name = "member"
benefits = []
[[tiers]]
name = "silver"
min_monetary = "10.00"
grace_period = "10s"
benefits = ["free delivery"]
[[tiers]]
name = "gold"
min_frequency = 2
min_monetary = "30.00"
retain_frequency = 1
retain_monetary = "20.00"
grace_period = "20s"
downgrade = "one_down"
refund_policy = "grace"
benefits = ["free delivery", "lounge"]

[scores]
recency_days = [7, 30, 90, 180]
frequency = [2, 5, 10, 20]
monetary = ["50", "200", "500", "1500"]
"""


def space_of(new_space: Callable[..., Space]) -> Space:
    return new_space(partitions=1, program=PROGRAM)


def told(space: Space, customer: str) -> list[tuple[str, str, str, str]]:
    """What was published of a customer: type, tier, reason and instant."""
    return [
        (
            (record.header["ce_type"] or b"").decode().split(".")[2],
            record.json["tier"],
            record.json["reason"],
            record.json["effective_at"],
        )
        for record in space.read("tier-changes")
        if record.json["customer_id"] == customer
    ]


def wait_told(space: Space, customer: str, count: int, until: int) -> list[tuple[str, str, str, str]]:
    seconds = max(0, until - now_ms()) / 1000 + 15
    wait_until(lambda: len(told(space, customer)) >= count, seconds, f"{count} records of {customer}")
    return told(space, customer)


def barrier(space: Space, customer: str) -> None:
    """Returns when another customer of the shard has been told of a risk that was due later than all before."""
    at = now_ms() - WINDOW + 2_000
    space.publish([purchase(customer, 1, "10.00", at)])
    wait_told(space, customer, 2, at + WINDOW)


def way_down(at: int) -> list[tuple[str, str, str, str]]:
    """Of a customer with two orders of 15.00 at this instant, and nothing after."""
    lost, fallen = at + WINDOW, at + WINDOW + GRACE
    return [
        ("changed", "gold", "purchase", text_of(at)),
        ("at-risk", "gold", "window_expiry", text_of(lost)),
        ("changed", "silver", "inactivity", text_of(fallen)),
        ("at-risk", "silver", "inactivity", text_of(fallen)),
        ("changed", "member", "inactivity", text_of(fallen + GRACE_OF_SILVER)),
    ]


def test_without_any_event_grace_begins_and_ends_at_the_exact_instants_across_kills_and_restarts(
    new_space: Callable[..., Space],
) -> None:
    space = space_of(new_space)
    worker = space.worker()
    at = now_ms() - WINDOW + 6_000
    space.publish([purchase("900", n, "15.00", at) for n in (1, 2)])
    expected = way_down(at)
    # The first is two at one instant: silver at the first order, gold at the second.
    expected.insert(0, ("changed", "silver", "purchase", text_of(at)))
    assert wait_told(space, "900", 2, at) == expected[:2]
    worker.kill()
    worker = space.worker(KIZUNA_SESSION_TIMEOUT=6)
    assert wait_told(space, "900", 3, at + WINDOW) == expected[:3]
    risk = next(r for r in space.read("tier-changes") if "at_risk_until" in r.json)
    assert risk.json["at_risk_until"] == text_of(at + WINDOW + GRACE)
    assert risk.json["needed"] == {"monetary": "20.00", "frequency": 1, "recency_seconds": None}
    assert risk.json["previous_tier"] == "gold"
    assert "direction" not in risk.json
    # In the grace, and down across its end.
    worker.kill()
    wait_until(lambda: now_ms() > at + WINDOW + GRACE, 60)
    worker = space.worker(KIZUNA_SESSION_TIMEOUT=6)
    assert wait_told(space, "900", 5, now_ms())[:5] == expected[:5]
    worker.stop()
    space.worker()
    assert wait_told(space, "900", 6, at + WINDOW + GRACE + GRACE_OF_SILVER) == expected
    barrier(space, "later")
    assert told(space, "900") == expected
    bodies = space.changes("900")
    assert [body["benefits"] for body in bodies][-3:] == [["free delivery"], ["free delivery"], []]


def test_who_regains_it_in_time_is_retained_and_does_not_fall_at_the_old_end(
    new_space: Callable[..., Space],
) -> None:
    space = space_of(new_space)
    worker = space.worker()
    at = now_ms() - WINDOW + 4_000
    space.publish([purchase(c, n, "15.00", at) for c in ("saved", "late") for n in (1, 2)])
    wait_told(space, "saved", 3, at + WINDOW)
    worker.kill()
    saving = now_ms()
    assert saving < at + WINDOW + GRACE, "this machine is too slow for this test"
    space.publish([purchase("saved", 3, "20.00", saving)])
    space.worker(KIZUNA_SESSION_TIMEOUT=6)
    found = wait_told(space, "saved", 4, saving)
    assert found[3] == ("retained", "gold", "purchase", text_of(saving))
    # The other falls at the end of the same grace.
    wait_told(space, "late", 4, at + WINDOW + GRACE)
    assert told(space, "saved") == found
    why = space.why("saved")
    assert (why["tier"], why["at_risk_until"]) == ("gold", None)


def test_a_refund_acts_at_once_or_after_the_grace_as_its_tier_says(new_space: Callable[..., Space]) -> None:
    space = space_of(new_space)
    space.worker()
    at = now_ms()
    space.publish(
        [
            *(purchase("gold", n, "20.00", at) for n in (1, 2)),
            purchase("silver", 1, "15.00", at),
            refund("gold", 3, "o1", "20.00", at + 1),
            refund("gold", 4, "o2", "10.00", at + 2),
            refund("silver", 2, "o1", "10.00", at + 3),
        ]
    )
    assert wait_told(space, "gold", 3, at)[1:] == [
        ("changed", "gold", "purchase", text_of(at)),
        ("at-risk", "gold", "refund", text_of(at + 2)),
    ]
    assert wait_told(space, "silver", 2, at)[1:] == [("changed", "member", "refund", text_of(at + 3))]


BUSY = (
    PROGRAM.replace('"60s"', '"30d"')
    .replace('"1h"', '"120d"')
    .replace('"20s"', '"5d"')
    .replace('"10s"', '"4d"')
    .replace('"10.00"', '"300.00"')
    .replace('"30.00"', '"380.00"')
    .replace('"20.00"', '"340.00"')
)


async def test_a_worker_is_killed_at_work_and_a_reader_of_the_log_alone_holds_what_the_state_holds(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=4, clock="event", program=BUSY)
    events = stream()
    worker = space.worker()
    for part in parts(events, 4):
        space.publish(part[:-1_500])
        before = space.committed()
        space.publish(part[-1_500:])
        wait_until(lambda: space.committed() > before, 60, "more work is done")  # noqa: B023
        worker.kill()
        assert not space.all_is_read(), "the worker was quicker than the kill"
        worker = space.worker(KIZUNA_SESSION_TIMEOUT=6)
        table, state = await both(space, [str(event["customer_id"]) for event in events])
        assert table == state
    reasons = {(body["reason"], "at_risk_until" in body) for body in space.changes()}
    assert {("window_expiry", True), ("inactivity", False), ("purchase", False)} <= reasons
    await matches_the_batch(space, events)


def parts(events: list[Any], count: int) -> Iterator[list[Any]]:
    cuts = [len(events) * n // count for n in range(count + 1)]
    return (events[start:end] for start, end in pairwise(cuts))


def table_of(space: Space) -> dict[str, dict[str, Any]]:
    """What a reader holds who knows nothing but the log."""
    table = {}
    for body in space.changes():
        customer = body["customer_id"]
        if customer in table:
            assert body["tier_seq"] == table[customer]["tier_seq"] + 1
            assert body["previous_tier"] == table[customer]["tier"]
        table[customer] = {
            "tier": body["tier"],
            "tier_seq": body["tier_seq"],
            "at_risk_until": body.get("at_risk_until"),
        }
    return table


async def both(
    space: Space, customers: Iterable[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """What a reader holds and what the state does, at a moment at which everything decided is published."""
    give_up_at = time.monotonic() + 60
    while time.monotonic() < give_up_at:
        space.wait_read()
        before = await held(space, set(customers))
        table = table_of(space)
        if space.all_is_read() and before == await held(space, set(customers)):
            return table, {customer: row for customer, row in before.items() if row["tier_seq"]}
    raise AssertionError("the sweeps do not come to an end")


async def held(space: Space, customers: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What the state holds of them."""
    inspection = await Inspection.open(space.settings, space.program)
    try:
        found = {}
        for customer_id in customers:
            rules, customer, _ = await inspection.find(customer_id)
            shown = space.readable(customer_id)
            assert shown["tier"] == rules.program.tiers[customer.tier].name
            found[customer_id] = {
                "tier": shown["tier"],
                "tier_seq": int(shown["tier_seq"]),
                "at_risk_until": None if customer.at_risk is None else text_of(customer.at_risk),
            }
        return found
    finally:
        await inspection.close()
