"""The work of README.md for the peers in Python: it needs msgspec and nothing of the project, whose versions of
libraries a peer may not share. State is bytes, so that a store takes it as it is.

A customer is a head and one entry of 24 bytes for each order in the window, the oldest first. An event appends an
entry and cuts those that have left off the front: nothing is ever unpacked or packed as a whole.
"""

import json
import os
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

_Id = Annotated[str, Meta(min_length=1, max_length=128)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_AMOUNT = re.compile(rb'"?(0|[1-9][0-9]{0,12})(?:\.([0-9]{1,2}))?"?')

# Time of the customer (ms), monetary (cents), tier (an index).
_HEAD = Struct("<qqB")
# Hash of the order's id, time (ms), amount (cents).
_ENTRY = Struct("<8sqq")
_TIME = Struct("<q")
_HEADED, _LONG = _HEAD.size, _ENTRY.size


class Purchase(msgspec.Struct, gc=False):
    """What a valid record says. `amount` is its JSON text yet."""

    event_id: _Id
    type: Literal["purchase"]
    customer_id: _Id
    occurred_at: Annotated[datetime, Meta(tz=True)]
    order_id: _Id
    amount: msgspec.Raw
    currency: str
    channel: str | None = None
    store_id: str | None = None
    campaign_id: str | None = None


class Tier(msgspec.Struct, frozen=True):
    """Its thresholds, money in cents."""

    name: str
    min_monetary: int
    min_frequency: int


class Program(msgspec.Struct, frozen=True):
    """What PEER_PROGRAM holds."""

    window_ms: int
    currency: str
    tiers: tuple[Tier, ...]


class Event(NamedTuple):
    """One purchase: time in epoch ms, amount in cents."""

    customer_id: str
    order_id: str
    at: int
    amount: int


class Change(NamedTuple):
    """What is to be published: tiers by index, `at` and `newest` (the newest order) in epoch ms, money in cents."""

    customer_id: str
    order_id: str
    before: int
    tier: int
    at: int
    newest: int
    frequency: int
    monetary: int


def cents(raw: bytes) -> int:
    """An amount's JSON text in cents. Raises ValueError."""
    found = _AMOUNT.fullmatch(raw)
    if found is None or raw.startswith(b'"') != raw.endswith(b'"'):
        raise ValueError(f"amount: {raw!r}")
    whole, part = found.groups()
    return int(whole) * 100 + (int(part.ljust(2, b"0")) if part else 0)


class Decoder:
    """Records become events."""

    def __init__(self, program: Program) -> None:
        self._decode = msgspec.json.Decoder(Purchase).decode
        self._currency = program.currency
        # Prices repeat.
        self._amounts: dict[bytes, int] = {}

    def event(self, value: bytes) -> Event:
        """Decode and validate. Raises ValueError (msgspec's errors are such) for what is invalid."""
        body = self._decode(value)
        if body.currency != self._currency:
            raise ValueError(f"currency: {body.currency!r}")
        raw = bytes(body.amount)
        amount = self._amounts.get(raw)
        if amount is None:
            if len(self._amounts) > 65_536:
                self._amounts.clear()
            amount = self._amounts[raw] = cents(raw)
        return Event(body.customer_id, body.order_id, (body.occurred_at - _EPOCH) // _MS, amount)

    def events(self, values: Iterable[bytes]) -> list[Event]:
        """The valid ones of many records."""
        decoded = []
        for value in values:
            try:
                decoded.append(self.event(value))
            except ValueError as error:
                tell_invalid(value, error)
        return decoded


class Work:
    """One program's rules over packed customers."""

    def __init__(self, program: Program) -> None:
        self._window = program.window_ms
        self._ladder = [(tier.min_monetary, tier.min_frequency) for tier in program.tiers]
        self._names = [tier.name for tier in program.tiers]

    def apply(self, state: bytes | None, event: Event) -> tuple[bytes, Change | None]:
        """The customer after an event, and the change it brings. `state` itself comes back where nothing changes."""
        customer_id, order_id, at, amount = event
        order = blake2b(order_id.encode(), digest_size=8).digest()
        if state:
            time, monetary, before = _HEAD.unpack_from(state)
            if at < time:
                return self._late(state, event, order)
        else:
            state, monetary, before = b"\0" * _HEADED, 0, 0
        kept, start, length = _HEADED, at - self._window, len(state)
        while kept < length:
            _, left, less = _ENTRY.unpack_from(state, kept)
            if left > start:
                break
            monetary -= less
            kept += _LONG
        found = state.find(order, kept)
        while found >= 0:
            if not (found - _HEADED) % _LONG:
                return state, None
            found = state.find(order, found + 1)
        monetary += amount
        frequency = (length - kept) // _LONG + 1
        tier = self._tier(monetary, frequency)
        after = _HEAD.pack(at, monetary, tier) + state[kept:] + _ENTRY.pack(order, at, amount)
        if tier == before:
            return after, None
        return after, Change(customer_id, order_id, before, tier, at, at, frequency, monetary)

    def _late(self, state: bytes, event: Event, order: bytes) -> tuple[bytes, Change | None]:
        time, monetary, before = _HEAD.unpack_from(state)
        entries = [_ENTRY.unpack_from(state, at) for at in range(_HEADED, len(state), _LONG)]
        if event.at <= time - self._window or any(known == order for known, _, _ in entries):
            return state, None
        place = sum(at <= event.at for _, at, _ in entries)
        entries.insert(place, (order, event.at, event.amount))
        monetary += event.amount
        tier = self._tier(monetary, len(entries))
        after = _HEAD.pack(time, monetary, tier) + b"".join(_ENTRY.pack(*entry) for entry in entries)
        if tier == before:
            return after, None
        newest: int = entries[-1][1]
        told = event.customer_id, event.order_id
        return after, Change(*told, before, tier, time, newest, len(entries), monetary)

    def _tier(self, monetary: int, frequency: int) -> int:
        ladder = self._ladder
        tier = len(ladder) - 1
        while monetary < ladder[tier][0] or frequency < ladder[tier][1]:
            tier -= 1
        return tier

    def record(self, change: Change) -> bytes:
        """The value of a tier change."""
        return msgspec.json.encode(
            {
                "customer_id": change.customer_id,
                "order_id": change.order_id,
                "previous_tier": self._names[change.before],
                "tier": self._names[change.tier],
                "effective_at": (_EPOCH + timedelta(milliseconds=change.at)).isoformat(
                    timespec="milliseconds"
                )[:-6]
                + "Z",
                "rfm": {
                    "recency_seconds": (change.at - change.newest) // 1000,
                    "frequency": change.frequency,
                    "monetary": f"{change.monetary // 100}.{change.monetary % 100:02}",
                },
            }
        )


class Place(msgspec.Struct, frozen=True):
    """What the harness tells a peer; README.md names the variables."""

    brokers: str
    input: str
    output: str
    partitions: int
    group: str
    events: int
    state: Path
    redis_url: str
    program: Program

    @classmethod
    def read(cls) -> "Place":
        """From the variables of this process."""
        told: dict[str, Any] = {
            name: os.environ[f"PEER_{name.upper()}"] for name in cls.__struct_fields__ if name != "program"
        }
        program = msgspec.json.decode(Path(os.environ["PEER_PROGRAM"]).read_bytes(), type=Program)
        told |= {
            "partitions": int(told["partitions"]),
            "events": int(told["events"]),
            "state": Path(told["state"]),
        }
        return cls(**told, program=program)


def tell(event: str, **more: int) -> None:
    """A line for the harness."""
    print(json.dumps({"event": event} | more, separators=(",", ":")), flush=True)


def tell_invalid(value: bytes, error: ValueError) -> None:
    """A record that is left out."""
    print(f"left out: {error}: {value!r}", file=sys.stderr, flush=True)
