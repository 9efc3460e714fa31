"""Local days and hours where clocks jump, against the zone data itself."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loyalty import local_time as module
from loyalty.local_time import LocalTime, local_time
from schemas.times import DAY, HOUR, MINUTE, parse_rfc3339
from schemas.zones import time_zone

NAMES = (resources.files("tzdata") / "zones").read_text("utf-8").split()
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@cache
def changes_of(name: str) -> list[int]:
    """The instants at which a zone's offset changes, in epoch milliseconds. Source: RFC 8536, section 3."""
    data = resources.files("tzdata.zoneinfo").joinpath(*name.split("/")).read_bytes()
    is_utc, is_std, leaps, times, types, letters = struct.unpack(">6l", data[20:44])
    at = 44 + times * 5 + types * 6 + letters + leaps * 8 + is_std + is_utc
    *_, times, types, _ = struct.unpack(">6l", data[at + 20 : at + 44])
    at += 44
    instants = struct.unpack(f">{times}q", data[at : at + 8 * times])
    indices = data[at + 8 * times : at + 9 * times]
    at += 9 * times
    offsets = [struct.unpack(">l", data[at + 6 * i : at + 6 * i + 4])[0] for i in range(types)]
    shown = [offsets[0], *(offsets[i] for i in indices)]
    return [instant * 1_000 for instant, a, b in zip(instants, shown, shown[1:], strict=False) if a != b]


def clock(at: int, name: str) -> datetime:
    return (EPOCH + timedelta(milliseconds=at)).astimezone(time_zone(name))


def test_no_zone_changes_its_offset_twice_between_two_probes() -> None:
    gaps = [b - a for name in NAMES for a, b in zip(changes_of(name), changes_of(name)[1:], strict=False)]
    assert len(gaps) > 10_000
    assert min(gaps) > 2 * module._PROBE


@given(st.data(), st.sampled_from(NAMES))
@settings(max_examples=300, deadline=None)
def test_days_and_hours_are_those_of_the_zones_clock(data: st.DataObject, name: str) -> None:
    # Zones that have never had an offset but one have no change to be asked near.
    change = data.draw(st.sampled_from([at for at in changes_of(name) if at > -62_000_000_000_000] or [0]))
    at = change + data.draw(st.one_of(st.integers(-2, 2), st.integers(-3 * DAY, 3 * DAY)))
    local, shown = local_time(name), clock(at, name)
    midnight = shown.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    assert local.day(at) == (midnight.date() - EPOCH.date()).days
    assert local.of_day(at) == (shown.replace(tzinfo=None) - midnight) // timedelta(milliseconds=1)
    offset, end = local.stretch(at)
    assert end > at
    assert offset == (shown.utcoffset() or timedelta()) // timedelta(milliseconds=1)
    assert not [change for change in changes_of(name) if at < change < end]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stretch_ends_where_a_piece_does_and_the_next_begins_there(number: int) -> None:
    """Also where the offset changes in the very millisecond at which a piece ends."""
    local = LocalTime(time_zone("Europe/Berlin"))
    change = parse_rfc3339("2017-10-29T01:00:00Z")
    before, after = local.stretch(change - 1), local.stretch(change)
    assert before == (2 * HOUR, change)
    assert after[0] == HOUR
    at = change + number - 1
    assert local.of_day(at) == ((at + (2 * HOUR if at < change else HOUR)) % DAY)


def test_the_first_instant_of_a_day_that_begins_late_twice_or_not_at_all() -> None:
    # Clocks were put forward at midnight: the day began at one o'clock.
    at = parse_rfc3339("2017-10-14T12:00:00-03:00")
    sao_paulo = local_time("America/Sao_Paulo")
    assert sao_paulo.first_of(sao_paulo.day(at) + 1, at) == parse_rfc3339("2017-10-15T01:00:00-02:00")
    # They were put back at 00:01, into the day before, which ended again an hour later.
    st_johns = local_time("America/St_Johns")
    at = parse_rfc3339("2005-10-29T12:00:00-02:30")
    first, again = (parse_rfc3339(f"2005-10-30T00:00:00{offset}") for offset in ("-02:30", "-03:30"))
    day = st_johns.day(at) + 1
    assert st_johns.first_of(day, at) == first
    assert st_johns.first_of(day, first + MINUTE) == again
    # There was no 30 December 2011: what asks for it gets the 31st.
    apia = local_time("Pacific/Apia")
    at = parse_rfc3339("2011-12-29T12:00:00-10:00")
    assert apia.first_of(apia.day(at) + 1, at) == parse_rfc3339("2011-12-31T00:00:00+14:00")


def test_the_ends_of_the_calendar_have_local_times() -> None:
    for text in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"):
        at = parse_rfc3339(text)
        for name in ("UTC", "Asia/Tokyo", "America/New_York"):
            local = local_time(name)
            assert abs(local.day(at) - at // DAY) <= 1
            assert local.first_of(local.day(at) + 400, at) > at


def test_pieces_that_were_read_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECES_KEPT", 3)
    local = LocalTime(time_zone("Europe/Berlin"))
    for month in range(40):
        local.day(month * 32 * DAY)
        assert len(local._pieces) <= 3


def test_a_name_that_is_no_zone_has_no_local_time() -> None:
    with pytest.raises(ValueError, match="time zone"):
        local_time("Mars/Base")
