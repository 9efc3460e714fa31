"""Customers take over what was published of them, once what it was decided from has been read again. See `healing`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from loyalty.customer import Customer
from loyalty.rules import Rules
from loyalty.views import Decision
from streams.bonds_told import BondsTold
from streams.healing import Healing, Told, agrees
from streams.protocols import FatalError, Stop


def adopt_tiers(
    healing: Healing, reached: Mapping[str, Told], customers: Mapping[str, Customer], rules: Rules
) -> dict[str, Customer]:
    """Those of whom the state did not say what was published last of their tier; it does now.

    Raises FatalError where it names a tier that the program does not have.
    """
    adopted: dict[str, Customer] = {}
    for customer_id, told in reached.items():
        customer = customers[customer_id]
        if agrees(customer, told, rules):
            continue
        with _fits():
            rules.adopt(customer, told.body, told.beneath)
        adopted[customer_id] = customer
        if customer.bond_held:
            healing.stirred.add(customer_id)
    return adopted


def adopt_bonds(
    healing: Healing, reached: Mapping[str, BondsTold], customers: Mapping[str, Customer], rules: Rules
) -> tuple[dict[str, Customer], list[Decision]]:
    """Those of whose bond the state did not know what was published, or something had changed while it was held; and
    what is decided of them now. Nobody's bond is held from here on.

    Raises FatalError where it does not fit the program.
    """
    adopted: dict[str, Customer] = {}
    decided: list[Decision] = []
    for customer_id, told in reached.items():
        customer = customers[customer_id]
        customer.bond_held = False
        is_known = not told.records or rules.bond_agrees(customer, *told.records[-1])
        if is_known and customer_id not in healing.stirred:
            continue
        customer.bond_held = True
        with _fits():
            decided += rules.adopt_bond(customer, told.records)
        adopted[customer_id] = customer
    healing.stirred.difference_update(reached)
    return adopted, decided


@contextmanager
def _fits() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise FatalError(
            f"what was published last of a customer does not fit: {error}; start the worker with the program that the "
            "store was on, or make the state anew with `kizuna rebuild`",
            Stop.PUBLISHED_UNKNOWN,
        ) from error
