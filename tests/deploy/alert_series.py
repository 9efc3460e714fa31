"""What a case of an alert is, and the labels that its series have.

Series are written as promtool has them (`0+5x30`: 30 more values, 5 apart; `_`: no sample), one value a minute.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

SHARD = 'job="kizuna", instance="a:6066", partition="3"'
INPUT = 'job="kizuna", instance="a:6066", partition="3", topic="purchases"'
READ = 'job="kizuna", instance="a:6066", topic="purchases"'
A = 'job="kizuna", instance="a:6066"'
B = 'job="kizuna", instance="b:6066"'


class Case(NamedTuple):
    """`fires` is what the alert says (its summary), with its labels, after so many minutes.

    Where that is nothing, the alert must be silent all the time from minute `since` on.
    """

    alert: str
    what: str
    minutes: int
    series: dict[str, str]
    fires: Mapping[str, dict[str, str]] = MappingProxyType({})
    since: int = 0


def buckets(metric: str, **by_le: str) -> dict[str, str]:
    """A histogram's series: `le_0_5="0+9x30"` is the bucket up to 0.5."""
    return {
        f'{metric}_bucket{{{A}, le="{le.removeprefix("le_").replace("_", ".").replace("inf", "+Inf")}"}}': values
        for le, values in by_le.items()
    }
