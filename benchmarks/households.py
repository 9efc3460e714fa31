"""Who buys in a live flow: the demo's households, as they are now."""

import re
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path

from cli.demo.data import Event
from cli.demo.data import events as of_the_year
from cli.local_jars import ROOT
from schemas.times import format_ms
from streams.protocols import PURCHASES

PROGRAM = ROOT / "examples" / "grocery.toml"
#: What of the program is left out in the flow: who buys enough at once is silver, and so can be a probe.
_FREQUENT = "min_frequency = 5\n"

_OCCURRED_AT = re.compile(rb'"occurred_at":"([^"]*)"')
_CUSTOMER = re.compile(rb'"customer_id":"([^"]*)"')
_AMOUNT = re.compile(rb'"amount":"([^"]*)"')


def flow_program(path: Path) -> Path:
    """Write the demo's program as it is for the flow."""
    text = PROGRAM.read_text()
    if text.count(_FREQUENT) != 1:
        raise ValueError(f"{PROGRAM.name} does not say {_FREQUENT.strip()!r} once")
    path.write_text(text.replace(_FREQUENT, ""))
    return path


def households(copies: int, window: int, now: int) -> list[Event]:
    """The demo's purchases as if its year ended now (epoch ms): those within the window (ms), in order of time, each of
    so many households who buy alike."""
    year = [event for event in of_the_year() if event.topic == PURCHASES]
    later = now - year[-1].occurred_at
    return [
        _as_of(event, event.occurred_at + later, b"%b-%d" % (event.key, copy))
        for event in year
        if event.occurred_at + later > now - window
        for copy in range(copies)
    ]


def _as_of(event: Event, at: int, key: bytes) -> Event:
    value = _OCCURRED_AT.sub(b'"occurred_at":"%b"' % format_ms(at).encode(), event.value, 1)
    return Event(event.topic, key, _CUSTOMER.sub(b'"customer_id":"%b"' % key, value, 1), at)


def again(events: Sequence[Event]) -> Iterator[tuple[str, str]]:
    """Who bought, and for how much, in the same order again and again."""
    found = [(event.key.decode(), _AMOUNT.search(event.value)) for event in events]
    return cycle([(customer, amount[1].decode()) for customer, amount in found if amount is not None])
