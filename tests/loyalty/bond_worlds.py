"""Random programs with bonds, random logs for them, and a shard whose decisions about bonds are kept apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from hypothesis import strategies as st

from loyalty.bond import BondChange
from schemas.bond_records import BondEvent, TriggerEvent
from schemas.events import TouchpointMade
from schemas.program import Program
from schemas.program_bonds import (
    Attachment,
    Attribution,
    Bonds,
    Cap,
    ContactPolicy,
    Holdout,
    Points,
    Scenario,
    Segment,
    Step,
    Subscriptions,
)
from tests.loyalty.worlds import (
    DAY,
    UNIT,
    Event,
    Shard,
    amounts,
    commands,
    named,
    program_changes,
    programs,
    purchase,
    refund,
    times,
    touch,
)

LONG = 3_000 * DAY
"""A ledger that forgets nothing of a random log."""

CHANNELS = ("email", "web", "store", "sns")
ACTIONS = (None, "view", "visit", "visit", "review", "redeem", "receipt", "send", "pause", "resume", "cancel")
ECHO = "#"
"""A ``trigger_id`` that begins with it stands for one that was published, by its number."""


def units(least: int, most: int) -> st.SearchStrategy[int]:
    """Durations in whole units, now and then a millisecond longer."""
    return st.builds(
        lambda number, more: number * UNIT + more, st.integers(least, most), st.sampled_from([0, 0, 0, 0, 1])
    )


@st.composite
def attachments(draw: st.DrawFn) -> Attachment:
    rows = st.builds(
        Points,
        points=st.integers(0, 4),
        channel=st.sampled_from([None, *CHANNELS]),
        action=st.sampled_from([None, "view", "visit", "review"]),
    )
    return Attachment(
        window=draw(units(1, 60)),
        points=tuple(draw(st.lists(rows, max_size=3))),
        breadth=draw(st.integers(0, 2)),
        renewal=draw(st.integers(0, 3)),
        tenure=draw(st.integers(0, 2)),
        tenure_years=draw(st.integers(0, 3)),
    )


@st.composite
def segments(draw: st.DrawFn, window: int) -> tuple[Segment, ...]:
    """One to five, the last without a test."""
    found = []
    for number in range(draw(st.integers(0, 4))):
        keys: dict[str, Any] = {}
        for _ in range(draw(st.sampled_from([1, 1, 2]))):
            key, values = draw(
                st.sampled_from(
                    [
                        ("min_value", st.sampled_from([2, 3, 5, 8])),
                        ("min_attachment", st.sampled_from([1, 2, 4, 7])),
                        ("min_orders", st.integers(1, 3)),
                        ("max_orders", st.integers(0, 3)),
                        ("min_silence", units(1, 30).map(lambda ms: min(ms, window))),
                        ("min_gaps", st.sampled_from([500, 1_000, 1_500, 3_000, 333])),
                        ("subscription", st.sampled_from(["active", "paused", "cancelled", "lapsed"])),
                    ]
                )
            )
            keys[key] = draw(values)
        found.append(Segment(f"s{number}", **keys))
    return (*found, Segment("rest"))


@st.composite
def policies(draw: st.DrawFn) -> ContactPolicy:
    caps = []
    for _ in range(draw(st.integers(0, 3))):
        most = draw(st.sampled_from([0, 1, 1, 2, 3]))
        channel = draw(st.sampled_from([None, None, "email", "sns"]))
        if draw(st.booleans()):
            caps.append(Cap(most, channel, within=draw(units(1, 20))))
        else:
            caps.append(Cap(most, channel, days=draw(st.integers(1, 4))))
    if draw(st.booleans()):
        caps = [cap for cap in caps if cap.most]
    return ContactPolicy(
        caps=tuple(caps),
        quiet=draw(
            st.sampled_from([None, (21 * 60, 8 * 60), (0, 6 * 60), (12 * 60, 12 * 60 + 1), (150, 149)])
        ),
        transactional=draw(st.sampled_from([(), ("receipt",), ("receipt", "send")])),
        lapse=draw(units(1, 12)),
    )


@st.composite
def scenarios(draw: st.DrawFn, name: str, program: Program, has_holdout: bool) -> Scenario:
    assert program.bonds is not None
    when = draw(
        st.sampled_from(
            [
                *["segment"] * 3,
                *("first_order", "last_order", "near_tier", "tier_at_risk"),
                *("subscription_renewal", "subscription_cancelled", "benefit_unused"),
            ]
        )
    )
    steps = st.builds(
        Step,
        channel=st.sampled_from(["email", "email", "sns", "mail"]),
        content=st.just("c"),
        wait=st.one_of(st.just(0), units(1, 12)),
    )
    keys: dict[str, Any] = {}
    match when:
        case "segment":
            keys["segment"] = draw(st.sampled_from([segment.name for segment in program.bonds.segments]))
        case "first_order" | "last_order":
            keys["after"] = draw(st.one_of(st.just(0), units(1, 30)))
        case "near_tier":
            keys["amount"] = draw(st.sampled_from([0, 100, 250]))
            keys["orders"] = draw(st.integers(0, 2))
        case "subscription_renewal":
            keys["before"] = draw(st.one_of(st.just(0), units(1, 12)))
        case "benefit_unused":
            keys["benefit"] = draw(st.sampled_from(["card", "lounge", "parking"]))
            keys["after"] = draw(st.one_of(st.just(0), units(1, 20)))
    return Scenario(
        name,
        when,
        tuple(draw(st.lists(steps, min_size=1, max_size=3))),
        **keys,
        cool_down=draw(st.one_of(st.just(0), units(1, 60))),
        patience=draw(st.one_of(st.just(0), units(1, 20))),
        goal=draw(st.sampled_from(["order", "visit", "condition", "none"])),
        holdout=draw(st.sampled_from([0, 0, 500_000, 1_000_000])) if has_holdout else 0,
    )


@st.composite
def bonded(draw: st.DrawFn, program: Program, *, names: str = "abcd") -> Program:
    """A program with random sections about bonds."""
    holdout = draw(
        st.one_of(
            st.none(),
            st.builds(
                Holdout, share=st.sampled_from([0, 0, 500_000, 1_000_000]), salt=st.sampled_from("xyz")
            ),
        )
    )
    bonds = Bonds(
        segments=draw(
            st.one_of(segments(program.window), segments(program.window), st.just((Segment("rest"),)))
        ),
        attachment=draw(attachments()),
        subscriptions=Subscriptions(
            period=draw(units(1, 30)), grace=draw(st.one_of(st.just(0), units(1, 12)))
        ),
        contact_policy=draw(st.one_of(st.none(), policies(), policies())),
        holdout=holdout,
        attribution=draw(
            st.one_of(
                st.none(),
                st.builds(
                    Attribution,
                    window=units(1, 20),
                    campaign_window=st.one_of(st.just(0), units(1, 40)),
                    online=st.sampled_from([("email", "sns", "web"), ("email",)]),
                    offline=st.sampled_from([("store",), ("store", "web")]),
                    visits=st.sampled_from([("visit",), ("visit", "review")]),
                ),
            )
        ),
    )
    program = msgspec.structs.replace(program, bonds=bonds)
    chosen = draw(st.lists(st.sampled_from(names), max_size=4, unique=True))
    found = [draw(scenarios(name, program, holdout is not None)) for name in chosen]
    return msgspec.structs.replace(program, bonds=msgspec.structs.replace(bonds, scenarios=tuple(found)))


@st.composite
def bond_programs(draw: st.DrawFn, *, plain: bool | None = None) -> Program:
    """Small programs with bonds, whose ledger forgets nothing."""
    program = msgspec.structs.replace(draw(programs(plain=plain)), ledger=LONG)
    return draw(bonded(program))


@st.composite
def changes_of_bonds(draw: st.DrawFn) -> tuple[str, Program, int, bool]:
    """A step: another program, and from when on it is to hold; see ``allowed_bonds``."""
    step, other, at, only_benefits = draw(program_changes())
    return step, draw(bonded(msgspec.structs.replace(other, ledger=LONG))), at, only_benefits


def allowed_bonds(old: Program, other: Program) -> Bonds:
    """The sections of another program, so changed that they ask for nothing of orders and touches that the program
    before did not keep: what only a new program asks for is not known of what was read. Attributions that were told
    stay, so they are asked as before."""
    before, after = old.bonds, other.bonds
    assert before is not None
    assert after is not None
    policy = None
    if before.contact_policy is not None:
        new = after.contact_policy or ContactPolicy()
        policy = msgspec.structs.replace(new, transactional=before.contact_policy.transactional)
    actions = {None, *(row.action for row in before.attachment.points)}
    benefits = {scenario.benefit for scenario in before.scenarios}
    return msgspec.structs.replace(
        after,
        contact_policy=policy,
        attribution=before.attribution,
        attachment=msgspec.structs.replace(
            after.attachment, points=tuple(row for row in after.attachment.points if row.action in actions)
        ),
        scenarios=tuple(
            scenario for scenario in after.scenarios if not scenario.benefit or scenario.benefit in benefits
        ),
    )


@st.composite
def bond_events(draw: st.DrawFn, at: st.SearchStrategy[int] = times, *, fresh_ids: bool = False) -> Event:
    """Any purchase, refund or touchpoint of two customers, with the fields that bonds ask for."""
    given: dict[str, Any] = {
        "customer_id": draw(st.sampled_from(["a", "a", "a", "b"])),
        "event_id": "" if fresh_ids else str(draw(st.integers(0, 200))),
        "source": draw(st.sampled_from(["", "", "", "pos"])),
    }
    kind = draw(st.sampled_from("pppprtttttt"))
    order_id = draw(st.sampled_from("uvwxyz"))
    subscription = draw(st.sampled_from([None, None, "s1", "s2"]))
    campaign = draw(st.sampled_from([None, None, "c1", "c2"]))
    store = draw(st.sampled_from([None, None, None, "s"]))
    if kind == "r":
        return refund(draw(at), order_id, draw(amounts.filter(bool)), **given)
    if kind == "p":
        return purchase(
            draw(at),
            order_id,
            draw(amounts),
            **given,
            channel=draw(st.sampled_from([None, "store", "web"])),
            store_id=store,
            campaign_id=campaign,
            subscription_id=subscription,
        )
    action = draw(st.sampled_from(ACTIONS))
    if action == "redeem":
        campaign = draw(st.sampled_from(["card", "lounge", "parking"]))
    return touch(
        draw(at),
        draw(st.sampled_from(CHANNELS)),
        draw(st.sampled_from(["inbound", "inbound", "outbound"])),
        **given,
        action=action,
        campaign_id=campaign,
        store_id=store,
        subscription_id=subscription,
        trigger_id=draw(
            st.sampled_from([None, None, None, "t", *(f"{ECHO}{number}" for number in range(6))])
        ),
        timezone=draw(st.sampled_from([None] * 9 + ["Asia/Tokyo", "America/New_York", "America/St_Johns"])),
    )


@st.composite
def steps_of_bonds(draw: st.DrawFn) -> Any:
    """One thing that happens to a pair of computations; ``BondPair.take`` says what each is."""
    kind = draw(st.sampled_from("eeeeeeeeeeeeeeeecwwwssvaarrmp"))
    if kind in "ecp":
        return draw({"e": bond_events, "c": commands, "p": changes_of_bonds}[kind]())
    customer_id = draw(st.sampled_from("ab"))
    if kind in "sm":
        return "save" if kind == "s" else "move", customer_id
    if kind == "w":
        return "sweep", draw(st.one_of(times, times, times.map(lambda at: at + 400 * DAY)))
    if kind == "v":
        return "view", draw(st.integers(0, 80))
    channel = draw(st.sampled_from(["email", "sns", "mail"]))
    return ("ask", channel, draw(st.integers(0, 30))) if kind == "a" else ("reserve", customer_id, channel)


def told(event: Event, program: Program, records: Sequence[BondEvent]) -> Event:
    """The event with a tier that the program has, and with a ``trigger_id`` that was published, where it echoes one:
    of its number, counted from the newest."""
    event = named(event, program)
    if not isinstance(event, TouchpointMade) or not (event.trigger_id or "").startswith(ECHO):
        return event
    ids = [record.event_id for record in records if isinstance(record, TriggerEvent)]
    number = int((event.trigger_id or "")[len(ECHO) :])
    return event.but(trigger_id=ids[-1 - number % len(ids)] if ids else None)


@dataclass
class BondShard(Shard):
    """One partition whose decisions about bonds are kept beside the tiers'."""

    bonds: dict[str, list[BondChange]] = field(default_factory=dict)

    def read(self, event: Event) -> bool:
        """Fold an event, as the streams would; whether it counted."""
        if not isinstance(event, TouchpointMade):
            return super().read(event)
        newest = self.touchpoints_newest
        if newest is not None and event.occurred_at < newest - self.program.ledger:
            return False
        customer = self.customers.setdefault(event.customer_id, self.rules.new_customer(event.customer_id))
        decisions = self.rules.touch(customer, event, newest)
        if decisions is None:
            return False
        self._publish(event.customer_id, decisions)
        self.touchpoints_newest = event.occurred_at if newest is None else max(newest, event.occurred_at)
        return True

    def _publish(self, customer_id: str, changes: Sequence[Any]) -> None:
        super()._publish(customer_id, [change for change in changes if not isinstance(change, BondChange)])
        self.bonds.setdefault(customer_id, []).extend(
            change for change in changes if isinstance(change, BondChange)
        )

    def records(self, customer_id: str) -> list[BondEvent]:
        """What was decided of a customer's bond."""
        return [change.body for change in self.bonds.get(customer_id, [])]

    def reserve(self, customer_id: str, channel: str, at: int) -> list[BondEvent]:
        """Reserve a place, if that is allowed."""
        _, decisions = self.rules.reserve(self.customers[customer_id], channel, None, at)
        self._publish(customer_id, decisions)
        return [decision.body for decision in decisions if isinstance(decision, BondChange)]
