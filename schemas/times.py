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
_SECOND = re.compile(r":([0-5][0-9])")
_REST = re.compile(r"(?:\.([0-9]+))?(?:[Zz]|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))")
# Parts of times that were read, with their milliseconds.
_days: dict[str, int] = {}
_clocks: dict[str, int] = {}
_seconds: dict[str, int] = {}
_rests: dict[str, int] = {}
_KEPT, _LONGEST_KEPT = 65_536, len(".000+09:00")

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


def parse_rfc3339(text: str) -> int:
    """The epoch milliseconds (UTC) of an RFC 3339 time; negative before 1970.

    Finer fractions are cut, not rounded. An offset is required; ``-00:00`` is UTC. Years are 0001 to 9999. A
    leap second, accepted only where UTC had one, is the first second of the next day, as in POSIX time.

    Raises ``ValueError`` for everything else, such as a space for the ``T`` or a day that is not in the
    calendar. Source: RFC 3339, sections 5.6, 5.7 and appendix D.
    """
    # A year of events has half a million minutes, but 365 days and 1,440 times of day; a day has 86,400,000
    # milliseconds, a second a thousand: so the parts are remembered, and not the whole.
    day, clock, second, rest = text[:10], text[10:16], text[16:19], text[19:]
    if second == ":60":
        return _leap_second(text)
    day_ms = _days.get(day)
    if day_ms is None:
        day_ms = _keep(_days, day, _day(day))
    clock_ms = _clocks.get(clock)
    if clock_ms is None:
        clock_ms = _keep(_clocks, clock, _clock(clock))
    second_ms = _seconds.get(second)
    if second_ms is None:
        second_ms = _keep(_seconds, second, _second(second))
    rest_ms = _rests.get(rest)
    if rest_ms is None:
        rest_ms = _rest(rest)
        # What is longer is finer than a millisecond: of those there may be very many.
        if len(rest) <= _LONGEST_KEPT:
            _keep(_rests, rest, rest_ms)
    return day_ms + clock_ms + second_ms + rest_ms


def _keep(kept: dict[str, int], text: str, ms: int) -> int:
    if len(kept) >= _KEPT:
        kept.clear()
    kept[text] = ms
    return ms


def _day(text: str) -> int:
    """Milliseconds of the beginning of ``2017-04-02`` in UTC."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("expected an RFC 3339 time")
    year, month, day = map(int, match.groups())
    return (date(year, month, day).toordinal() - _EPOCH_DAY) * DAY


def _clock(text: str) -> int:
    """Milliseconds of ``T11:53`` in its day."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError("expected an RFC 3339 time")
    hour, minute = map(int, match.groups())
    return hour * HOUR + minute * MINUTE


def _second(text: str) -> int:
    """Milliseconds of ``:26`` in its minute."""
    match = _SECOND.fullmatch(text)
    if match is None:
        raise ValueError("expected an RFC 3339 time with an offset")
    return int(match[1]) * SECOND


def _rest(text: str) -> int:
    """Milliseconds that ``.000+09:00`` adds to the second: the fraction, less the offset."""
    match = _REST.fullmatch(text)
    if match is None:
        raise ValueError("expected an RFC 3339 time with an offset")
    fraction, sign, hours, minutes = match.groups()
    ms = int(fraction[:3].ljust(3, "0")) if fraction else 0
    if sign:
        offset = int(hours) * HOUR + int(minutes) * MINUTE
        ms += offset if sign == "-" else -offset
    return ms


def _leap_second(text: str) -> int:
    """The milliseconds of a time whose seconds read 60, if UTC's clock read 23:59:60 then."""
    before = _day(text[:10]) + _clock(text[10:16]) + 59 * SECOND + _rest(text[19:])
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
    minute, in_minute = divmod(in_day, MINUTE)
    return _date(day) + _MINUTES[minute] + _SECONDS[in_minute // SECOND] + _MILLISECONDS[in_minute % SECOND]


# As with reading, the parts repeat: a year has 365 days, and a day its minutes.
_MINUTES = tuple(f"T{minute // 60:02}:{minute % 60:02}" for minute in range(DAY // MINUTE))
_SECONDS = tuple(f":{second:02}" for second in range(MINUTE // SECOND))
_MILLISECONDS = tuple(f".{ms:03}Z" for ms in range(SECOND))


@lru_cache(maxsize=8_192)
def _date(number: int) -> str:
    """``2017-04-02`` for a day, counted from the epoch's. Raises ``ValueError`` outside the years 1 to 9999."""
    try:
        return date.fromordinal(number + _EPOCH_DAY).isoformat()
    except (OverflowError, ValueError):
        raise ValueError("expected a time in the years 0001 to 9999") from None


def parse_duration(text: str) -> int:
    """The milliseconds of ``365d``, ``24h``, ``5m``, ``0s`` or ``500ms``: one whole number and one unit.

    A day is 24 hours exactly. Raises ``ValueError`` for everything else.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError('expected a duration such as "365d", "24h", "5m", "0s" or "500ms"')
    number, unit = match.groups()
    return int(number) * _UNITS[unit]
