"""The batch computation's contact policy and holdout: docs/bonds.md a second time, by trying every instant."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Literal, NamedTuple

from schemas.bond_records import HoldoutDraw
from schemas.event_key import event_key
from schemas.events import TouchpointMade
from schemas.program import Program
from schemas.program_bonds import MILLION, Cap, ContactPolicy, Holdout, Scenario
from schemas.times import DAY
from schemas.zones import time_zone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = 60_000
_QUARTER = 15 * _MINUTE


class Place(NamedTuple):
    """A trigger that was sent, or a reserved place: its id, when, and its channel."""

    trigger_id: str
    at: int
    channel: str


class BatchPermission(NamedTuple):
    """``until`` is the instant to which it is deferred; ``reason`` is None where it is allowed."""

    verdict: Literal["allow", "defer", "suppress"]
    until: int | None
    reason: str | None


def draw(holdout: Holdout | None, scenario: Scenario | None, customer_id: str) -> HoldoutDraw | None:
    """Whether a customer is held out; None where the program holds nobody out."""
    if holdout is None:
        return None

    def below(share: int, name: str) -> bool:
        text = f"{holdout.salt}:{holdout.version}:{name}:{customer_id}"
        first = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
        return first * MILLION < share * 2**64

    return HoldoutDraw(
        overall=below(holdout.share, ""),
        scenario=scenario is not None and below(scenario.holdout, scenario.name),
        salt=holdout.salt,
        version=holdout.version,
    )


def zone_of(program: Program, touches: Iterable[TouchpointMade]) -> str:
    """The customer's time zone by its newest touchpoint that tells one, else the program's. Of two at one instant
    the name that sorts last."""
    told = [(touch.occurred_at, touch.timezone) for touch in touches if touch.timezone is not None]
    return max(told)[1] if told else program.timezone


def contacts(
    policy: ContactPolicy, touches: Iterable[TouchpointMade], places: Iterable[Place], at: int
) -> list[tuple[int, str]]:
    """What counts under the caps as of an instant, with the channel: those after it too."""
    outbound = [
        touch
        for touch in touches
        if touch.direction == "outbound"
        and (touch.action is None or touch.action not in policy.transactional)
    ]
    found = [(touch.occurred_at, touch.channel) for touch in outbound if touch.trigger_id is None]
    sent = {place.trigger_id: place for place in places}
    for trigger_id in {touch.trigger_id for touch in outbound if touch.trigger_id is not None}:
        carried = [touch for touch in outbound if touch.trigger_id == trigger_id]
        last = max(carried, key=lambda touch: (touch.occurred_at, event_key(touch.source, touch.event_id)))
        place = sent.get(trigger_id)
        if place is None or last.occurred_at < place.at - policy.lapse:
            found.append((last.occurred_at, last.channel))
            continue
        del sent[trigger_id]
        later = last.channel if last.occurred_at >= place.at else place.channel
        found.append((max(last.occurred_at, place.at), later))
    found += [(place.at, place.channel) for place in sent.values() if at < place.at + policy.lapse]
    return found


def permission(
    program: Program,
    touches: list[TouchpointMade],
    places: list[Place],
    channel: str,
    action: str | None,
    at: int,
) -> BatchPermission:
    """Whether the customer may be contacted by a channel, as far as is known."""
    policy = None if program.bonds is None else program.bonds.contact_policy
    if policy is None or (action is not None and action in policy.transactional):
        return BatchPermission("allow", None, None)
    caps = [cap for cap in policy.caps if cap.channel in (None, channel)]
    for cap in caps:
        if cap.most == 0:
            return BatchPermission("suppress", None, f"cap: {cap.channel or 'all channels'}, never")
    zone = zone_of(program, touches)

    def against(then: int) -> str | None:
        counted = contacts(policy, touches, places, then)
        full = [_words(cap) for cap in caps if _is_full(cap, counted, then, zone)]
        return full[0] if full else _quiet(policy, then, zone)

    reason = against(at)
    if reason is None:
        return BatchPermission("allow", None, None)
    first = next(then for then in _instants(policy, touches, places, at, zone) if against(then) is None)
    return BatchPermission("defer", first, reason)


def _is_full(cap: Cap, counted: list[tuple[int, str]], at: int, zone: str) -> bool:
    times = [time for time, channel in counted if cap.channel in (None, channel)]
    if cap.within is not None and sum(time > at - cap.within for time in times) >= cap.most:
        return True
    if cap.days is None:
        return False
    first = _local(at, zone).toordinal() - cap.days + 1
    return sum(_local(time, zone).toordinal() >= first for time in times) >= cap.most


def _words(cap: Cap) -> str:
    """What a full cap gives as the reason."""
    span = "in a local day" if cap.days == 1 else f"in {cap.days} local days"
    if cap.within is not None:
        units = (("d", DAY), ("h", 60 * _MINUTE), ("m", _MINUTE), ("s", 1_000), ("ms", 1))
        unit, size = next((unit, size) for unit, size in units if cap.within % size == 0)
        span = f"within {cap.within // size}{unit}"
    return f"cap: {cap.channel or 'all channels'}, {cap.most} {span}"


def _quiet(policy: ContactPolicy, at: int, zone: str) -> str | None:
    """The reason, where an instant lies in quiet hours."""
    if policy.quiet is None:
        return None
    start, end = policy.quiet
    local = _local(at, zone)
    minute = local.hour * 60 + local.minute
    is_quiet = start <= minute < end if start < end else minute >= start or minute < end
    if not is_quiet:
        return None
    return f"quiet hours: {start // 60:02}:{start % 60:02} to {end // 60:02}:{end % 60:02}"


def _instants(
    policy: ContactPolicy, touches: list[TouchpointMade], places: list[Place], at: int, zone: str
) -> list[int]:
    """Every later instant at which something may stop to stand against a contact: far enough, and in order."""
    times = [touch.occurred_at for touch in touches] + [place.at for place in places]
    instants = {place.at + policy.lapse for place in places}
    instants |= {time + cap.within for time in times for cap in policy.caps if cap.within is not None}
    days = max([0, *(cap.days for cap in policy.caps if cap.days is not None)])
    last = max([at, *times, *instants]) + (days + 3) * DAY
    walls = [0] if policy.quiet is None else [0, policy.quiet[1] * _MINUTE]
    for day in range(at // DAY - 2, last // DAY + 1):
        instants |= {day * DAY + wall - offset for offset in _offsets(zone, day) for wall in walls}
        instants |= set(_jumps(zone, day))
    return sorted(instant for instant in instants if instant > at)


def _local(at: int, zone: str) -> datetime:
    return (_EPOCH + timedelta(milliseconds=at)).astimezone(time_zone(zone))


def _offset(at: int, zone: str) -> int:
    """Local time less UTC, in milliseconds."""
    offset = _local(at, zone).utcoffset()
    assert offset is not None
    return offset // timedelta(milliseconds=1)


@lru_cache(maxsize=100_000)
def _offsets(zone: str, day: int) -> set[int]:
    """What local clocks may differ by around a day since 1970."""
    return {_offset((day + beside) * DAY, zone) for beside in (-1, 0, 1, 2)}


@lru_cache(maxsize=100_000)
def _jumps(zone: str, day: int) -> tuple[int, ...]:
    """The instants of a UTC day at which local clocks are set."""
    found = []
    for quarter in range(day * DAY, (day + 1) * DAY, _QUARTER):
        before, after = quarter - 1, quarter + _QUARTER - 1
        if _offset(before, zone) == _offset(after, zone):
            continue
        while after - before > 1:
            middle = (before + after) // 2
            if _offset(middle, zone) == _offset(before, zone):
                before = middle
            else:
                after = middle
        found.append(after)
    return tuple(found)
