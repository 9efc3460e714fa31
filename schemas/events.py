"""Input events: what a valid record says. ``schemas.decoding`` makes them of a record's bytes.

Plain classes and no structs of msgspec: compiled, their fields are read where they lie, and an event is asked for its
fields a dozen times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Protocol, Self

from mypy_extensions import mypyc_attr

MAX_RECORD_BYTES = 64 * 1024
"""Key, value, and names and values of the headers together."""

OverrideMode = Literal["pin", "floor", "clear"]


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


@mypyc_attr(acyclic=True)
class InputEvent:
    """What all events have: whose they are, the id and its source, and when they happened (epoch milliseconds)."""

    __slots__ = ("customer_id", "event_id", "occurred_at", "source")
    FIELDS: ClassVar[tuple[str, ...]] = ("customer_id", "event_id", "source", "occurred_at")

    def __init__(self, customer_id: str, event_id: str, source: str, occurred_at: int) -> None:
        self.customer_id = customer_id
        self.event_id = event_id
        self.source = source
        self.occurred_at = occurred_at

    def said(self) -> dict[str, Any]:
        """All its fields, by name."""
        return {name: getattr(self, name) for name in self.FIELDS}

    def but(self, **fields: Any) -> Self:
        """The same event with other fields."""
        kind: Any = type(self)
        made: Self = kind(**(self.said() | fields))
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As ``but``: copying would make an event without its fields first, which a compiled class does not allow."""
        return self.but()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InputEvent) and type(other) is type(self) and self.said() == other.said()

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value!r}" for name, value in self.said().items())
        return f"{type(self).__name__}({told})"


@mypyc_attr(acyclic=True)
class OrderEvent(InputEvent):
    """What a purchase and a refund have: ``amount`` is in minor units of the program's currency, already converted."""

    __slots__ = ("amount", "campaign_id", "channel", "order_id", "store_id", "subscription_id")
    FIELDS: ClassVar[tuple[str, ...]] = (
        *(*InputEvent.FIELDS, "order_id", "amount"),
        *("channel", "store_id", "campaign_id", "subscription_id"),
    )

    def __init__(
        self,
        customer_id: str,
        event_id: str,
        source: str,
        order_id: str,
        amount: int,
        occurred_at: int,
        channel: str | None = None,
        store_id: str | None = None,
        campaign_id: str | None = None,
        subscription_id: str | None = None,
    ) -> None:
        super().__init__(customer_id, event_id, source, occurred_at)
        self.order_id = order_id
        self.amount = amount
        self.channel = channel
        self.store_id = store_id
        self.campaign_id = campaign_id
        self.subscription_id = subscription_id


@mypyc_attr(acyclic=True)
class PurchaseMade(OrderEvent):
    """A purchase, or a part of one: purchases with one ``order_id`` add up to one order."""

    __slots__ = ()


@mypyc_attr(acyclic=True)
class RefundMade(OrderEvent):
    """A refund: lowers its order by ``amount``, at the order's own date."""

    __slots__ = ()


@mypyc_attr(acyclic=True)
class TouchpointMade(InputEvent):
    """A contact with the customer; ``direction`` is ``inbound`` or ``outbound``, ``occurred_at`` epoch ms."""

    __slots__ = (
        *("action", "campaign_id", "channel", "direction", "order_id", "staff_id", "store_id"),
        *("subscription_id", "timezone", "trigger_id"),
    )
    FIELDS: ClassVar[tuple[str, ...]] = (
        *(*InputEvent.FIELDS, "channel", "direction", "action", "campaign_id", "store_id", "staff_id"),
        *("order_id", "subscription_id", "trigger_id", "timezone"),
    )

    def __init__(
        self,
        customer_id: str,
        event_id: str,
        source: str,
        occurred_at: int,
        channel: str,
        direction: str,
        action: str | None = None,
        campaign_id: str | None = None,
        store_id: str | None = None,
        staff_id: str | None = None,
        order_id: str | None = None,
        subscription_id: str | None = None,
        trigger_id: str | None = None,
        timezone: str | None = None,
    ) -> None:
        super().__init__(customer_id, event_id, source, occurred_at)
        self.channel = channel
        self.direction = direction
        self.action = action
        self.campaign_id = campaign_id
        self.store_id = store_id
        self.staff_id = staff_id
        self.order_id = order_id
        self.subscription_id = subscription_id
        self.trigger_id = trigger_id
        self.timezone = timezone


@mypyc_attr(acyclic=True)
class OverrideCommanded(InputEvent):
    """Somebody decided a customer's tier by hand; see docs/tiers.md. Times are epoch ms.

    ``tier`` is empty and ``until`` 0 where the mode is ``clear``; else ``until`` is after ``occurred_at``.
    """

    __slots__ = ("actor", "mode", "reason", "tier", "until")
    FIELDS: ClassVar[tuple[str, ...]] = (*InputEvent.FIELDS, "mode", "tier", "until", "actor", "reason")

    def __init__(
        self,
        customer_id: str,
        event_id: str,
        source: str,
        occurred_at: int,
        mode: OverrideMode,
        tier: str,
        until: int,
        actor: str,
        reason: str,
    ) -> None:
        super().__init__(customer_id, event_id, source, occurred_at)
        self.mode: OverrideMode = mode
        self.tier = tier
        self.until = until
        self.actor = actor
        self.reason = reason
