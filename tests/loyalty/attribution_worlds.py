"""A customer of a program with attribution alone: what is read of them, and what is told."""

from __future__ import annotations

from typing import Any

import msgspec

from loyalty.attribution import Attributions
from loyalty.bond import Bond, BondChange, Bought, Named
from loyalty.customer import Customer
from loyalty.entries import Order, Touch
from loyalty.fold import Fold
from schemas.bond_records import AttributionEvent
from schemas.event_key import event_key
from schemas.events import PurchaseMade, RefundMade, TouchpointMade
from schemas.program import Program
from schemas.program_bonds import Attribution, Bonds
from tests.loyalty.worlds import UNIT, program

Event = PurchaseMade | RefundMade | TouchpointMade

RULES = Attribution(
    window=4 * UNIT,
    campaign_window=12 * UNIT,
    online=("email", "web", "app"),
    offline=("store",),
    visits=("visit", "try"),
)


def attributing(rules: Attribution = RULES, **given: Any) -> Program:
    """A program with attribution alone. Its window is short, so that orders leave it."""
    return program(bonds=Bonds(attribution=rules), **{"window": 9 * UNIT, "ledger": 4000 * UNIT, **given})


class World:
    """One customer whose facts are noted as the fold does, and what was told of them."""

    def __init__(self, of: Program | None = None) -> None:
        self.program = of or attributing()
        self.attributions = Attributions(self.program)
        self._orders = Fold(msgspec.structs.replace(self.program, bonds=None))
        self.customer = Customer("900")
        self.customer.bond = Bond()
        self.time = 0
        self.told: list[BondChange] = []

    def read(self, event: Event) -> list[AttributionEvent]:
        """Note an event; the records that follow from it. A duplicate brings none."""
        self.time = max(self.time, event.occurred_at)
        if isinstance(event, TouchpointMade):
            noted = self._note_touch(event)
            changes = self.attributions.after_touch(self.customer, noted, self.time) if noted else []
        else:
            order = self._note_order(event)
            changes = self.attributions.after_order(self.customer, order, self.time) if order else []
        self.told += changes
        return bodies(changes)

    def _note_order(self, event: PurchaseMade | RefundMade) -> Order | None:
        before = self.customer.orders.get(event.order_id)
        time = None if before is None else before.time
        if self._orders.apply(self.customer, event, None) is None:
            return None
        order = self.customer.orders[event.order_id]
        if order.time != time:
            order.bought = Bought(event.channel, event.store_id, event.campaign_id, event.subscription_id)
        return order

    def _note_touch(self, event: TouchpointMade) -> Touch | None:
        customer = self.customer
        key = event_key(event.source, event.event_id)
        if key in customer.touch_ids:
            return None
        customer.touch_ids[key] = event.occurred_at
        noted = Touch(key, event.occurred_at, 0, event.direction == "outbound")
        if self.attributions.is_online(event.channel) or self.attributions.is_visit(event):
            noted.named = Named(
                event.event_id,
                event.source,
                event.channel,
                event.action,
                event.store_id,
                event.campaign_id,
            )
        customer.touched(noted)
        return noted


def bodies(changes: list[BondChange]) -> list[AttributionEvent]:
    found = []
    for change in changes:
        assert isinstance(change.body, AttributionEvent)
        found.append(change.body)
    return found


def only(records: list[AttributionEvent]) -> AttributionEvent:
    (record,) = records
    return record


def conversions(customer: Customer) -> list[Order | Touch]:
    return [*customer.orders.values(), *customer.touches]
