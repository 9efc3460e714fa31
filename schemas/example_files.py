"""The example records beside this module: inputs, valid or poison, with what the decoder must say of each, and
outputs.

An input's file is one JSON object: ``about``, ``topic`` (without prefix), ``key``, ``headers`` (pairs of name and
value), ``timestamp`` (RFC 3339), ``expect``, ``bonds`` (true where it is read so by a program that keeps bonds), and
the value in one of four forms: ``value`` (JSON, or null for
no value at all), ``text`` (as it stands), ``base64``, or ``pieces`` (pairs of a text and how often it stands
there). An output's has ``about``, ``type`` (its ``ce_type``), ``value``, and ``schema`` where its own name is not that
of its schema.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple

from schemas.times import parse_rfc3339

FOLDER = Path(__file__).parent / "examples"
PROGRAM_FILE = FOLDER / "program.toml"


class Example(NamedTuple):
    """One example, as a record (``schemas.events.Record``), with what is said about it."""

    name: str
    about: str
    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    expect: dict[str, Any]
    bonds: bool


class OutputExample(NamedTuple):
    """One record as it is published: the name of its schema, its ``ce_type``, and its body as JSON values."""

    name: str
    schema: str
    about: str
    ce_type: str
    value: dict[str, Any]


def output_examples() -> list[OutputExample]:
    """Records that are published."""
    return [
        OutputExample(
            path.stem,
            content.get("schema", path.stem),
            content["about"],
            content["type"],
            content["value"],
        )
        for path in sorted((FOLDER / "outputs").glob("*.json"))
        for content in (json.loads(path.read_bytes()),)
    ]


def valid_examples() -> list[Example]:
    """Records that must be understood; ``expect`` holds fields of the event, and its class as ``event``."""
    return [_read(path) for path in sorted((FOLDER / "valid").glob("*.json"))]


def invalid_examples() -> list[Example]:
    """Records that must be rejected; ``expect`` holds the ``reason``, and the ``field`` the detail names."""
    return [_read(path) for path in sorted((FOLDER / "invalid").glob("*.json"))]


def _read(path: Path) -> Example:
    content = json.loads(path.read_bytes())
    key = content["key"]
    return Example(
        path.stem,
        content["about"],
        content["topic"],
        None if key is None else key.encode(),
        _value(content),
        tuple((name, None if text is None else text.encode()) for name, text in content.get("headers", ())),
        parse_rfc3339(content["timestamp"]),
        content["expect"],
        content.get("bonds", False),
    )


def _value(content: dict[str, Any]) -> bytes | None:
    if "text" in content:
        return str(content["text"]).encode()
    if "base64" in content:
        return base64.b64decode(content["base64"])
    if "pieces" in content:
        return "".join(text * times for text, times in content["pieces"]).encode()
    if content["value"] is None:
        return None
    return json.dumps(content["value"], ensure_ascii=False, separators=(",", ":")).encode()
