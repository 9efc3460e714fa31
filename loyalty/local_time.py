"""Local days and times of the day, exact to the millisecond, also where a zone's clock jumps.

An instant's local time is it plus the zone's offset then: so within a *stretch* of one offset all is plain
arithmetic, and only the stretches have to be found.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from schemas.times import DAY, HOUR
from schemas.zones import time_zone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Near the ends of the calendar a local time is no date any more: the offset of two days before holds.
_FIRST = (datetime(1, 1, 3, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_LAST = (datetime(9999, 12, 29, tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)

#: No zone of the pinned data changes its offset twice within a week (a test asks all of them).
_PROBE = 12 * HOUR
#: Stretches are looked for, and kept, in pieces of this length.
_PIECE = 32 * DAY
_PIECES_KEPT = 2_048


class LocalTime:
    """The local time of a zone. Instants are epoch milliseconds; a day is a number that grows by one with each
    calendar day. Where a clock is put back over midnight, a day ends twice."""

    def __init__(self, zone: ZoneInfo) -> None:
        self._zone = zone
        self._pieces: dict[int, tuple[tuple[int, int], ...]] = {}

    def stretch(self, at: int) -> tuple[int, int]:
        """The offset at an instant, and an instant after it up to which it surely stays."""
        number = at // _PIECE
        piece = self._pieces.get(number)
        if piece is None:
            piece = self._read(number)
        for stretch in piece:
            if at < stretch[1]:
                break
        return stretch

    def day(self, at: int) -> int:
        """The calendar day of an instant."""
        return (at + self.stretch(at)[0]) // DAY

    def of_day(self, at: int) -> int:
        """The milliseconds that the clock shows beyond midnight."""
        return (at + self.stretch(at)[0]) % DAY

    def first_of(self, day: int, at: int) -> int:
        """The first instant, from ``at`` on, of this day or a later one."""
        at = max(at, (day - 1) * DAY)  # an offset is less than a day
        while True:
            offset, end = self.stretch(at)
            first = max(at, day * DAY - offset)
            if first < end:
                return first
            at = end

    def next_showing(self, of_day: int, at: int) -> tuple[int, bool]:
        """The first instant after ``at`` at which the clock shows so many milliseconds beyond midnight, and True;
        or, if it is put forward or back before, that instant and False: the clock may then show anything."""
        offset, end = self.stretch(at)
        shows = at + 1 + (of_day - at - 1 - offset) % DAY
        while shows >= end:
            before = offset
            offset, further = self.stretch(end)
            if offset != before:
                return end, False
            end = further
        return shows, True

    def _read(self, number: int) -> tuple[tuple[int, int], ...]:
        at, end = number * _PIECE, (number + 1) * _PIECE
        found: list[tuple[int, int]] = []
        offset = self._offset(at)
        while at < end:
            probe = min(at + _PROBE, end)
            shown = self._offset(probe)
            if shown != offset:
                low, high = at, probe
                while high - low > 1:
                    middle = (low + high) // 2
                    if self._offset(middle) == offset:
                        low = middle
                    else:
                        high = middle
                found.append((offset, high))
                offset = shown
            at = probe
        if not found or found[-1][1] != end:
            found.append((offset, end))
        if len(self._pieces) >= _PIECES_KEPT:
            self._pieces.clear()
        piece = self._pieces[number] = tuple(found)
        return piece

    def _offset(self, at: int) -> int:
        utc = _EPOCH + timedelta(milliseconds=min(max(at, _FIRST), _LAST))
        offset = utc.astimezone(self._zone).utcoffset()
        assert offset is not None  # a zone's times always have one
        return offset // timedelta(milliseconds=1)


@lru_cache(maxsize=1_024)
def local_time(name: str) -> LocalTime:
    """The local time of an IANA zone of the pinned data. Raises ``ValueError`` for any other name."""
    return LocalTime(time_zone(name))
