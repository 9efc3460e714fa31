"""Contact counts over the last local days, by the pinned time zone data."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from zoneinfo import ZoneInfo

from loyalty.customer import Customer
from schemas.program import Program
from schemas.tier_change import ContactCounts
from schemas.zones import time_zone

_DAY = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_time_of = attrgetter("time")


def local_day(at: int, zone: ZoneInfo) -> int:
    """The number of the calendar day (``date.toordinal``) that ``at`` falls on in a time zone."""
    try:
        return (_EPOCH + timedelta(milliseconds=at)).astimezone(zone).toordinal()
    except OverflowError:  # in the last hours of the year 9999 the local day is no date any more
        return date.max.toordinal()


class ContactWindow:
    """The program's contact window: ``contact_days`` calendar days of its time zone, the last one
    included."""

    def __init__(self, program: Program) -> None:
        self._zone = time_zone(program.timezone)
        self._days = program.contact_days
        self.reach = (program.contact_days + 2) * _DAY
        """Milliseconds back from any instant beyond which no touch counts, whatever the zone's jumps."""

    def counts(self, customer: Customer, at: int) -> dict[str, ContactCounts]:
        """Touches per channel up to ``at``, those on the first local day and later; sorted by channel."""
        touches = customer.touches
        first_day = local_day(at, self._zone) - self._days + 1
        # A zone's clock jumps by a day at most (the date line), so only touches near the first day need
        # theirs.
        surely = at - (self._days - 3) * _DAY
        farthest = at - self.reach
        tally: dict[int, list[int]] = {}
        for index in range(bisect_right(touches, at, key=_time_of) - 1, -1, -1):
            touch = touches[index]
            if touch.time < farthest:
                break
            if touch.time < surely and local_day(touch.time, self._zone) < first_day:
                continue
            tally.setdefault(touch.channel, [0, 0])[touch.outbound] += 1
        named = sorted((customer.channels[channel], counts) for channel, counts in tally.items())
        return {name: ContactCounts(inbound, outbound) for name, (inbound, outbound) in named}
