"""Contact in moderation: whether a customer may be contacted now, and if not, from when on.

What the rules mean: docs/bonds.md. Every answer follows from the customer's touches, the places that triggers hold,
the time zone, and the instant that is asked about.
"""

from __future__ import annotations

from typing import NamedTuple

from loyalty.bond import Bond, Permission
from loyalty.customer import Customer
from loyalty.entries import Touch
from loyalty.local_time import LocalTime, local_time
from schemas.program_bonds import Cap, ContactPolicy
from schemas.times import DAY, HOUR, MINUTE, SECOND

_UNITS = ((DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s"), (1, "ms"))


ALLOWED = Permission("allow")


class _Contact(NamedTuple):
    """A contact as the caps count it. ``frees`` is when it lapses, None where it does not."""

    time: int
    channel: str
    frees: int | None


class Policy:
    """A program's contact policy; ``timezone`` is the program's. Raises ``ValueError`` where that is none."""

    def __init__(self, policy: ContactPolicy, timezone: str) -> None:
        self._transactional = frozenset(policy.transactional)
        self._lapse = policy.lapse
        self._never = [cap for cap in policy.caps if not cap.most]
        self._caps = [_Limit(cap) for cap in policy.caps if cap.most]
        self._quiet = None if policy.quiet is None else _Quiet(*policy.quiet)
        self._zone = local_time(timezone)
        self._longest = max((limit.reach for limit in self._caps), default=0)
        self.reach = self._longest + policy.lapse
        """Milliseconds back from any instant beyond which no touch and no trigger makes a difference to it."""

    def exempts(self, action: str | None) -> bool:
        """Whether a message is transactional: it is always allowed, and no contact."""
        return action in self._transactional

    def permission(self, customer: Customer, channel: str, action: str | None, at: int) -> Permission:
        """Whether the customer may be contacted by this channel at ``at``; an ``action`` of None is not
        transactional. Nothing is changed by asking."""
        if self.exempts(action):
            return ALLOWED
        for cap in self._never:
            if cap.channel is None or cap.channel == channel:
                return Permission("suppress", None, f"cap: {cap.channel or 'all channels'}, never")
        limits = [limit for limit in self._caps if limit.channel is None or limit.channel == channel]
        if not limits and self._quiet is None:
            return ALLOWED
        contacts = self._contacts(customer, at) if limits else []
        full = [(limit, some) for limit in limits if len(some := limit.of(contacts)) >= limit.most]
        if not full and self._quiet is None:
            return ALLOWED
        zone = self._local(customer)
        until, reason = at, None
        while True:
            # Nothing is allowed before the obstacle is gone that stands at `until`: no instant is passed over.
            for limit, some in full:
                free, obstacle = limit.free(some, until, zone), limit.reason
                if free > until:
                    break
            else:
                if self._quiet is None:
                    break
                free, obstacle = self._quiet.over(until, zone), self._quiet.reason
                if free == until:
                    break
            until, reason = free, reason or obstacle
        return ALLOWED if reason is None else Permission("defer", until, reason)

    def forget(self, bond: Bond, at: int, ledger: int = 0) -> None:
        """Let go of the places that no cap can count at ``at`` or later, and that are older than the ``ledger``
        (milliseconds): as long as touches are kept, a changed program's caps may ask for both."""
        start = at - max(self._longest, ledger)
        if any(placed.at <= start for placed in bond.placed):
            bond.placed = [placed for placed in bond.placed if placed.at > start]

    def _local(self, customer: Customer) -> LocalTime:
        name = customer.bond.zone
        if name is None:
            return self._zone
        try:
            return local_time(name)
        except ValueError:  # the data knew the zone when it was told, and does no longer
            return self._zone

    def _contacts(self, customer: Customer, at: int) -> list[_Contact]:
        """All that some cap might count at ``at`` or later, each once."""
        lapse, actions, channels = self._lapse, customer.actions, customer.channels
        after = at - self._longest
        places = [placed for placed in customer.bond.placed if placed.at > after]
        # What joins a place may be older than what counts.
        start = min([after + 1, *(placed.at - lapse for placed in places)]) if places else after + 1
        exempt = {index for index, name in enumerate(actions) if name in self._transactional}
        contacts: list[_Contact] = []
        latest: dict[int, Touch] = {}
        for touch in reversed(customer.touches):
            if touch.time < start:
                break
            if not touch.outbound or touch.action in exempt:
                continue
            if touch.trigger is None:
                contacts.append(_Contact(touch.time, channels[touch.channel], None))
                continue
            known = latest.get(touch.trigger)
            if known is None or (known.time == touch.time and known.key < touch.key):
                latest[touch.trigger] = touch
        for placed in places:
            joined = latest.get(placed.key)
            if joined is None or joined.time < placed.at - lapse:
                contacts.append(_Contact(placed.at, placed.channel, placed.at + lapse))
            elif joined.time < placed.at:
                del latest[placed.key]
                contacts.append(_Contact(placed.at, placed.channel, None))
        contacts += [_Contact(touch.time, channels[touch.channel], None) for touch in latest.values()]
        return contacts


class _Limit:
    """A cap that leaves room for some."""

    def __init__(self, cap: Cap) -> None:
        self.channel = cap.channel
        self.most = cap.most
        self._within = cap.within
        self._days = cap.days or 0
        if cap.within is not None:
            self.reach, span = cap.within, f"within {_duration(cap.within)}"
        else:
            # As many days as are counted, the day on which a zone's clock was put back, and the present one.
            self.reach = (self._days + 2) * DAY
            span = f"in {self._days} local days" if self._days > 1 else "in a local day"
        self.reason = f"cap: {cap.channel or 'all channels'}, {cap.most} {span}"

    def of(self, contacts: list[_Contact]) -> list[_Contact]:
        """Those of the cap's channel."""
        if self.channel is None:
            return contacts
        return [contact for contact in contacts if contact.channel == self.channel]

    def free(self, contacts: list[_Contact], at: int, zone: LocalTime) -> int:
        """``at`` where there is room then; else an instant after it before which there is surely none."""
        # When each contact that counts ceases to, for the first time. (On a day that ends twice it may count again.)
        ends = []
        if self._within is not None:
            for time, _, frees in contacts:
                end = time + self._within
                ends.append(end if frees is None or end < frees else frees)
            ends = [end for end in ends if end > at]
        else:
            day = zone.day(at)
            firsts: dict[int, int] = {}
            for time, _, frees in contacts:
                until = zone.day(time) + self._days
                if day >= until or (frees is not None and frees <= at):
                    continue
                first = firsts.get(until)
                if first is None:
                    first = firsts[until] = zone.first_of(until, at)
                ends.append(first if frees is None or first < frees else frees)
        if len(ends) < self.most:
            return at
        ends.sort()
        return ends[len(ends) - self.most]


class _Quiet:
    """Quiet hours, given in minutes of the local day."""

    def __init__(self, start: int, end: int) -> None:
        self._start, self._end = start * MINUTE, end * MINUTE
        self.reason = "quiet hours: {:02}:{:02} to {:02}:{:02}".format(*divmod(start, 60), *divmod(end, 60))

    def over(self, at: int, zone: LocalTime) -> int:
        """``at`` where it is not quiet then; else the first instant at which it no longer is."""
        while self._holds(zone.of_day(at)):
            at, exact = zone.next_showing(self._end, at)
            if exact:
                break
        return at

    def _holds(self, of_day: int) -> bool:
        if self._start <= self._end:
            return self._start <= of_day < self._end
        return of_day >= self._start or of_day < self._end


def _duration(ms: int) -> str:
    """As the program file says it: ``7d``, ``36h``."""
    return next(f"{ms // unit}{letter}" for unit, letter in _UNITS if not ms % unit)
