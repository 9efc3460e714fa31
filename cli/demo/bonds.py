"""What the year says of bonds, in numbers: segments, a scenario with its holdout, redemptions, contacts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import median
from typing import Any

import msgspec

from cli.demo.bond_check import PublishedBonds, describe, most_within, sent_at
from cli.demo.data import Event
from loyalty.batch_contact import draw
from schemas.money import parse_minor
from schemas.program import Program
from schemas.program_bonds import Bonds, Scenario, Segment
from schemas.times import DAY, parse_rfc3339
from streams.protocols import PURCHASES

#: Who buys again within so long after the scenario's condition became true came back.
CAME_BACK_WITHIN = 30 * DAY
#: Of the normal distribution: 95 % lie within so many standard deviations.
_CONFIDENT = 1.96


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment at the end: how many are in it, what they spent in the year (minor units), their attachment."""

    name: str
    customers: int
    spent: int
    attachment: float


@dataclass(frozen=True, slots=True)
class Group:
    """Customers of an experiment, and how many of them bought again in time."""

    customers: int
    came_back: int

    @property
    def share(self) -> float:
        """Who came back, 0 to 1."""
        return self.came_back / self.customers if self.customers else 0.0


@dataclass(frozen=True, slots=True)
class Experiment:
    """A scenario: those whom it was for, and those who were held out of it."""

    scenario: str
    asked: Group
    held_out: Group

    @property
    def difference(self) -> float:
        """How much more of the one group came back than of the other, -1 to 1."""
        return self.asked.share - self.held_out.share

    @property
    def margin(self) -> float:
        """Half the width of the difference's 95 % interval (Wald)."""
        return _CONFIDENT * sqrt(
            sum(
                group.share * (1 - group.share) / group.customers
                for group in (self.asked, self.held_out)
                if group.customers
            )
        )


@dataclass(frozen=True, slots=True)
class Brought:
    """Conversions that a touch brought: how many, the amount (minor units; None of visits), the median lag, ms."""

    count: int
    amount: int | None
    lag: float


@dataclass(frozen=True, slots=True)
class CapRow:
    """A cap and what came closest to it: messages of the scenarios alone, and with the contacts of the data."""

    channel: str
    allowed: str
    most: int
    ours: int
    with_others: int


def segment_rows(bonds: Bonds, states: Iterable[Mapping[str, Any]], decimals: int) -> list[SegmentRow]:
    """The program's segments with those who are in them, in the order of `shown_order`."""
    counts: Counter[str] = Counter()
    spent: Counter[str] = Counter()
    attachment: Counter[str] = Counter()
    for state in states:
        name = state["segment"]
        counts[name] += 1
        spent[name] += parse_minor(state["lifetime_monetary"], decimals)
        attachment[name] += state["attachment"]
    return [
        SegmentRow(name, counts[name], spent[name], attachment[name] / max(1, counts[name]))
        for name in shown_order(bonds)
    ]


def shown_order(bonds: Bonds) -> list[str]:
    """The segments for people: those by value and attachment first, then everyone else, then who may be lost."""

    def place(segment: Segment) -> int:
        if segment.min_silence is not None or segment.min_gaps is not None:
            return 3
        if segment.min_orders or segment.max_orders is not None or segment.subscription is not None:
            return 2
        return 0 if segment.min_value or segment.min_attachment else 1

    return [segment.name for segment in sorted(bonds.segments, key=place)]


def experiment(program: Program, published: PublishedBonds, year: Iterable[Event]) -> Experiment | None:
    """Who came back, of all who entered the segment of a scenario for the first time, by whether they were held out.

    The draw was made before, and nobody is left out of either group, whether a message was sent or not: else those who
    came back before theirs was due would be missing from one of them. Only those count whose time to come back is over
    at the end of the year. None where no scenario can be measured so.
    """
    chosen = _to_measure(program)
    if chosen is None or program.bonds is None:
        return None
    bought: dict[str, list[int]] = {}
    end = 0
    for event in year:
        if event.topic == PURCHASES:
            bought.setdefault(event.key.decode(), []).append(event.occurred_at)
            end = event.occurred_at
    groups: dict[bool, Counter[bool]] = {True: Counter(), False: Counter()}
    for customer_id, changes in published.segments.items():
        entered = (parse_rfc3339(c["effective_at"]) for c in changes if c["segment"] == chosen.segment)
        at = next(entered, None)
        if at is None or at + CAME_BACK_WITHIN > end:
            continue
        drawn = draw(program.bonds.holdout, chosen, customer_id)
        came = any(at < time <= at + CAME_BACK_WITHIN for time in bought.get(customer_id, ()))
        groups[drawn is not None and (drawn.overall or drawn.scenario)][came] += 1
    asked, held_out = (Group(groups[out].total(), groups[out][True]) for out in (False, True))
    return Experiment(chosen.name, asked, held_out) if asked.customers and held_out.customers else None


def _to_measure(program: Program) -> Scenario | None:
    """A scenario with a holdout that begins with a segment; best with that of first orders."""
    bonds = program.bonds
    if bonds is None or bonds.holdout is None:
        return None
    share = bonds.holdout.share
    held = [s for s in bonds.scenarios if s.when == "segment" and (share or s.holdout)]
    first = {segment.name for segment in bonds.segments if segment.max_orders == 1}
    return next((scenario for scenario in held if scenario.segment in first), next(iter(held), None))


def brought(published: PublishedBonds, decimals: int) -> dict[tuple[str, str], Brought]:
    """What holds at the end, by kind of the conversion and match."""
    last: dict[str, Mapping[str, Any]] = {}
    for customer_id, bodies in published.attributions.items():
        for body in bodies:
            conversion = body["conversion"]
            names = conversion["order_id"] or (conversion["source"], conversion["event_id"])
            last[f"{customer_id} {conversion['kind']} {names}"] = body
    kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for told in last.values():
        if told["status"] == "attributed":
            kinds.setdefault((told["conversion"]["kind"], told["match"]), []).append(told)
    return {
        kind: Brought(
            len(bodies),
            None if kind[0] == "visit" else sum(parse_minor(body["amount"], decimals) for body in bodies),
            1000 * median(body["lag_seconds"] for body in bodies),
        )
        for kind, bodies in kinds.items()
    }


def visits(bonds: Bonds, year: Iterable[Event]) -> int:
    """How many touchpoints of the year are visits to a store, redemptions among them."""
    rules = bonds.attribution
    if rules is None:
        return 0
    bodies = (msgspec.json.decode(event.value) for event in year if event.topic != PURCHASES)
    return sum(
        body["direction"] == "inbound"
        and body.get("action") in rules.visits
        and (body["channel"] in rules.offline or "store_id" in body)
        for body in bodies
    )


def cap_rows(program: Program, published: PublishedBonds, year: Iterable[Event]) -> list[CapRow]:
    """Each cap of the program, and the most contacts of any customer in its window when a message was sent."""
    bonds = program.bonds
    if bonds is None or bonds.contact_policy is None:
        return []
    policy = bonds.contact_policy
    others: dict[str, list[tuple[int, str]]] = {}
    for event in year:
        if event.topic != PURCHASES and b'"outbound"' in event.value:
            body = msgspec.json.decode(event.value)
            if body.get("action") not in policy.transactional:
                others.setdefault(event.key.decode(), []).append((event.occurred_at, body["channel"]))
    sent = {customer_id: sent_at(told) for customer_id, told in published.triggers.items()}
    return [
        CapRow(
            cap.channel or "all",
            describe(cap),
            cap.most,
            max((most_within(program, cap, ours) for ours in sent.values()), default=0),
            max((most_within(program, cap, ours, others.get(c, ())) for c, ours in sent.items()), default=0),
        )
        for cap in policy.caps
    ]


def statuses(published: PublishedBonds) -> dict[str, Counter[str]]:
    """How many triggers of each status, by scenario."""
    counted: dict[str, Counter[str]] = {}
    for told in published.triggers.values():
        for trigger in told:
            counted.setdefault(trigger["scenario"], Counter())[trigger["status"]] += 1
    return counted
