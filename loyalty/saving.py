"""What a commit writes of its customers, worked out a part at a time, so that whoever waits has a turn between."""

from __future__ import annotations

from collections.abc import Container, Sequence

from mypy_extensions import mypyc_attr

from loyalty.customer import UNKNOWN, Customer
from loyalty.heads import Packed
from loyalty.packing import Packing
from loyalty.views import Readable


@mypyc_attr(acyclic=True)
class CustomerWrite:
    """One customer's part of a commit.

    ``readable`` is the readable hash, None where it did not change. ``due`` is when time alone next changes something:
    epoch milliseconds, None for never; ``due_changed`` whether it may differ from what the store holds.
    """

    __slots__ = ("customer_id", "due", "due_changed", "packed", "readable")

    def __init__(
        self,
        customer_id: str,
        packed: Packed,
        readable: Readable | None,
        due: int | None,
        due_changed: bool,
    ) -> None:
        self.customer_id = customer_id
        self.packed = packed
        self.readable = readable
        self.due = due
        self.due_changed = due_changed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CustomerWrite) and self._said() == other._said()

    def _said(self) -> tuple[object, ...]:
        return (self.customer_id, self.packed, self.readable, self.due, self.due_changed)


class Saving:
    """The customers of one commit, up to the one that was saved last.

    ``writes`` has their parts, ``born`` counts those of whom the store knows nothing yet. What a customer says of the
    store is then as after the commit: where that fails, the customer must be forgotten.
    """

    def __init__(
        self,
        packing: Packing,
        purchases_newest: int | None,
        touchpoints_newest: int | None,
        commands_newest: int | None,
        shown: Container[str] | None,
    ) -> None:
        """The instants are those of ``Packing.pack``. ``shown``: of whom the readable hash may say something else now;
        None: of all."""
        self._packing = packing
        self._purchases_newest = purchases_newest
        self._touchpoints_newest = touchpoints_newest
        self._commands_newest = commands_newest
        self._shown = shown
        self.writes: list[CustomerWrite] = []
        self.born = 0

    def save(self, customers: Sequence[Customer]) -> None:
        """Add the next customers."""
        packing, shown, writes = self._packing, self._shown, self.writes
        rules = packing.rules
        purchases, touchpoints = self._purchases_newest, self._touchpoints_newest
        for customer in customers:
            due = rules.next_due(customer)
            packed = packing.pack(customer, purchases, touchpoints, self._commands_newest)
            before = customer.stored_due
            readable = None
            if shown is None or before == UNKNOWN or customer.customer_id in shown:
                readable = rules.readable(customer)
            writes.append(CustomerWrite(customer.customer_id, packed, readable, due, due != before))
            customer.stored_due = due
            if not customer.is_stored:
                customer.is_stored = True
                self.born += 1
