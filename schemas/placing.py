"""The records of one partition, each read, and asked whether it stands where its customer's records belong."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from schemas.events import InputEvent, Record
from schemas.murmur2 import home
from schemas.rejection import RejectedError

Place = tuple[bytes, int]
"""A record's key, and its partition."""

R = TypeVar("R", bound=Record)


def place_of(customer_id: str, partitions: int) -> Place:
    """The key of a customer's records, and the partition in which they belong."""
    key = customer_id.encode()
    return key, home(key, partitions)


def read_all(
    decode: Callable[[R], InputEvent],
    records: Iterable[R],
    partition: int,
    partitions: int,
) -> tuple[list[tuple[R, InputEvent]], list[tuple[R, Place | RejectedError]]]:
    """The events in the order in which they were read, each beside its record; and the others, each beside why it is
    none, or beside where it should stand.

    ``decode`` raises ``RejectedError`` for what cannot be used; a topic has so many ``partitions``.
    """
    events: list[tuple[R, InputEvent]] = []
    others: list[tuple[R, Place | RejectedError]] = []
    for record in records:
        try:
            event = decode(record)
        except RejectedError as rejected:
            others.append((record, rejected))
            continue
        place = place_of(event.customer_id, partitions)
        if place[1] != partition or record.key != place[0]:
            others.append((record, place))
        else:
            events.append((record, event))
    return events, others
