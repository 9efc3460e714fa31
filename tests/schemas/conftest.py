"""What the tests of the wire share: the examples' program, a decoder for it, and records made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from schemas.events import EventDecoder
from schemas.example_files import PROGRAM_FILE
from schemas.program import Program, load_program


class HandMadeRecord(NamedTuple):
    value: bytes | None
    key: bytes | None = b"900"
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int = 1_491_134_010_000


@pytest.fixture(scope="session")
def program() -> Program:
    return load_program(PROGRAM_FILE)


@pytest.fixture(scope="session")
def decoder(program: Program) -> EventDecoder:
    return EventDecoder(program)


@pytest.fixture(scope="session")
def decode(decoder: EventDecoder) -> Callable[[str, Any], Any]:
    """Decodes a record as one of a topic."""
    by_topic = {
        "purchases": decoder.purchase,
        "touchpoints": decoder.touchpoint,
        "customer-commands": decoder.command,
    }
    return lambda topic, record: by_topic[topic](record)


@pytest.fixture(scope="session")
def record() -> type[HandMadeRecord]:
    return HandMadeRecord
