"""One table of the program file, and its values: each is checked, and a mistake names its key."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from schemas.money import parse_minor
from schemas.times import parse_duration

_MOST = 1_000_000_000
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

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        """One of some strings; the first is the default."""
        value = self.text(key, f"one of {', '.join(choices)}", choices[0])
        if value not in choices:
            refuse(self.at(key), f"expected one of {', '.join(choices)}")
        return value

    def duration(self, key: str, default: str | None = None, least: int = 0) -> int:
        """Milliseconds."""
        text = self.text(key, _DURATION_ALLOWED, default)
        try:
            value = parse_duration(text)
        except ValueError:
            refuse(self.at(key), f"expected {_DURATION_ALLOWED}")
        if value < least:
            refuse(self.at(key), "expected a duration above zero")
        return value


def whole(key: str, value: object, least: int = 1) -> int:
    """A whole number from ``least`` up."""
    # type(), as true and false are integers to Python.
    if type(value) is not int or not least <= value <= _MOST:
        refuse(key, f"expected a whole number from {least} to {_MOST}, without quotes")
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
