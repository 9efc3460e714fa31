"""The shapes of purchases and touchpoints for a typed decode: the same rules as the tables in schemas.fields, which a
test holds against each other. In the shapes without an identity, that of the body is an unknown field."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas import fields as f

_Id = Annotated[str, Meta(min_length=1, max_length=128)]
_Source = Annotated[str, Meta(max_length=128)]
_Optional = Annotated[str, Meta(max_length=f.MAX_TEXT)] | None
_TriggerId = Annotated[str, Meta(max_length=f.MAX_TRIGGER_ID)] | None


class PurchaseBody(msgspec.Struct, gc=False, kw_only=True):
    """What a purchase or a refund says besides its identity."""

    type: Literal["purchase", "refund"]
    customer_id: _Id
    occurred_at: str
    order_id: _Id
    amount: msgspec.Raw
    currency: str
    channel: _Optional = None
    store_id: _Optional = None
    campaign_id: _Optional = None
    subscription_id: _Optional = None


class Purchase(PurchaseBody, gc=False, kw_only=True):
    """With its identity."""

    event_id: _Id
    source: _Source | None = None


class TouchpointBody(msgspec.Struct, gc=False, kw_only=True):
    """What a touchpoint says besides its identity."""

    type: Literal["touchpoint"]
    customer_id: _Id
    occurred_at: str
    channel: Annotated[str, Meta(min_length=1, max_length=64)]
    direction: Literal["inbound", "outbound"]
    action: _Optional = None
    campaign_id: _Optional = None
    store_id: _Optional = None
    staff_id: _Optional = None
    order_id: _Optional = None


class Touchpoint(TouchpointBody, gc=False, kw_only=True):
    """With its identity."""

    event_id: _Id
    source: _Source | None = None


class BondTouchpointBody(TouchpointBody, gc=False, kw_only=True):
    """What it says where bonds are kept."""

    subscription_id: _Optional = None
    trigger_id: _TriggerId = None
    timezone: _Optional = None


class BondTouchpoint(BondTouchpointBody, gc=False, kw_only=True):
    """With its identity."""

    event_id: _Id
    source: _Source | None = None
