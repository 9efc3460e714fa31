"""What the peers read: the grocery's years, or made purchases of a million customers; both end with purchases that
bring a change in every partition (README.md, "The end")."""

import hashlib
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.load import purchases
from benchmarks.results import RESULTS
from cli.demo.data import Event
from cli.demo.data import events as of_the_year
from schemas.murmur2 import home
from schemas.program import Program
from streams.protocols import PURCHASES

#: Records made and published at a time.
_PART = 200_000

#: Customers of the made input; in a small one, one for five events.
CUSTOMERS = 1_000_000
_EVENTS_EACH = 5
#: Weights of the long tail (Pareto, this exponent), cut so that nobody has thousands of orders in the window.
_TAIL, _LONGEST = 1.15, 1_500.0

#: The made input's years.
_BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
_YEARS = 3
_DAY_MS = 86_400_000

_OCCURRED_AT = re.compile(rb'"occurred_at":"([^"]*)"')


class Input(NamedTuple):
    """An input by its name: how many records, and its first so many, in parts, in the order in which they are
    published. The closing purchases are among them, at the end."""

    name: str
    title: str
    events: int
    parts: Callable[[int], Iterator[list[Event]]]


def grocery(events: int, program: Program, partitions: int) -> Input:
    """The demo's year, a year earlier for each pass. From pass to pass each customer goes on as another household: else
    what enters the window would be what leaves it, and after the first year hardly a tier would change."""
    left = _closing_count(program, partitions)

    def parts(count: int) -> Iterator[list[Event]]:
        year = sum(event.topic == PURCHASES for event in of_the_year())
        load = purchases(events - left)
        others = sorted({event.key for event in load[:year]})
        for start in range(0, count - left, _PART):
            yield [
                _as_another(event, others, number // year)
                for number, event in enumerate(load[start : min(start + _PART, count - left)], start)
            ]
        yield _closing(program, partitions, load[count - left - 1])

    return Input("grocery", "the grocery's years", events, parts)


def _as_another(event: Event, others: list[bytes], turn: int) -> Event:
    """The same purchase, of the customer so many places on."""
    key = others[(bisect_left(others, event.key) + turn) % len(others)]
    value = event.value.replace(b'"customer_id":"%b"' % event.key, b'"customer_id":"%b"' % key, 1)
    return Event(event.topic, key, value, event.occurred_at)


def made(events: int, program: Program, partitions: int, seed: int = 1) -> Input:
    """Purchases of a million customers, one for five events, over three years at random; kept in a file."""
    left = _closing_count(program, partitions)

    def parts(count: int) -> Iterator[list[Event]]:
        part: list[Event] = []
        for part in _made_parts(
            count - left, events - left, min(CUSTOMERS, max(1, events // _EVENTS_EACH)), seed
        ):
            yield part
        yield _closing(program, partitions, part[-1])

    return Input("made", "made, one customer for five events, with a long tail", events, parts)


INPUTS = {"grocery": grocery, "made": made}


def _made_parts(count: int, whole: int, population: int, seed: int) -> Iterator[list[Event]]:
    """The first `count` of `whole`."""
    customers, times, amounts = (column[:count] for column in _columns(whole, population, seed))
    texts = np.datetime_as_string(times.astype("datetime64[ms]"))
    for start in range(0, count, _PART):
        part = slice(start, start + _PART)
        rows = zip(
            customers[part].tolist(),
            texts[part].tolist(),
            times[part].tolist(),
            amounts[part].tolist(),
            strict=True,
        )
        yield [
            Event(
                PURCHASES,
                b"%d" % customer,
                f'{{"event_id":"m{number}","type":"purchase","customer_id":"{customer}","occurred_at":"{text}Z",'
                f'"order_id":"m{number}","amount":"{cents // 100}.{cents % 100:02}","currency":"USD",'
                f'"channel":"web"}}'.encode(),
                at,
            )
            for number, (customer, text, at, cents) in enumerate(rows, start)
        ]


def _columns(
    count: int, population: int, seed: int
) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Customer, time (epoch ms, rising) and cents of every purchase; made once, by nothing but uniform numbers of
    PCG64, whose stream NumPy keeps stable."""
    mark = hashlib.sha256(f"{count} {population} {seed}".encode() + Path(__file__).read_bytes()).hexdigest()[
        :16
    ]
    kept = RESULTS / "inputs" / f"made-{count}-{seed}-{mark}.npz"
    if kept.exists():
        with np.load(kept) as columns:
            return columns["customers"], columns["times"], columns["amounts"]
    draw = np.random.Generator(np.random.PCG64(seed)).random
    weights = np.cumsum(np.minimum((1.0 - draw(population)) ** (-1.0 / _TAIL), _LONGEST))
    # Everybody buys once, and who weighs more buys more often.
    more = np.searchsorted(weights, draw(max(0, count - population)) * weights[-1], side="right")
    customers = np.concatenate([np.arange(min(population, count)), more])[np.argsort(draw(count))]
    span = _YEARS * 365 * _DAY_MS
    times = np.sort((draw(count) * span).astype(np.int64)) + int(_BEGIN.timestamp() * 1000)
    # Sums of three uniform numbers, to the power of two: many small baskets, few large ones.
    amounts = (100 + 1_500 * (draw(count) + draw(count) + draw(count)) ** 2).astype(np.int64)
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial.npz")
    np.savez(partial, customers=customers.astype(np.int32), times=times, amounts=amounts.astype(np.int32))
    partial.rename(kept)
    return customers, times, amounts


def _closing_count(program: Program, partitions: int) -> int:
    return partitions * max(1, program.tiers[1].min_frequency)


def _closing(program: Program, partitions: int, last: Event) -> list[Event]:
    """So many purchases of a customer of each partition that the last of them reaches the second tier; all of them at
    the instant of the last one of all others."""
    tier = program.tiers[1]
    least = max(1, tier.min_frequency)
    cents = -(-tier.min_monetary // least)
    found = _OCCURRED_AT.search(last.value)
    assert found is not None
    at = found[1].decode()
    customers: dict[int, str] = {}
    number = 0
    while len(customers) < partitions:
        customer = f"closing-{number}"
        customers.setdefault(home(customer.encode(), partitions), customer)
        number += 1
    return [
        Event(
            PURCHASES,
            customer.encode(),
            f'{{"event_id":"{customer}-{nth}","type":"purchase","customer_id":"{customer}","occurred_at":"{at}",'
            f'"order_id":"{customer}-{nth}","amount":"{cents // 100}.{cents % 100:02}",'
            f'"currency":"{program.currency}"}}'.encode(),
            last.occurred_at,
        )
        for nth in range(least)
        for customer in customers.values()
    ]
