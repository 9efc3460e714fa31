"""The demo's events, again and again: each pass is the year before, with orders and ids of its own."""

import re
from collections.abc import Iterator
from itertools import islice

from cli.demo.data import Event, events
from streams.protocols import PURCHASES

_YEAR_MS = 365 * 86_400_000
_IDS = re.compile(rb'"(event_id|order_id)":"([^"]*)"')
_YEAR = re.compile(rb'"occurred_at":"([0-9]{4})-')


def purchases(count: int) -> list[Event]:
    """So many purchases in order of time. The last pass is the real year, those before it lie earlier."""
    return _passes([event for event in events() if event.topic == PURCHASES], count)


def everything(count: int) -> list[Event]:
    """The same of purchases and touchpoints together."""
    return _passes(events(), count)


def _passes(year: list[Event], count: int) -> list[Event]:
    passes = -(-count // len(year))
    if passes > 40:  # nothing may lie before 1970
        raise ValueError(f"at most {40 * len(year):,} events")
    every = (event for back in reversed(range(passes)) for event in _shifted(year, back))
    return list(islice(every, count))


def _shifted(year: list[Event], back: int) -> Iterator[Event]:
    mark = b"-%d" % back
    for event in year:
        value = _IDS.sub(rb'"\1":"\2%b"' % mark, event.value)
        value = _YEAR.sub(lambda found: b'"occurred_at":"%d-' % (int(found[1]) - back), value)
        yield Event(event.topic, event.key, value, event.occurred_at - back * _YEAR_MS)
