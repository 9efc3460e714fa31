"""The events of one batch, folded into their customers: a part at a time, so that whoever waits has a turn between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from loyalty.customer import Customer
from loyalty.views import Decision
from schemas.events import InputEvent, Record


class Folding:
    """What a batch of one topic has come to, up to the event that was folded last.

    ``apply`` folds one event of the topic (``Rules.apply``, ``Rules.touch`` or ``Rules.command``). ``newest`` is the
    newest ``occurred_at`` of the partition's topic, epoch milliseconds, None where nothing was read yet. ``touched``
    holds the customers of whom something changed, ``changed`` those among them to whom more happened than a count: a
    decision, or another segment; ``late`` what came more than the ledger after it happened, beside its record.
    """

    def __init__(
        self,
        apply: Callable[[Customer, Any, int | None], Sequence[Decision] | None],
        ledger: int,
        newest: int | None,
        held: Callable[[str], bool],
    ) -> None:
        """``ledger`` is the program's, in milliseconds; ``held``: of whom nothing is to be told, as more was published
        than is known."""
        self._apply = apply
        self._ledger = ledger
        self._held = held
        self.newest = newest
        self.duplicates = 0
        self.touched: dict[str, Customer] = {}
        self.changed: set[str] = set()
        #: Whose bond is held, and was changed.
        self.stirred: set[str] = set()
        self.decided: list[Decision] = []
        self.late: list[tuple[Record, InputEvent]] = []

    def fold(self, events: Sequence[tuple[Record, InputEvent]], customers: dict[str, Customer]) -> None:
        """Fold the next events. Customers are changed in place."""
        apply, ledger, newest = self._apply, self._ledger, self.newest
        touched, changed = self.touched, self.changed
        for record, event in events:
            occurred_at = event.occurred_at
            if newest is not None and occurred_at < newest - ledger:
                self.late.append((record, event))
                continue
            customer_id = event.customer_id
            customer = customers[customer_id]
            segment = customer.bond.segment
            made = apply(customer, event, newest)
            if made is None:
                self.duplicates += 1
                continue
            touched[customer_id] = customer
            if made or customer.bond.segment != segment:
                changed.add(customer_id)
            if customer.bond_held:
                self.stirred.add(customer_id)
            if newest is None or occurred_at > newest:
                newest = occurred_at
            if made and not self._held(customer_id):
                self.decided += made
        self.newest = newest


def customer_ids(events: Sequence[tuple[Record, InputEvent]]) -> dict[str, None]:
    """Whose events these are, each once, in the order in which they come first."""
    return dict.fromkeys([event.customer_id for _, event in events])
