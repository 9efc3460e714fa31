"""Time zones, from the pinned tzdata package."""

from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

_NAMES = frozenset(resources.files("tzdata").joinpath("zones").read_text("utf-8").split())


def is_time_zone(name: str) -> bool:
    """Whether ``time_zone`` knows the name, without reading the zone: names come from outside, and many."""
    return name in _NAMES


@lru_cache(maxsize=64)
def time_zone(name: str) -> ZoneInfo:
    """A time zone from the ``tzdata`` package, whatever the system has, so that all workers cut days alike.

    Raises ``ValueError`` for a name the package does not have.
    """
    parts = name.split("/")
    if not all(part and part.strip(".") for part in parts):
        raise ValueError(f"{name!r} is no IANA time zone")
    try:
        with resources.files("tzdata.zoneinfo").joinpath(*parts).open("rb") as data:
            return ZoneInfo.from_file(data, key=name)
    except (OSError, ValueError):
        raise ValueError(f"{name!r} is no time zone of the tzdata package") from None
