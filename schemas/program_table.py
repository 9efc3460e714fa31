"""One table of the program file, and its values: each is checked, and a mistake names its key."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from schemas.money import parse_minor
from schemas.times import DAY, parse_duration

LONGEST = 36_500 * DAY
"""So an instant that lies so far ahead is always one that can be written, which ends with the year 9999."""

LONGEST_NAME = 64
"""Characters of a name, and of a touchpoint's channel."""

LONGEST_TEXT = 256
"""Characters of any other text, and of a touchpoint's action."""

_MOST = 1_000_000_000
_MOST_TEXTS = 32
_DURATION_ALLOWED = 'a duration such as "365d", "24h", "5m", "0s" or "500ms"'


class ProgramError(ValueError):
    """A program file that cannot be used. One line: the key, and what is allowed there."""


def refuse(key: str, allowed: str) -> NoReturn:
    """Raise ``ProgramError`` for a key."""
    raise ProgramError(f"{key}: {allowed}")


class Table:
    """One table of the file, all of whose keys are known ones."""

    def __init__(self, path: str, values: object, allowed: tuple[str, ...] | None) -> None:
        self.path = path
        if not isinstance(values, dict):
            refuse(path, f"expected a table [{path}]")
        self.values: dict[str, Any] = values
        for key in self.values if allowed is not None else ():
            if key not in (allowed or ()):
                refuse(self.at(key), f"unknown key; allowed are {', '.join(allowed or ())}")

    def at(self, key: str) -> str:
        """How a message names a key of this table."""
        shown = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)
        return f"{self.path}.{shown}" if self.path else shown

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str, allowed: str, default: object = None) -> Any:
        """A value of any type; one without a default must be there."""
        value = self.values.get(key, default)
        if value is None:
            refuse(self.at(key), f"missing; allowed is {allowed}")
        return value

    def text(self, key: str, allowed: str, default: str | None = None) -> str:
        """A string."""
        value = self.get(key, allowed, default)
        if not isinstance(value, str):
            refuse(self.at(key), f"expected {allowed}, in quotes")
        return value

    def name(self, key: str, longest: int) -> str:
        """A string of 1 to ``longest`` characters that must be there."""
        allowed = f"1 to {longest} characters"
        value = self.text(key, allowed)
        if not 1 <= len(value) <= longest:
            refuse(self.at(key), f"expected {allowed}")
        return value

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of some strings; the first is the default."""
        value = self.text(key, f"one of {', '.join(choices)}", choices[0])
        if value not in choices:
            refuse(self.at(key), f"expected one of {', '.join(choices)}")
        return value

    def duration(self, key: str, default: str | None = None, least: int = 0, most: int | None = None) -> int:
        """Milliseconds; ``most`` is a whole number of days."""
        text = self.text(key, _DURATION_ALLOWED, default)
        try:
            value = parse_duration(text)
        except ValueError:
            refuse(self.at(key), f"expected {_DURATION_ALLOWED}")
        if value < least:
            refuse(self.at(key), "expected a duration above zero")
        if most is not None and value > most:
            refuse(self.at(key), f"expected a duration of at most {most // DAY}d")
        return value

    def texts(self, key: str, longest: int, default: tuple[str, ...] = (), least: int = 0) -> tuple[str, ...]:
        """An array of different strings."""
        some = f"{least} to {_MOST_TEXTS}" if least else f"at most {_MOST_TEXTS}"
        allowed = f"an array of {some} different strings of 1 to {longest} characters each"
        entries = self.get(key, allowed, list(default))
        if not isinstance(entries, list) or not least <= len(entries) <= _MOST_TEXTS:
            refuse(self.at(key), f"expected {allowed}")
        for index, entry in enumerate(entries):
            if not isinstance(entry, str) or not 1 <= len(entry) <= longest or entry in entries[:index]:
                refuse(f"{self.at(key)}[{index}]", f"expected {allowed}")
        return tuple(entries)

    def tables(self, key: str, allowed: tuple[str, ...], most: int, least: int = 0) -> list[Table]:
        """An array of tables, ``[[key]]``, all of whose keys are known ones."""
        some = f"{least} to {most}" if least else f"at most {most}"
        expected = f"{some} tables [[{self.at(key)}]]"
        entries = self.get(key, expected, None if least else [])
        if not isinstance(entries, list) or not least <= len(entries) <= most:
            refuse(self.at(key), f"expected {expected}")
        return [Table(f"{self.at(key)}[{index}]", entry, allowed) for index, entry in enumerate(entries)]


def whole(key: str, value: object, least: int = 1, most: int = _MOST) -> int:
    """A whole number from ``least`` up."""
    # type(), as true and false are integers to Python.
    if type(value) is not int or not least <= value <= most:
        refuse(key, f"expected a whole number from {least} to {most}, without quotes")
    return value


def money(key: str, value: object, decimals: int, least: int = 1) -> int:
    """An amount in minor units, above zero unless ``least`` is 0."""
    above = " above zero" if least else ""
    allowed = f"an amount{above} in quotes with at most {decimals} decimals and 13 digits before the point"
    if not isinstance(value, str):
        refuse(key, f"expected {allowed}")
    try:
        amount = parse_minor(value, decimals)
    except ValueError:
        refuse(key, f"expected {allowed}")
    if amount < least:
        refuse(key, f"expected {allowed}")
    return amount


def decimal(key: str, value: object, places: int, allowed: str, most: int, least: int = 0) -> int:
    """A decimal in quotes, in units of its last place allowed: ``"0.05"`` with six places is 50,000."""
    try:
        number = parse_minor(value, places) if isinstance(value, str) else -1
    except ValueError:
        number = -1
    if not least <= number <= most:
        refuse(key, f"expected {allowed}")
    return number


def share(key: str, value: object) -> int:
    """A share in quotes, in parts per million."""
    allowed = 'a decimal from 0 to 1 in quotes, at most 6 digits behind the point, such as "0.05"'
    return decimal(key, value, 6, allowed, 1_000_000)
