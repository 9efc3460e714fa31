"""What the tests of the wire share: the examples' program, a decoder for it, and records made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest

from schemas.decoding import EventDecoder
from schemas.example_files import PROGRAM_FILE
from schemas.program import Program, load_program
from schemas.program_bonds import Bonds


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
def bonded(program: Program) -> EventDecoder:
    """One of the same program, were it to keep bonds."""
    return EventDecoder(msgspec.structs.replace(program, bonds=Bonds()))


@pytest.fixture(scope="session")
def decode(decoder: EventDecoder, bonded: EventDecoder) -> Callable[[str, Any], Any]:
    """Decodes a record as one of a topic; an example of bonds by a program that keeps them."""
    by_topic = {
        "purchases": EventDecoder.purchase,
        "touchpoints": EventDecoder.touchpoint,
        "customer-commands": EventDecoder.command,
    }
    return lambda topic, record: by_topic[topic](
        bonded if getattr(record, "bonds", False) else decoder, record
    )


@pytest.fixture(scope="session")
def record() -> type[HandMadeRecord]:
    return HandMadeRecord
