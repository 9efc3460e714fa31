"""Purchases that are made: who buys when is given, all else follows from their number."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from cli.demo.data import Event
from schemas.times import format_ms
from streams.protocols import PURCHASES, TOUCHPOINTS

DAY_MS = 86_400_000

_PROGRAM = """
[program]
id = "bench"
currency = "USD"
window = "{window}d"
ledger = "{ledger}d"
contact_window = "30d"

[[tiers]]
name = "member"
[[tiers]]
name = "silver"
min_monetary = "100.00"
[[tiers]]
name = "gold"
min_monetary = "800.00"
min_frequency = 30

[scores]
recency_days = [7, 30, 90, 180]
frequency = [2, 5, 10, 20]
monetary = ["50", "200", "500", "1500"]
"""

#: Of a mixed flow: every so many orders one is refunded in part, one of another shop's is (which never comes, so the
#: refund waits), and one customer is written to.
_REFUNDED = 50
_WRITTEN_TO = 10
#: Events published at a time.
PART = 200_000


def write_program(file: Path, window: int, ledger: int) -> Path:
    """A program of so many days, for who buys so; the file."""
    file.write_text(_PROGRAM.format(window=window, ledger=ledger))
    return file


def purchases(buys: Iterable[tuple[str, int]], mark: str) -> Iterator[Event]:
    """One of each customer and instant (epoch ms). Ids have 12 characters; `mark`, a letter, keeps those of several
    flows apart."""
    for number, (customer, at) in enumerate(buys):
        yield Event(PURCHASES, customer.encode(), _purchase(customer, f"{mark}{number:011d}", number, at), at)


def mixed(buys: Iterable[tuple[str, int]], mark: str) -> Iterator[Event]:
    """The same, with refunds and touchpoints."""
    for number, event in enumerate(purchases(buys, mark)):
        yield event
        customer, at = event.key.decode(), event.occurred_at
        if not number % _REFUNDED:
            yield _refund(customer, f"{mark}{number:011d}", f"r{number:011d}", at)
        if number % _REFUNDED == _REFUNDED // 2:
            yield _refund(customer, f"x{number:011d}", f"w{number:011d}", at)
        if number % _WRITTEN_TO == _WRITTEN_TO // 2:
            value = (
                f'{{"event_id":"t{number:011d}","type":"touchpoint","customer_id":"{customer}",'
                f'"occurred_at":"{format_ms(at)}","channel":"email","direction":"outbound"}}'
            )
            yield Event(TOUCHPOINTS, event.key, value.encode(), at)


def in_parts(events: Iterable[Event]) -> Iterator[list[Event]]:
    """The same, so many at a time as are published at a time."""
    rest = iter(events)
    while part := list(islice(rest, PART)):
        yield part


def _purchase(customer: str, order: str, number: int, at: int) -> bytes:
    cents = 500 + number * 7_919 % 4_000
    return (
        f'{{"event_id":"{order}","type":"purchase","customer_id":"{customer}","occurred_at":"{format_ms(at)}",'
        f'"order_id":"{order}","amount":"{cents // 100}.{cents % 100:02}","currency":"USD","channel":"web"}}'
    ).encode()


def _refund(customer: str, order: str, event_id: str, at: int) -> Event:
    value = (
        f'{{"event_id":"{event_id}","type":"refund","customer_id":"{customer}","occurred_at":"{format_ms(at)}",'
        f'"order_id":"{order}","amount":"1.00","currency":"USD"}}'
    )
    return Event(PURCHASES, customer.encode(), value.encode(), at)
