"""Clocks: workers' clocks that are wrong, and days that are longer or shorter than others."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.faults.processes import evict, launch, wait_all_held
from tests.faults.reading import Follower
from tests.faults.verifier import verify
from tests.space import Space, Worker, now_ms, purchase, text_of, touchpoint, wait_until

DAY_SECONDS = 86_400

FALLS_SOON = """
[program]
id = "shop"
currency = "USD"
window = "8s"
ledger = "1h"
allowed_lateness = "3s"

[[tiers]]
name = "member"
[[tiers]]
name = "silver"
min_monetary = "10.00"
[[tiers]]
name = "gold"
min_monetary = "25.00"

[scores]
recency_days = [7, 30, 90, 180]
frequency = [2, 5, 10, 20]
monetary = ["50", "200", "500", "1500"]
"""


def offset_of(worker: Worker) -> float:
    """By how many seconds a worker's clock is ahead of ours, by its first line."""
    said = worker.log.read_text().split(" INFO ")[0].strip()
    started = datetime.strptime(said, "%Y-%m-%d %H:%M:%S,%f").astimezone()
    return (started - datetime.now(UTC)).total_seconds()


@pytest.mark.long
async def test_two_workers_whose_clocks_are_a_day_off_let_everybody_fall_at_their_instants(
    new_space: Callable[..., Space],
) -> None:
    space = new_space(partitions=4, clock="wall", program=FALLS_SOON)
    ahead, behind = (launch(space, "shifted", FAULT_SHIFT=days * DAY_SECONDS) for days in (1, -1))
    wait_all_held(space, ahead.wait_ready(), behind.wait_ready())
    # They believe it.
    assert abs(offset_of(ahead) - DAY_SECONDS) < 120
    assert abs(offset_of(behind) + DAY_SECONDS) < 120

    seen: dict[str, tuple[int, dict[str, Any]]] = {}
    follower = Follower(space.stack.brokers, space.topic("tier-changes"))

    def look() -> None:
        records = follower.follow()
        for record in records:
            seen.setdefault(record.json["event_id"], (now_ms(), record.json))

    for number in range(120):
        space.publish([purchase(f"c{number % 60}", number, "15.00", now_ms())])
        await asyncio.sleep(0.05)
        if number % 10 == 0:
            look()
    # A day ahead: only for a clock that is a day ahead, too, is it not of the future.
    space.publish([purchase("c1", "ahead", "15.00", now_ms() + DAY_SECONDS * 1000 - 60_000)])

    def all_have_fallen() -> bool:
        look()
        newest = {body["customer_id"]: body["tier"] for _, body in seen.values()}
        return len(newest) == 60 and set(newest.values()) == {"member"}

    wait_until(all_have_fallen, 60, "all have fallen")
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    assert verdict.dead_letters == 1
    assert verdict.promised == verdict.changes >= 120, verdict
    last = {body["customer_id"]: body["event_id"] for _, body in seen.values() if body["tier"] == "member"}
    for at, body in seen.values():
        if body["tier"] == "member":
            # Soon; and where no event of the customer's brings it, not before it is sure that nothing older comes.
            least = 3_000 if last[body["customer_id"]] == body["event_id"] else 0
            fell = datetime.fromisoformat(body["effective_at"]).timestamp() * 1000
            assert least <= at - fell < 10_000, body


DAYS = """
[program]
id = "shop"
currency = "USD"
timezone = "{timezone}"
window = "365d"
contact_window = "2d"
ledger = "1000d"

[[tiers]]
name = "member"
[[tiers]]
name = "silver"
min_monetary = "10.00"

[scores]
recency_days = [7, 30, 90, 180]
frequency = [2, 5, 10, 20]
monetary = ["50", "200", "500", "1500"]
"""

#: A leap day, a day of 23 hours and one of 25, in both places.
ODD_DAYS = {
    "Europe/Berlin": (date(2024, 2, 29), date(2024, 3, 31), date(2024, 10, 27)),
    "America/New_York": (date(2024, 2, 29), date(2024, 3, 10), date(2024, 11, 3)),
}
HALF_HOUR = 1_800_000


def midnight(day: date, zone: ZoneInfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def contacts(touches: list[tuple[str, int, str]], at: int, zone: ZoneInfo) -> dict[str, Counter[str]]:
    """By the contract's words, with the standard library's calendar: inbound web by customer, the last two days."""

    def day_of(ms: int) -> date:
        return datetime.fromtimestamp(ms / 1000, zone).date()

    found: dict[str, Counter[str]] = {}
    for customer, when, way in touches:
        if when <= at and day_of(at) - day_of(when) < timedelta(days=2):
            found.setdefault(customer, Counter())[way] += 1
    return found


def around(day: date, zone: ZoneInfo) -> Iterator[int]:
    """Each half hour from the evening before to the morning after, and the last instants of days."""
    first, last = midnight(day, zone), midnight(day + timedelta(days=1), zone)
    yield from range(first - 4 * HALF_HOUR, last + 4 * HALF_HOUR + 1, HALF_HOUR)


@pytest.mark.long
@pytest.mark.parametrize("timezone", ODD_DAYS)
async def test_contacts_are_counted_by_local_days_of_any_length_whatever_is_killed(
    new_space: Callable[..., Space], timezone: str
) -> None:
    zone = ZoneInfo(timezone)
    space = new_space(partitions=2, clock="event", program=DAYS.format(timezone=timezone))
    touches: list[tuple[str, int, str]] = []
    lengths = []
    worker = launch(space).wait_ready()
    for day in ODD_DAYS[timezone]:
        start, end = midnight(day, zone), midnight(day + timedelta(days=1), zone)
        lengths.append((end - start) // (2 * HALF_HOUR))
        space.publish([purchase(f"c{c}", f"{day}-{c}", "15.00", start) for c in range(8)])
        events = []
        for number, at in enumerate(sorted([*around(day, zone), start - 1, end - 1])):
            customer, way = f"c{number % 8}", ("inbound", "outbound")[number % 3 == 0]
            touches.append((customer, at, way))
            events.append(touchpoint(customer, f"{day}-{number}", "web", way, at))
        half = len(events) // 2
        before = space.committed()
        space.publish(events[:half])
        wait_until(lambda: space.committed() > before, 30, "some of the day is counted")  # noqa: B023
        worker.kill()
        space.publish(events[half:])
        assert not space.all_is_read()
        evict(space)
        worker = launch(space).wait_ready()
        space.wait_read()
        after = midnight(day + timedelta(days=2), zone)
        for at in (end + 4 * HALF_HOUR, after - 1, after, midnight(day + timedelta(days=3), zone) - 1):
            lines = [json.loads(line) for line in space.dump(at)]
            found = {line["customer_id"]: Counter(line["contacts"].get("web", {})) for line in lines}
            wanted = contacts(touches, at, zone)
            assert found == {customer: wanted.get(customer, Counter()) for customer in found}, text_of(at)
            assert len(found) == 8
    assert lengths == [24, 23, 25]
    # Who bought on the leap day alone is 365 days later, to the millisecond, silver no more.
    leap = midnight(ODD_DAYS[timezone][0], zone)
    year = 365 * DAY_SECONDS * 1000
    space.publish([purchase("leaper", 1, "10.00", leap), purchase("leaper", 2, "0.00", leap + year + 1)])
    verdict = await verify(space)
    assert verdict.is_clean, verdict
    told = [(body["tier"], body["effective_at"]) for body in space.changes("leaper")]
    assert ("member", text_of(leap + year)) in told
