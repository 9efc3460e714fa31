"""What counts as JSON, the same on every Python: RFC 8259 in UTF-8, nested at most ``MAX_DEPTH`` levels."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from schemas.rejection import Reason, RejectedError

MAX_DEPTH = 128
"""Objects and arrays within each other, the outermost included. Interpreters overflow at different depths."""

LONG = 2 * MAX_DEPTH
"""Bytes: a value of plain ASCII that is not longer cannot be nested too deep."""

_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"[]", b"{}")


class JsonNumber(str):
    """The text of a JSON number, which no Python number would keep as it was written."""

    __slots__ = ()


def check_text(value: bytes) -> None:
    """Raise ``RejectedError`` (``not_json``) where bytes are not UTF-8 or nested too deep, also where a typed
    decoder would skip over it. A valid event of plain ASCII with few brackets passes in a fraction of a
    microsecond.
    """
    if not value.isascii():
        try:
            value.decode("utf-8")
        except UnicodeDecodeError:
            raise RejectedError(Reason.NOT_JSON, "value: expected UTF-8") from None
    # Too short for that many brackets and their closing ones, or too few of them: no JSON that is too deep.
    if (
        len(value) > LONG
        and value.count(b"{") + value.count(b"[") > MAX_DEPTH
        and _deeper_than(value, MAX_DEPTH)
    ):
        raise RejectedError(Reason.NOT_JSON, f"value: expected at most {MAX_DEPTH} levels of nesting")


def _deeper_than(value: bytes, limit: int) -> bool:
    """Whether brackets outside strings nest deeper; without recursion, in fast steps over the bytes."""
    bare = _STRING.sub(b"", _ESCAPE.sub(b"", value) if b"\\" in value else value)
    brackets = bare.translate(_ONE_KIND, _NOT_BRACKETS)
    for _ in range(limit):
        # The innermost pairs go, one level at a time.
        inner = brackets.replace(b"{}", b"")
        if len(inner) == len(brackets):
            # Nothing is left, or what is left closes nothing and is no JSON at any depth.
            return inner.count(b"{") > limit
        brackets = inner
    return bool(brackets)


def parse(value: bytes) -> Any:
    """The JSON value, its numbers as ``JsonNumber``; of a name given twice, the last counts.

    Takes bytes that ``check_text`` has passed. Raises ``RejectedError`` (``not_json``) for what is no JSON:
    empty, ``NaN`` and ``Infinity``, a byte order mark, a control character in a string, anything after the
    value.
    """
    try:
        return json.loads(
            value.decode("utf-8"), parse_int=JsonNumber, parse_float=JsonNumber, parse_constant=_no_constant
        )
    except ValueError:
        raise RejectedError(Reason.NOT_JSON, "value: expected JSON") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
