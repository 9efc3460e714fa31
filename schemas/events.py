"""Input events: what a valid record says. ``schemas.decoding`` makes them of a record's bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

MAX_RECORD_BYTES = 64 * 1024
"""Key, value, and names and values of the headers together."""


class Record(Protocol):
    """A Kafka record, as far as it is read here; aiokafka's ConsumerRecord is one. ``timestamp``: ms."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...
    @property
    def timestamp(self) -> int: ...


class PurchaseMade(msgspec.Struct, gc=False):
    """A purchase, or a part of one: purchases with one ``order_id`` add up to one order.

    ``amount`` is in minor units of the program's currency, already converted; ``occurred_at`` in epoch ms.
    """

    customer_id: str
    event_id: str
    source: str
    order_id: str
    amount: int
    occurred_at: int
    channel: str | None = None
    store_id: str | None = None
    campaign_id: str | None = None
    subscription_id: str | None = None


class RefundMade(msgspec.Struct, gc=False):
    """A refund: lowers its order by ``amount``, at the order's own date. Units as in ``PurchaseMade``."""

    customer_id: str
    event_id: str
    source: str
    order_id: str
    amount: int
    occurred_at: int
    channel: str | None = None
    store_id: str | None = None
    campaign_id: str | None = None
    subscription_id: str | None = None


class TouchpointMade(msgspec.Struct, gc=False):
    """A contact with the customer; ``direction`` is ``inbound`` or ``outbound``, ``occurred_at`` epoch ms."""

    customer_id: str
    event_id: str
    source: str
    occurred_at: int
    channel: str
    direction: str
    action: str | None = None
    campaign_id: str | None = None
    store_id: str | None = None
    staff_id: str | None = None
    order_id: str | None = None
    subscription_id: str | None = None
    trigger_id: str | None = None
    timezone: str | None = None


OverrideMode = Literal["pin", "floor", "clear"]


class OverrideCommanded(msgspec.Struct, gc=False):
    """Somebody decided a customer's tier by hand; see docs/tiers.md. Times are epoch ms.

    ``tier`` is empty and ``until`` 0 where the mode is ``clear``; else ``until`` is after ``occurred_at``.
    """

    customer_id: str
    event_id: str
    source: str
    occurred_at: int
    mode: OverrideMode
    tier: str
    until: int
    actor: str
    reason: str
