"""Random programs and logs for the loyalty tests, and a stand-in for what the streams do around the fold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from unittest import mock

import msgspec
from hypothesis import strategies as st

from loyalty import Change, Customer, Packing, Previous, Rules, page_numbers
from loyalty import customer as customer_module
from loyalty import fold as fold_module
from schemas.events import OverrideCommanded, PurchaseMade, RefundMade, TouchpointMade
from schemas.program import Program, Scores, Tier
from schemas.tier_change import TierEvent

DAY = 86_400_000
UNIT = DAY // 4
"""The random times are whole units, so that instants often coincide, and a millisecond more or less."""

Event = PurchaseMade | RefundMade | TouchpointMade | OverrideCommanded


def program(**given: Any) -> Program:
    """The contract's example, with what is given changed."""
    return Program(
        **{
            "id": "grocery",
            "currency": "USD",
            "decimals": 2,
            "timezone": "UTC",
            "window": 365 * DAY,
            "contact_days": 30,
            "ledger": 455 * DAY,
            "allowed_lateness": 0,
            "max_future": 300_000,
            "publish_from": None,
            "rates": dict[str, Decimal](),
            "tiers": (
                Tier("member"),
                Tier("silver", min_monetary=200_00, min_frequency=5),
                Tier("gold", min_monetary=800_00, min_frequency=15, max_recency=90 * DAY),
            ),
            "scores": Scores(
                recency=(7 * DAY, 30 * DAY, 90 * DAY, 180 * DAY),
                frequency=(2, 5, 10, 20),
                monetary=(50_00, 200_00, 500_00, 1500_00),
            ),
            "version": "a1b2",
            **given,
        }
    )


def purchase(at: int, order_id: str = "o1", amount: int = 10_00, **given: Any) -> PurchaseMade:
    """A purchase; its event id is made of the rest unless given."""
    return PurchaseMade(
        **{"customer_id": "900", "event_id": f"p/{order_id}/{at}/{amount}", "source": "", **given},
        order_id=order_id,
        amount=amount,
        occurred_at=at,
    )


def refund(at: int, order_id: str = "o1", amount: int = 10_00, **given: Any) -> RefundMade:
    """A refund; its event id is made of the rest unless given."""
    return RefundMade(
        **{"customer_id": "900", "event_id": f"r/{order_id}/{at}/{amount}", "source": "", **given},
        order_id=order_id,
        amount=amount,
        occurred_at=at,
    )


def touch(at: int, channel: str = "email", direction: str = "inbound", **given: Any) -> TouchpointMade:
    """A touchpoint; its event id is made of the rest unless given."""
    return TouchpointMade(
        **{"customer_id": "900", "event_id": f"t/{channel}/{direction}/{at}", "source": "", **given},
        occurred_at=at,
        channel=channel,
        direction=direction,
    )


def command(
    at: int, mode: str = "pin", tier: str = "gold", until: int = 0, **given: Any
) -> OverrideCommanded:
    """An override; its event id is made of the rest unless given."""
    clears = mode == "clear"
    return OverrideCommanded(
        **{
            "customer_id": "900",
            "event_id": f"c/{mode}/{tier}/{at}/{until}",
            "source": "",
            "actor": "somebody",
            "reason": "asked for it",
            **given,
        },
        occurred_at=at,
        mode=mode,  # type: ignore[arg-type]
        tier="" if clears else tier,
        until=0 if clears else until,
    )


@st.composite
def programs(draw: st.DrawFn, *, short_ledgers: bool = True, plain: bool | None = None) -> Program:
    """Small programs whose thresholds lie where the random logs do. The program file allows no ledger that is
    shorter than the window; the fold does not depend on that. In a plain one tiers follow from metrics
    alone."""
    if plain is None:
        plain = draw(st.sampled_from([False, False, True]))
    window = draw(st.integers(8, 60)) * UNIT + draw(st.sampled_from([0, 0, 1]))
    ledger = window + draw(st.integers(-7 if short_ledgers else 0, 40)) * UNIT
    tiers = [Tier("t0", benefits=() if plain else draw(st.sampled_from([(), ("card",)])))]
    for number in range(1, draw(st.integers(1, 3)) + 1):
        below = tiers[-1]
        longest = (below.max_recency or window) // UNIT
        recency = draw(st.one_of(st.none(), st.integers(1, max(1, longest - 1)).map(lambda n: n * UNIT)))
        if recency is None or (below.max_recency is not None and recency > below.max_recency):
            recency = below.max_recency
        tier = Tier(
            f"t{number}",
            below.min_monetary + draw(st.sampled_from([0, 100, 250, 700])),
            below.min_frequency + draw(st.integers(0, 2)),
            recency,
        )
        if not tier.min_monetary and not tier.min_frequency and recency is None:
            tier = msgspec.structs.replace(tier, min_frequency=1)  # the program file asks for some threshold
        tiers.append(tier if plain else draw(kept(tier)))
    return program(
        window=window,
        ledger=ledger,
        contact_days=draw(st.integers(1, 9)),
        timezone=draw(st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York"])),
        publish_from=draw(
            st.one_of(st.none(), st.none(), st.integers(0, 120).map(lambda n: START + n * UNIT))
        ),
        tiers=tuple(tiers),
        scores=Scores(
            (UNIT, 5 * UNIT, 10 * UNIT, 20 * UNIT),
            (1 + draw(st.integers(0, 1)), 3, 4, 6),
            (100, 200, 500, 900),
        ),
    )


@st.composite
def kept(draw: st.DrawFn, tier: Tier) -> Tier:
    """A tier that may be easier to stay in than to enter, and falls in one of the ways."""
    monetary = draw(st.sampled_from([None, None, 0, 50, 100, 250]))
    return msgspec.structs.replace(
        tier,
        retain_monetary=None if monetary is None else min(monetary, tier.min_monetary),
        retain_frequency=draw(st.one_of(st.none(), st.integers(0, tier.min_frequency))),
        grace_period=draw(st.one_of(st.just(0), st.integers(1, 30).map(lambda n: n * UNIT), st.just(1))),
        downgrade=draw(st.sampled_from(["requalify", "one_down", "base"])),
        refund_policy=draw(st.sampled_from(["reverse", "grace"])),
        benefits=draw(st.sampled_from([(), ("lounge",), ("lounge", "parking")])),
    )


@st.composite
def program_changes(draw: st.DrawFn) -> tuple[str, Program, int, bool]:
    """A step: another program, and from when on it is to hold. What it may not change is put right when the
    step is taken (``allowed``); the flag says that only benefits and protection are to change."""
    other = draw(programs())
    names = draw(st.permutations(["t0", "t1", "t2", "t3", "new"]))
    if draw(st.booleans()):
        names = sorted(names)
    other = msgspec.structs.replace(
        other,
        tiers=tuple(
            msgspec.structs.replace(tier, name=name) for tier, name in zip(other.tiers, names, strict=False)
        ),
        protect_until=draw(st.one_of(st.none(), times.map(lambda at: at + 5 * UNIT))),
    )
    return "change", other, draw(times), draw(st.sampled_from([False, False, True]))


def allowed(old: Program, other: Program, at: int, only_benefits: bool, version: str) -> Program:
    """A program that a shard on another may be moved to at an instant."""
    tiers = other.tiers
    changes: dict[str, Any] = {
        "publish_from": None if old.publish_from is None else min(at, old.publish_from)
    }
    if only_benefits:
        benefits = [tier.benefits for tier in reversed(other.tiers)] * 4
        changes["tiers"] = tuple(
            msgspec.structs.replace(tier, benefits=new)
            for tier, new in zip(old.tiers, benefits, strict=False)
        )
        return msgspec.structs.replace(old, version=version, protect_until=other.protect_until, **changes)
    window = min(other.window, old.ledger)
    tiers = tuple(
        msgspec.structs.replace(tier, max_recency=min(tier.max_recency, window - 1))
        if tier.max_recency
        else tier
        for tier in other.tiers
    )
    return msgspec.structs.replace(
        other,
        version=version,
        window=window,
        ledger=min(other.ledger, old.ledger),
        contact_days=min(other.contact_days, old.contact_days),
        tiers=tiers,
        **changes,
    )


START = 1_488_672_000_000  # 2017-03-05, a week before clocks go forward in New York

amounts = st.sampled_from([0, 1, 100, 100, 250, 250, 600])
times = st.builds(
    lambda units, ms: START + units * UNIT + ms, st.integers(0, 160), st.sampled_from([0, 0, 0, 0, -1, 1])
)


@st.composite
def events(draw: st.DrawFn, at: st.SearchStrategy[int] = times, *, fresh_ids: bool = False) -> Event:
    """Any event of two customers with few orders. Ids are few unless fresh: then they come without one."""
    given = {
        "customer_id": draw(st.sampled_from(["a", "a", "a", "b"])),
        "event_id": "" if fresh_ids else str(draw(st.integers(0, 60))),
        "source": draw(st.sampled_from(["", "", "", "pos"])),
    }
    order_id = draw(st.sampled_from("uvwxyz"))
    kind = draw(st.sampled_from("pppppprrt"))
    if kind == "p":
        return purchase(draw(at), order_id, draw(amounts), **given)
    if kind == "r":
        return refund(draw(at), order_id, draw(amounts.filter(bool)), **given)
    channel, direction = (
        draw(st.sampled_from(["email", "web", "store"])),
        draw(st.sampled_from(["inbound", "outbound"])),
    )
    return touch(draw(at), channel, direction, **given)


@st.composite
def commands(draw: st.DrawFn, at: st.SearchStrategy[int] = times, *, fresh_ids: bool = False) -> Event:
    """Any command for one of two customers. Its tier is a number, of which ``named`` makes a program's."""
    occurred_at = draw(at)
    return command(
        occurred_at,
        draw(st.sampled_from(["pin", "floor", "floor", "clear"])),
        str(draw(st.integers(0, 3))),
        occurred_at + max(1, draw(st.integers(0, 60)) * UNIT + draw(st.sampled_from([0, 0, 1, -1]))),
        customer_id=draw(st.sampled_from(["a", "a", "a", "b", "c"])),
        event_id="" if fresh_ids else str(draw(st.integers(0, 20))),
        source=draw(st.sampled_from(["", "", "", "pos"])),
    )


def named(event: Event, program: Program) -> Event:
    """A command of ``commands`` with the name of a tier that the program has; any other event as it is."""
    if not isinstance(event, OverrideCommanded) or not event.tier.isdigit():
        return event
    return event.but(tier=program.tiers[int(event.tier) % len(program.tiers)].name)


@dataclass
class Shard:
    """One partition: customers cached and stored, the newest times, and who is too late."""

    program: Program
    customers: dict[str, Customer] = field(default_factory=dict)
    published: dict[str, list[TierEvent]] = field(default_factory=dict)
    stored: dict[str, tuple[bytes, dict[int, bytes]]] = field(default_factory=dict)
    purchases_newest: int | None = None
    touchpoints_newest: int | None = None
    commands_newest: int | None = None

    def __post_init__(self) -> None:
        self._follow(Rules(self.program))

    def _follow(self, rules: Rules) -> None:
        self.program, self.rules, self.packing = rules.program, rules, Packing(rules)

    def read(self, event: Event) -> bool:
        """Fold an event, as the streams would; whether it counted."""
        newest = self._newest(event)
        if newest is not None and event.occurred_at < newest - self.program.ledger:
            return False
        customer = self.customers.setdefault(event.customer_id, self.rules.new_customer(event.customer_id))
        now = event.occurred_at if newest is None else max(newest, event.occurred_at)
        if isinstance(event, TouchpointMade):
            if self.rules.touch(customer, event, newest) is None:
                return False
            self.touchpoints_newest = now
            return True
        if isinstance(event, OverrideCommanded):
            changes = self.rules.command(customer, event, newest)
        else:
            changes = self.rules.apply(customer, event, newest)
        if changes is None:
            return False
        self._publish(event.customer_id, changes)
        if isinstance(event, OverrideCommanded):
            self.commands_newest = now
        else:
            self.purchases_newest = now
        return True

    def _newest(self, event: Event) -> int | None:
        if isinstance(event, TouchpointMade):
            return self.touchpoints_newest
        return self.commands_newest if isinstance(event, OverrideCommanded) else self.purchases_newest

    def _publish(self, customer_id: str, changes: list[Change]) -> None:
        bodies = self.published.setdefault(customer_id, [])
        bodies.extend(self.rules.change_body(change) for change in changes)

    def sweep(self, until: int) -> None:
        """Advance every customer."""
        for customer_id, customer in self.customers.items():
            self._publish(customer_id, self.rules.advance(customer, until))

    def move(self, customer_id: str) -> None:
        """Move a customer, if there is one, to the present program."""
        if customer_id in self.customers:
            customer = self.customers[customer_id]
            self._publish(customer_id, self.rules.move(customer))
            assert self.rules.is_moved(customer)
            assert self.rules.move(customer) == []

    def change_program(self, program: Program, at: int) -> None:
        """Follow another program from an instant on; who still awaits the present one is moved to it."""
        for customer_id in self.customers:
            self.move(customer_id)
        previous = Previous(self.program, at, program.protect_until)
        self._follow(Rules(program, self.rules.generation + 1, previous))

    def save(self, customer_id: str) -> None:
        """Pack a customer into the store, and forget it here."""
        customer = self.customers[customer_id]
        seen = self.purchases_newest, self.touchpoints_newest, self.commands_newest
        packed = self.packing.pack(customer, *seen)
        # What a page was read from is written once; what it then has is the same.
        assert self.packing.pack(customer, *seen).head == packed.head
        pages = dict(self.stored[customer_id][1]) if customer_id in self.stored else {}
        pages.update(packed.written)
        for number in packed.dropped:
            pages.pop(number, None)
        self.stored[customer_id] = packed.head, pages
        assert sorted(pages) == page_numbers(packed.head)

    def load(self, customer_id: str) -> None:
        """Take a customer from the store."""
        self.customers[customer_id] = self.packing.unpack(customer_id, *self.stored[customer_id])

    def line(self, customer_id: str, at: int) -> dict[str, Any]:
        """The dump line as of an instant."""
        return self.rules.dump_line(self.rules.view(self.customers[customer_id], at))

    def bodies(self, customer_id: str) -> list[TierEvent]:
        """What was published."""
        return self.published.get(customer_id, [])


def is_blank(customer: Customer) -> bool:
    """Whether nothing was ever counted of a customer. Touches may be over, their channels stay."""
    return customer.time is None and not customer.channels and not customer.bond.seq


@contextmanager
def small_pages(entries: int = 3, ids_in_order: int = 1) -> Iterator[None]:
    """Pages that fill up within a short log."""
    with (
        mock.patch.object(customer_module, "PAGE_ENTRIES", entries),
        mock.patch.object(fold_module, "_IDS_IN_ORDER", ids_in_order),
    ):
        yield


def content(shard: Shard, customer_id: str) -> dict[str, Any]:
    """All that decides what a customer does from here on: what is beyond the horizons left out."""
    customer = shard.customers[customer_id]
    ledger = shard.program.ledger
    purchases = (shard.purchases_newest or 0) - ledger
    touches = (shard.touchpoints_newest or 0) - ledger
    commands = (shard.commands_newest or 0) - ledger
    return {
        **{
            name: getattr(customer, name)
            for name in (
                "generation",
                "tier",
                "tier_seq",
                "earned",
                "grace",
                "at_risk",
                "override",
                "protection",
                "time",
                "lifetime_orders",
                "lifetime_monetary",
                "channels",
                "monetary",
            )
        },
        "orders": {
            order_id: order
            for order_id, order in customer.orders.items()
            if order.time is None or order.time >= purchases
        },
        "ids": {key: time for key, time in customer.ids.items() if time >= purchases},
        "touch_ids": {key: time for key, time in customer.touch_ids.items() if time >= touches},
        "commands": {key: time for key, time in customer.commands.items() if time >= commands},
        "touches": [(t.time, customer.channels[t.channel], t.outbound) for t in customer.touches],
        "times": customer.times[customer.low :],
        "nets": sorted((o.time, o.paid, o.refunded) for o in customer.counted[customer.low :]),
        "pages": {number: page.entries for number, page in customer.pages.items()},
        "open": (customer.open.number, customer.open.entries),
    }
