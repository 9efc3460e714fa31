"""What became of one customer, in plain words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import groupby
from typing import Any

import msgspec

from cli.demo.data import Event
from schemas.program import Program
from streams.protocols import PURCHASES

_DAY = 86_400_000
#: About so many lines are a good read.
_GOOD_READ = 11


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened. `kind`: purchase, upgrade, downgrade or contact."""

    day: date
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Story:
    """One customer's year."""

    customer_id: str
    lines: list[Line]
    #: What can be said of the end, in a sentence.
    end: str


def first_purchases(events: Iterable[Event]) -> dict[str, date]:
    """The day of each customer's first purchase; `events` are in order of time."""
    first: dict[str, date] = {}
    for event in events:
        if event.topic == PURCHASES:
            first.setdefault(event.key.decode(), day_of(event.occurred_at))
    return first


def choose(changes: Mapping[str, Sequence[Mapping[str, Any]]], events: Iterable[Event]) -> str | None:
    """The customer with the most different turns, who also came with a coupon, in about a dozen lines."""
    days: Counter[str] = Counter()
    redeemed: set[str] = set()
    seen: set[tuple[str, int]] = set()
    for event in events:
        if event.topic != PURCHASES:
            customer_id = event.key.decode()
            if (customer_id, event.occurred_at) not in seen:
                seen.add((customer_id, event.occurred_at))
                days[customer_id] += 1
            if b'"inbound"' in event.value:
                redeemed.add(customer_id)

    def interest(customer_id: str) -> tuple[Any, ...]:
        told = changes[customer_id]
        turns = len({(change["direction"], change["reason"], change["tier"]) for change in told})
        length = 1 + len(told) + days[customer_id]
        return min(turns, 4), customer_id in redeemed, -abs(length - _GOOD_READ), customer_id

    return max(changes, key=interest, default=None)


def tell(
    program: Program,
    customer_id: str,
    changes: Sequence[Mapping[str, Any]],
    events: Iterable[Event],
    state: Mapping[str, Any],
) -> Story:
    """The story of a customer from what was published, and from what is known of contacts."""
    key = customer_id.encode()
    own = [event for event in events if event.key == key]
    bodies = [msgspec.json.decode(event.value) for event in own]
    lines: list[Line] = []
    bought = [(event, body) for event, body in zip(own, bodies, strict=True) if event.topic == PURCHASES]
    if bought:
        event, body = bought[0]
        lines.append(
            Line(
                day_of(event.occurred_at),
                "purchase",
                f"first purchase, {money(body['amount'], body['currency'])}",
            )
        )
    touched = [(event, body) for event, body in zip(own, bodies, strict=True) if event.topic != PURCHASES]
    for at, group in groupby(touched, key=lambda pair: pair[0].occurred_at):
        lines.append(Line(day_of(at), "contact", _contacts([body for _, body in group])))
    lines += (_change(program, change) for change in changes)
    lines.sort(key=lambda line: line.day)
    return Story(customer_id, lines, _end(program, state))


def money(amount: str, currency: str) -> str:
    """An amount for people."""
    shown = f"{Decimal(amount):,}"
    return f"${shown}" if currency == "USD" else f"{shown} {currency}"


def day_of(ms: int) -> date:
    """The day of an instant, UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).date()


def _change(program: Program, change: Mapping[str, Any]) -> Line:
    rfm, window = change["rfm"], program.window // _DAY
    spent = money(rfm["monetary"], rfm["currency"])
    visits = f"{rfm['frequency']} visit{'s' if rfm['frequency'] != 1 else ''}"
    why = change["reason"]
    if why == "purchase":
        told = f"with a purchase: {spent} in {visits} within {window} days"
    elif why == "refund":
        told = f"after a refund: {spent} in {visits} within {window} days are left"
    elif why == "window_expiry":
        told = f"older purchases no longer count: {spent} in {visits} within {window} days are left"
    elif why == "inactivity":
        told = f"no purchase for {rfm['recency_seconds'] // 86_400} days"
    else:
        told = why.replace("_", " ")
    day = datetime.fromisoformat(change["effective_at"]).astimezone(UTC).date()
    return Line(day, change["direction"], f"{change['previous_tier']} → {change['tier']}, {told}")


def _contacts(bodies: Sequence[Mapping[str, Any]]) -> str:
    mailed = [body["campaign_id"] for body in bodies if body["channel"] == "mail"]
    redeemed = Counter(body["campaign_id"] for body in bodies if body["channel"] != "mail")
    told = [f"we sent the mailing of campaign {', '.join(mailed)}"] if mailed else []
    told += (
        f"came with {'a coupon' if count == 1 else f'{count} coupons'} of campaign {campaign}"
        for campaign, count in redeemed.items()
    )
    return "; ".join(told)


def _end(program: Program, state: Mapping[str, Any]) -> str:
    spent = money(state["lifetime_monetary"], program.currency)
    contacts = [
        f"{counts[direction]} {text}"
        for channel, counts in state["contacts"].items()
        for direction, text in (
            ("outbound", f"by {channel} from us"),
            ("inbound", f"in the {channel} from the customer"),
        )
        if counts[direction]
    ]
    told = ", ".join(contacts) if contacts else "none"
    return (
        f"At the end: {state['tier']}, {spent} in {state['lifetime_orders']} visits overall; "
        f"contacts in the last {program.contact_days} days: {told}."
    )
