"""Customers and commits for the tests of the store."""

from typing import Any

from loyalty import Customer, Packing, Rules
from loyalty.saving import CustomerWrite
from schemas.program import Program
from streams.protocols import (
    PURCHASES,
    Commit,
)
from tests.loyalty.worlds import DAY, purchase
from tests.streams.conftest import BEGIN, PREFIX

START = 17_000 * DAY
TAG = f"{PREFIX}:{{3}}:"
STRANGE_IDS = [
    "{900}",
    "}{",
    "a:b:c",
    "state:900",
    "shop 7 / Märta Åström",
    "顧客-九百",
    "*",
    "[a-z]?",
    "back\\slash^",
    "'\"\n\t",
    "900",
]


class World:
    """Customers with orders, and the writes that a shard makes of them."""

    def __init__(self, program: Program, packing: Packing) -> None:
        self.fold = Rules(program)
        self.packing = packing

    def customer(self, customer_id: str, orders: int = 1, apart: int = 1000) -> Customer:
        customer = self.fold.new_customer(customer_id)
        for n in range(orders):
            event = purchase(START + n * apart, f"o{n}", 1_00 + n, customer_id=customer_id)
            assert self.fold.apply(customer, event, START + n * apart) is not None
        return customer

    def write(self, customer: Customer, **given: Any) -> CustomerWrite:
        said: dict[str, Any] = {
            "packed": self.packing.pack(customer, START, None),
            "readable": self.fold.readable(customer),
            "due": self.fold.next_due(customer),
            "due_changed": True,
        }
        return CustomerWrite(customer.customer_id, **(said | given))

    def same(self, one: Customer, other: Customer) -> None:
        assert one.customer_id == other.customer_id
        for name in ("tier", "tier_seq", "time", "lifetime_orders", "lifetime_monetary", "channels"):
            assert getattr(one, name) == getattr(other, name), name
        assert one.orders == other.orders
        assert one.ids == other.ids
        assert one.touches == other.touches
        assert one.times[one.low :] == other.times[other.low :]
        assert one.monetary == other.monetary
        assert {n: page.entries for n, page in one.pages.items()} == {
            n: page.entries for n, page in other.pages.items()
        }
        assert one.open.entries == other.open.entries


def some(world: World) -> Commit:
    """A commit with a bit of everything, for the watermark at which shards begin."""
    return Commit(
        topic=PURCHASES,
        start=BEGIN[PURCHASES],
        end=15,
        newest=START,
        appended=START + 5,
        customers=[world.write(world.customer("900"), due=START + DAY)],
        outbox=[b"first", b"second"],
    )
