"""The same a second time: tier changes and state straight from the contract's definitions, summed from
scratch.

This is the reference that the stream is held against, so it is naive on purpose and shares nothing with the
fold but the program, the events, the wire's structs and the time zone data. At every evaluation all orders of
the customer are summed anew; what time brings is found by trying every instant at which anything could
happen. The customer itself is in ``loyalty.batch_customer``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loyalty.batch_customer import BatchCustomer, Event
from schemas.events import OverrideCommanded, TouchpointMade
from schemas.program import Program

__all__ = ["Batch", "BatchCustomer", "batch"]


class Batch:
    """One partition's customers by id, those with touchpoints only too, and how many events were too late.

    Purchases and refunds, touchpoints, and commands have a newest time each. Events older than the ledger are
    left out, as are duplicates, and neither moves it.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.customers: dict[str, BatchCustomer] = {}
        self.too_late = 0
        self._newest: dict[str, int] = {}

    def read(self, event: Event) -> bool:
        """Read the next event of the log; whether it counts, being neither too late nor a duplicate."""
        topic, ledger = _topic(event), self.program.ledger
        horizon = self._newest[topic] - ledger if topic in self._newest else None
        if horizon is not None and event.occurred_at < horizon:
            self.too_late += 1
            return False
        customer = self.customers.get(event.customer_id)
        if customer is None:
            customer = self.customers[event.customer_id] = BatchCustomer(self.program, event.customer_id)
        if customer.is_duplicate(topic, event, horizon):
            return False
        self._newest[topic] = max(event.occurred_at, self._newest.get(topic, 0))
        if isinstance(event, TouchpointMade):
            customer.on_touchpoint(event)
        elif isinstance(event, OverrideCommanded):
            customer.on_command(event)
        else:
            customer.on_purchase_or_refund(event, self._newest[topic] - ledger)
        return True

    def change_program(self, program: Program, at: int) -> None:
        """Let another program hold from ``at`` on: for who is there, when its time comes; for who is born
        from here on, from the start. What is too late, and which ids are known, goes by it at once."""
        for customer in self.customers.values():
            customer.change_program(program, at)
        self.program = program

    def let_fall(self, before: int) -> None:
        """Everything that time brings strictly before an instant, for all customers."""
        for customer in self.customers.values():
            customer.let_fall(before)

    def lines(self, at: int) -> list[dict[str, Any]]:
        """The whole ``state dump`` as of ``at``, sorted by customer_id."""
        return [self.customers[customer_id].line(at) for customer_id in sorted(self.customers)]


def batch(
    program: Program,
    events: Iterable[Event],
    until: int,
    lateness: int | None = None,
) -> Batch:
    """Everything that follows from one partition's events, given in the order of its logs.

    ``until`` is the clock in epoch milliseconds: at the end all that falls due strictly before
    ``until - lateness`` has fallen; ``lateness`` is the program's ``allowed_lateness`` unless given.
    """
    read = Batch(program)
    for event in events:
        read.read(event)
    read.let_fall(before=until - (program.allowed_lateness if lateness is None else lateness))
    return read


def _topic(event: Event) -> str:
    if isinstance(event, TouchpointMade):
        return "touchpoints"
    return "commands" if isinstance(event, OverrideCommanded) else "purchases"
