"""Times and durations as text: RFC 3339 and ``365d``. Always whole milliseconds, never through a float."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache

SECOND = 1_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_EPOCH_DAY = date(1970, 1, 1).toordinal()

_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})")
_CLOCK = re.compile(r"[Tt]([01][0-9]|2[0-3]):([0-5][0-9])")
_REST = re.compile(r":([0-5][0-9]|60)(?:\.([0-9]+))?(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))")
_REST_CACHED = len(":26.000+09:00")

# Every leap second there has been (IERS Bulletin C). Later ones cannot be known here: after the last of
# these, the two days on which all have been, 30 June and 31 December, are taken at their word.
_LEAP_JUNE = (1972, 1981, 1982, 1983, 1985, 1992, 1993, 1994, 1997, 2012, 2015)
_LEAP_DECEMBER = (*range(1972, 1980), 1987, 1989, 1990, 1995, 1998, 2005, 2008, 2016)
_LEAP_DAYS = frozenset(date(y, 6, 30).toordinal() for y in _LEAP_JUNE) | frozenset(
    date(y, 12, 31).toordinal() for y in _LEAP_DECEMBER
)
_LEAP_DAYS_KNOWN_TO = max(_LEAP_DAYS)

_DURATION = re.compile(r"(0|[1-9][0-9]{0,8})(ms|s|m|h|d)")
_UNITS = {"ms": 1, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY}


class _LeapSecondError(ValueError):
    """The seconds read 60, which only the whole time can justify."""


def parse_rfc3339(text: str) -> int:
    """The epoch milliseconds (UTC) of an RFC 3339 time; negative before 1970.

    Finer fractions are cut, not rounded. An offset is required; ``-00:00`` is UTC. Years are 0001 to 9999. A
    leap second, accepted only where UTC had one, is the first second of the next day, as in POSIX time.

    Raises ``ValueError`` for everything else, such as a space for the ``T`` or a day that is not in the
    calendar. Source: RFC 3339, sections 5.6, 5.7 and appendix D.
    """
    rest = text[16:]
    try:
        if len(rest) <= _REST_CACHED:
            return _day(text[:10]) + _clock(text[10:16]) + _cached_rest(rest)
        return _day(text[:10]) + _clock(text[10:16]) + _rest(rest)
    except _LeapSecondError:
        return _leap_second(text)


# A year of events has half a million minutes, but 365 days and 1,440 times of day: so they are kept apart.
@lru_cache(maxsize=8_192)
def _day(text: str) -> int:
    """Milliseconds of the beginning of ``2017-04-02`` in UTC."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("expected an RFC 3339 time")
    year, month, day = map(int, match.groups())
    return (date(year, month, day).toordinal() - _EPOCH_DAY) * DAY


@lru_cache(maxsize=4_096)
def _clock(text: str) -> int:
    """Milliseconds of ``T11:53`` in its day."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError("expected an RFC 3339 time")
    hour, minute = map(int, match.groups())
    return hour * HOUR + minute * MINUTE


def _rest(text: str) -> int:
    """Milliseconds that ``:26.000+09:00`` adds to the minute: seconds and fraction, less the offset."""
    match = _REST.fullmatch(text)
    if match is None:
        raise ValueError("expected an RFC 3339 time with an offset")
    seconds, fraction, sign, hours, minutes = match.groups()
    if seconds == "60":
        raise _LeapSecondError("expected a leap second of UTC")
    ms = int(seconds) * SECOND
    if fraction:
        ms += int(fraction[:3].ljust(3, "0"))
    if sign:
        offset = int(hours) * HOUR + int(minutes) * MINUTE
        ms += offset if sign == "-" else -offset
    return ms


# All of ":SS.mmmZ" fits, and finer times cannot push much memory in: what is longer is not kept.
_cached_rest = lru_cache(maxsize=65_536)(_rest)


def _leap_second(text: str) -> int:
    """The milliseconds of a time whose seconds read 60, if UTC's clock read 23:59:60 then."""
    before = _day(text[:10]) + _clock(text[10:16]) + _rest(":59" + text[19:])
    day, in_day = divmod(before, DAY)
    if in_day < DAY - SECOND:
        raise ValueError("expected a leap second at 23:59:60 UTC")
    ordinal = day + _EPOCH_DAY
    if ordinal not in _LEAP_DAYS:
        if not _LEAP_DAYS_KNOWN_TO < ordinal <= date.max.toordinal():
            raise ValueError("expected a leap second that UTC had")
        at = date.fromordinal(ordinal)
        if (at.month, at.day) not in {(6, 30), (12, 31)}:
            raise ValueError("expected a leap second that UTC had")
    return before + SECOND


def format_ms(ms: int) -> str:
    """Epoch ms as ``2017-04-02T11:53:26.000Z``. Raises ``ValueError`` outside the years 1 to 9999."""
    day, in_day = divmod(ms, DAY)
    return _date(day) + _in_day(in_day // MINUTE) + _in_minute(in_day % MINUTE)


# As with reading: a year has 365 days and 1,440 times of day, and most times are whole seconds.
@lru_cache(maxsize=8_192)
def _date(number: int) -> str:
    """``2017-04-02`` for a day, counted from the epoch's. Raises ``ValueError`` outside the years 1 to 9999."""
    try:
        return date.fromordinal(number + _EPOCH_DAY).isoformat()
    except (OverflowError, ValueError):
        raise ValueError("expected a time in the years 0001 to 9999") from None


@lru_cache(maxsize=4_096)
def _in_day(minute: int) -> str:
    """``T11:53``."""
    return f"T{minute // 60:02}:{minute % 60:02}"


@lru_cache(maxsize=8_192)
def _in_minute(ms: int) -> str:
    """``:26.000Z``."""
    return f":{ms // SECOND:02}.{ms % SECOND:03}Z"


def parse_duration(text: str) -> int:
    """The milliseconds of ``365d``, ``24h``, ``5m``, ``0s`` or ``500ms``: one whole number and one unit.

    A day is 24 hours exactly. Raises ``ValueError`` for everything else.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError('expected a duration such as "365d", "24h", "5m", "0s" or "500ms"')
    number, unit = match.groups()
    return int(number) * _UNITS[unit]
