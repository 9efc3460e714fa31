"""Contact windows: local days of the program's time zone, by the pinned data."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib import resources
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loyalty import Rules
from loyalty.contacts import local_day
from schemas.tier_change import ContactCounts
from schemas.times import parse_rfc3339
from schemas.zones import time_zone
from tests.loyalty.worlds import DAY, program, purchase, touch

HOUR = 3_600_000

# Where days are long, short, doubled at midnight, missing, or come twice.
JUMPS = {
    "America/New_York": "2017-03-12T07:00:00Z",
    "Europe/Berlin": "2017-10-29T01:00:00Z",
    "America/St_Johns": "2005-10-30T02:31:00Z",  # clocks went back at 00:01, into the day before
    "America/Sao_Paulo": "2017-10-15T03:00:00Z",  # no midnight
    "America/Havana": "2017-11-05T05:00:00Z",  # midnight twice
    "Pacific/Apia": "2011-12-30T10:00:00Z",  # no 30 December at all
    "Pacific/Kwajalein": "1993-08-21T12:00:00Z",
    "Asia/Kathmandu": "1986-01-01T00:00:00Z",
    "Asia/Tokyo": "2017-04-01T15:00:00Z",
    "UTC": "2017-04-01T00:00:00Z",
}


def counted(zone: str, days: int, touches: list[int], at: int) -> int:
    fold = Rules(program(timezone=zone, contact_days=days))
    customer = fold.new_customer("900")
    for number, time in enumerate(touches):
        assert fold.touch(customer, touch(time, event_id=str(number)), None) == []
    counts = fold.view(customer, at).contacts.get("email")
    return counts.inbound if counts else 0


@given(
    st.sampled_from(sorted(JUMPS)),
    st.integers(1, 5),
    st.integers(-3 * 24 * 60, 3 * 24 * 60),
    st.lists(st.integers(-10 * 24 * 60, 4 * 24 * 60), max_size=30),
)
@example("America/St_Johns", 1, 1, [-1, 0, 1, 59, 60, -24 * 60])
@example("Pacific/Apia", 2, 60, [-60, -25 * 60, -1, 0, 59, 60, 61])
@settings(max_examples=400, deadline=None)
def test_touches_count_by_the_calendar_day_they_fall_on(
    zone: str, days: int, minutes: int, touches: list[int]
) -> None:
    jump = parse_rfc3339(JUMPS[zone])
    at = jump + minutes * 60_000
    times = [jump + minute * 60_000 + ms for minute in touches for ms in (-1, 0)]
    assert counted(zone, days, times, at) == sum(
        day_of(time, zone) > day_of(at, zone) - days for time in times if time <= at
    )


def day_of(at: int, zone: str) -> int:
    """By the calendar, from the wall clock's own fields."""
    utc = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)
    with (resources.files("tzdata") / "zoneinfo" / zone).open("rb") as data:
        local = utc.astimezone(ZoneInfo.from_file(data))
    return (local.date() - datetime(1970, 1, 1).date()).days  # noqa: DTZ001


def test_the_day_of_the_change_counts_whole_and_the_one_before_the_window_not_at_all() -> None:
    at = parse_rfc3339("2017-03-13T12:00:00-04:00")
    first = parse_rfc3339("2017-03-12T00:00:00-05:00")
    assert counted("America/New_York", 2, [first - 1, first, at, at + 1], at) == 2
    # The 12th had 23 hours: by UTC's days one more would count.
    assert counted("UTC", 2, [first - 1, first, at, at + 1], at) == 3


def test_a_change_counts_what_was_read_up_to_its_own_instant() -> None:
    fold = Rules(program(contact_days=1, timezone="Asia/Tokyo"))
    customer = fold.new_customer("900")
    midnight = parse_rfc3339("2017-04-03T00:00:00+09:00")
    for number, at in enumerate([midnight + 10 * DAY, midnight - 1, midnight, midnight + 5, midnight + 6]):
        fold.touch(customer, touch(at, event_id=str(number)), None)
    for number in range(5):
        (*_, change) = [
            *(fold.apply(customer, purchase(midnight + 5, str(number), 100_00), None) or []),
            None,
        ]
    assert change is None
    fold = Rules(
        program(contact_days=1, timezone="Asia/Tokyo", tiers=program().tiers[:1] + program().tiers[1:2])
    )
    changes = [fold.apply(customer, purchase(midnight + 5, str(n), 100_00), None) for n in range(5, 9)]
    assert all(c == [] for c in changes)
    assert fold.view(customer, midnight + 5).contacts == {"email": ContactCounts(2, 0)}


def test_further_channels_than_32_count_as_other() -> None:
    fold = Rules(program())
    customer = fold.new_customer("900")
    for number in range(40):
        fold.touch(customer, touch(DAY, f"c{number:02}", event_id=str(number)), None)
    fold.touch(customer, touch(DAY, "c31", event_id="again"), None)
    fold.touch(customer, touch(DAY, "c35", event_id="again too"), None)
    fold.touch(customer, touch(DAY, "other", event_id="by name"), None)
    contacts = fold.view(customer, DAY).contacts
    assert sorted(contacts) == [*(f"c{number:02}" for number in range(32)), "other"]
    assert contacts["c31"].inbound == 2
    assert contacts["other"].inbound == 10
    assert len(customer.channels) == 33


def test_other_by_name_is_a_channel_like_any_while_there_is_room() -> None:
    fold = Rules(program())
    customer = fold.new_customer("900")
    for number, channel in enumerate(["other", *(f"c{n}" for n in range(31)), "one", "two"]):
        fold.touch(customer, touch(DAY, channel, event_id=str(number)), None)
    assert fold.view(customer, DAY).contacts["other"].inbound == 3
    assert len(customer.channels) == 32


def test_time_zones_come_from_the_pinned_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoneinfo.TZPATH", ())
    time_zone.cache_clear()
    assert local_day(0, time_zone("Pacific/Kiritimati")) == local_day(0, time_zone("UTC")) - 1  # -10:40 then
    assert str(time_zone("America/Argentina/Buenos_Aires")) == "America/Argentina/Buenos_Aires"


def test_the_end_of_the_calendar_is_no_failure() -> None:
    last = parse_rfc3339("9999-12-31T23:59:59.999Z")
    assert counted("Asia/Tokyo", 1, [last - 1, last], last) == 2


@pytest.mark.parametrize(
    "name", ["", "/", "Europe", "../tzdata/zones", "Europe/../UTC", "/etc/localtime", "Mars/Base"]
)
def test_a_name_that_is_no_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        time_zone(name)
