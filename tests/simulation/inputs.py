"""A random program and a random log for it: what shops send, and what each record is in truth.

Made without the decoder and the fold, so that the verdict can be.
"""

import json
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from schemas.events import OverrideCommanded, PurchaseMade, RefundMade, TouchpointMade
from schemas.murmur2 import home
from schemas.program import Program, Scores
from schemas.program_tiers import Tier
from schemas.rejection import Reason
from schemas.times import format_ms
from streams.protocols import COMMANDS, PURCHASES, TOUCHPOINTS
from streams.settings import ClockKind
from tests.loyalty.worlds import DAY, program
from tests.simulation import bonded
from tests.simulation.kafka import Headers

if TYPE_CHECKING:
    from tests.simulation.world import World

Event = PurchaseMade | RefundMade | TouchpointMade | OverrideCommanded

#: When a schedule begins: just before clocks go forward in New York, a leap day in Tokyo, an ordinary noon.
_STARTS = (1_489_301_995_000, 1_582_901_995_000, 1_483_272_000_000)


@dataclass(frozen=True, slots=True)
class Said:
    """What a value on a topic is in truth: an event, or why it is none."""

    event: Event | None
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Sent:
    """One record on its way: at which millisecond of the schedule it is appended, and where."""

    at: int
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(slots=True)
class Scenario:
    """Everything that is drawn before a schedule runs, but the faults."""

    program: Program
    clock: ClockKind
    partitions: int
    letter_partitions: int
    #: Epoch milliseconds at second 0; seconds in which things happen; milliseconds beyond the end up to which is swept.
    start: int
    span: float
    beyond: int
    #: Whether the events of each partition come in time order.
    is_ordered: bool
    sent: list[Sent] = field(default_factory=list)
    #: By topic, value and headers, the mark of a reroute left out.
    truth: dict[tuple[str, bytes | None, tuple[tuple[str, bytes | None], ...]], Said] = field(
        default_factory=dict
    )


def random_program(rng: Random, unit: int, clock: ClockKind, is_ordered: bool) -> Program:
    """A small program whose thresholds lie where the random logs do; durations are in `unit` milliseconds."""
    window = rng.choice((rng.randint(2, 12), rng.randint(8, 60))) * unit + rng.choice((0, 0, 1))
    plain = rng.random() < 0.35
    tiers = [Tier("t0", benefits=() if plain else rng.choice(((), ("card",))))]
    for number in range(1, rng.randint(1, 4) + 1):
        below = tiers[-1]
        longest = (below.max_recency or window) // unit
        recency = rng.randint(1, max(1, longest - 1)) * unit if rng.random() < 0.6 else None
        if recency is None or (below.max_recency is not None and recency > below.max_recency):
            recency = below.max_recency
        tier = Tier(
            f"t{number}",
            below.min_monetary + rng.choice((0, 1, 100, 250, 700)),
            below.min_frequency + rng.randint(0, 1),
            recency,
        )
        if not tier.min_monetary and not tier.min_frequency and recency is None:
            tier = Tier(f"t{number}", tier.min_monetary, 1, recency)
        tiers.append(tier if plain else _kept(rng, tier, unit))
    lateness = rng.choice((0, 0, rng.randint(1, 6) * unit))
    start = _STARTS[0]
    return program(
        window=window,
        ledger=window + rng.choice((0, rng.randint(0, 40), 200)) * unit,
        contact_days=rng.randint(1, 9),
        timezone=rng.choice(("UTC", "Asia/Tokyo", "America/New_York")),
        allowed_lateness=lateness,
        max_future=rng.choice((0, unit, 4 * unit)),
        publish_from=start + rng.randint(0, 60) * unit if rng.random() < 0.15 else None,
        tiers=tuple(tiers),
        scores=Scores(
            (unit, 5 * unit, 10 * unit, 20 * unit),
            (1 + rng.randint(0, 1), 3, 4, 6),
            (100, 200, 500, 900),
        ),
        version="v",
    )


def _kept(rng: Random, tier: Tier, unit: int) -> Tier:
    monetary = rng.choice((None, None, 0, 50, 100, 250))
    return Tier(
        tier.name,
        tier.min_monetary,
        tier.min_frequency,
        tier.max_recency,
        retain_monetary=None if monetary is None else min(monetary, tier.min_monetary),
        retain_frequency=rng.choice((None, rng.randint(0, tier.min_frequency))),
        grace_period=rng.choice((0, rng.randint(1, 8) * unit, rng.randint(1, 30) * unit, 1)),
        downgrade=rng.choice(("requalify", "one_down", "base")),
        refund_policy=rng.choice(("reverse", "grace")),
        benefits=rng.choice(((), ("lounge",), ("lounge", "parking"))),
    )


def draw(rng: Random) -> Scenario:
    """A scenario."""
    clock = rng.choice((ClockKind.WALL, ClockKind.WALL, ClockKind.EVENT))
    is_ordered = rng.random() < 0.5
    unit = rng.choice((60, 120, 250)) if clock is ClockKind.WALL else DAY // 4
    made = random_program(rng, unit, clock, is_ordered)
    start = rng.choice(_STARTS)
    if clock is ClockKind.EVENT:
        start += 200 * DAY
    elif made.publish_from is not None:
        made = msgspec.structs.replace(made, publish_from=start + rng.randint(0, 15_000))
    if rng.random() < 0.5:
        made = msgspec.structs.replace(made, bonds=bonded.random_bonds(rng, made, unit))
    span = rng.choice((4.0, 8.0, 15.0))
    scenario = Scenario(
        program=made,
        clock=clock,
        partitions=rng.choice((1, 2)),
        letter_partitions=rng.choice((1, 2)),
        start=start,
        span=span,
        beyond=rng.choice((0, made.window, 4 * made.window)) if clock is ClockKind.WALL else 0,
        is_ordered=is_ordered,
    )
    Log(rng, scenario, unit).fill()
    return scenario


class Log:
    """Draws the records of a scenario."""

    def __init__(self, rng: Random, scenario: Scenario, unit: int) -> None:
        self._rng = rng
        self._scenario = scenario
        self._unit = unit
        self._customers = [f"c{n}" for n in range(rng.choice((1, 2, 3, 5)))]
        self._made = 0
        self._bonds = scenario.program.bonds is not None
        # Where something is sent on, it comes behind what was sent after it: out of order.
        self._misplaces = rng.random() < (0.3 if scenario.is_ordered else 0.8)
        #: How far `occurred_at` lies behind the append time, where all is in order.
        lateness = scenario.program.allowed_lateness
        self._lag = rng.choice((0, lateness, lateness // 2))
        #: In the event clock: the time that history has reached.
        self._history = scenario.start - 190 * DAY
        self._earlier: list[tuple[str, dict[str, Any], Event]] = []

    def fill(self) -> None:
        rng, scenario = self._rng, self._scenario
        # In bursts, so that some batches hold many records and some hold one.
        count, span = rng.randint(15, 80), int(scenario.span * 1000)
        bursts = [rng.randrange(span) for _ in range(rng.choice((3, 8, count)))]
        for at in sorted(rng.choice(bursts) + rng.choice((0, 0, 0, rng.randrange(30))) for _ in range(count)):
            scenario.sent.append(self._record(at))

    def _record(self, at: int) -> Sent:
        rng = self._rng
        drawn = rng.random()
        if drawn < 0.04:
            return self._broken(at)
        if drawn < 0.12 and self._earlier:
            return self._again(at)
        topic, body, event = self._event(at)
        self._earlier.append((topic, body, event))
        return self._send(at, topic, body, event)

    def _occurred(self, at: int, topic: str) -> int:
        rng, scenario, unit = self._rng, self._scenario, self._unit
        if scenario.is_ordered and topic != TOUCHPOINTS:
            if scenario.clock is ClockKind.WALL:
                return scenario.start + at - self._lag
            self._history += rng.choice((0, 0, unit // 2, unit, 5 * unit))
            return self._history
        ledger, future = scenario.program.ledger, scenario.program.max_future
        behind = rng.choice(
            (
                0,
                0,
                rng.randint(0, 8) * unit,
                rng.randint(0, 40) * unit,
                ledger,
                ledger + unit,
                -future,
                -future - 1,
            )
        )
        if scenario.clock is ClockKind.WALL:
            return scenario.start + at - behind
        return min(self._history + rng.randint(0, 160) * unit + rng.choice((0, 0, -1, 1)), scenario.start)

    def _event(self, at: int) -> tuple[str, dict[str, Any], Event]:
        rng, scenario = self._rng, self._scenario
        self._made += 1
        common: dict[str, Any] = {
            "customer_id": rng.choice(self._customers),
            "event_id": f"e{self._made}",
            "source": rng.choice(("", "", "pos")),
        }
        drawn = rng.random()
        # Bonds live by touches.
        purchases = 0.55 if self._bonds else 0.78
        if drawn < purchases:
            at = self._occurred(at, PURCHASES)
            buys = drawn < purchases - 0.18
            amount = rng.choice((0, 1, 100, 100, 250, 250, 600) if buys else (1, 100, 250, 600))
            order_id = rng.choice("uvwxyz")
            kind = PurchaseMade if buys else RefundMade
            said = bonded.bought(rng) if self._bonds and buys else {}
            event: Event = kind(**common, **said, order_id=order_id, amount=amount, occurred_at=at)
            body = {
                "type": "purchase" if buys else "refund",
                "order_id": order_id,
                "amount": f"{amount // 100}.{amount % 100:02}",
                "currency": "USD",
            }
            return PURCHASES, common | body | said | {"occurred_at": format_ms(at)}, event
        if drawn < 0.94:
            at = self._occurred(at, TOUCHPOINTS)
            channel, direction = rng.choice(("email", "web", "store")), rng.choice(("inbound", "outbound"))
            said = bonded.touched(rng) if self._bonds else {}
            event = TouchpointMade(**common, **said, occurred_at=at, channel=channel, direction=direction)
            body = {"type": "touchpoint", "channel": channel, "direction": direction}
            return TOUCHPOINTS, common | body | said | {"occurred_at": format_ms(at)}, event
        at = self._occurred(at, COMMANDS)
        mode = rng.choice(("pin", "floor", "floor", "clear"))
        tier = rng.choice(scenario.program.tiers).name
        until = at + max(1, rng.randint(0, 60) * self._unit + rng.choice((0, 0, 1, -1)))
        body = {"type": "override", "mode": mode, "actor": "somebody", "reason": "asked for it"}
        if mode == "clear":
            tier, until = "", 0
        else:
            body |= {"tier": tier, "until": format_ms(until)}
        event = OverrideCommanded(
            **common,
            occurred_at=at,
            mode=mode,
            tier=tier,
            until=until,
            actor="somebody",
            reason="asked for it",
        )
        return COMMANDS, common | body | {"occurred_at": format_ms(at)}, event

    def _again(self, at: int) -> Sent:
        """A second sending: the same, or other content under the same id."""
        topic, body, event = self._rng.choice(self._earlier)
        if topic == PURCHASES and self._rng.random() < 0.3:
            body = body | {"amount": "7.77"}
            event = event.but(amount=777)
        return self._send(at, topic, body, event)

    def _send(self, at: int, topic: str, body: dict[str, Any], event: Event) -> Sent:
        rng, scenario = self._rng, self._scenario
        headers: Headers = ()
        if rng.random() < 0.08:
            body = dict(body)
            headers = (
                ("ce_specversion", b"1.0"),
                ("ce_id", body.pop("event_id").encode()),
                ("ce_source", body.pop("source").encode() or b"/"),
            )
            event = event.but(source=event.source or "/")
        value = json.dumps(body).encode()
        scenario.truth[topic, value, tuple(headers)] = Said(event, None)
        key = event.customer_id.encode()
        partition = home(key, scenario.partitions)
        drawn = rng.random()
        if drawn < 0.06 and self._misplaces:
            partition = rng.randrange(scenario.partitions)
            key = rng.choice((None, b"", b"somebody-else", key))  # type: ignore[assignment]
            if rng.random() < 0.3:
                headers = (*headers, ("loyalty-rerouted", b"1"))
        return Sent(at, topic, partition, key, value, headers)

    def _broken(self, at: int) -> Sent:
        rng, scenario = self._rng, self._scenario
        topic = rng.choice((PURCHASES, TOUCHPOINTS, COMMANDS))
        value, reason = rng.choice(
            (
                (b"{", Reason.NOT_JSON),
                (b"\xff\xfe", Reason.NOT_JSON),
                (b"", Reason.NOT_JSON),
                (None, Reason.INVALID_EVENT),
                (b"{}", Reason.INVALID_EVENT),
                (b"[1]", Reason.INVALID_EVENT),
                (b"%d" % rng.randrange(1000) + b" " * 70_000, Reason.TOO_LARGE),
            )
        )
        if topic == PURCHASES and rng.random() < 0.3:
            reason = Reason.UNSUPPORTED_CURRENCY
            value = json.dumps(
                {
                    "event_id": f"x{at}",
                    "type": "purchase",
                    "customer_id": self._customers[0],
                    "occurred_at": format_ms(scenario.start - DAY),
                    "order_id": "u",
                    "amount": "1.00",
                    "currency": "CHF",
                }
            ).encode()
        scenario.truth[topic, value, ()] = Said(None, reason)
        key = rng.choice((None, b"", self._customers[0].encode()))
        return Sent(at, topic, rng.randrange(scenario.partitions), key, value)


class Feed:
    """Appends the records of a scenario at their time: alone, in shops' transactions, with holes between."""

    def __init__(self, world: "World", scenario: Scenario) -> None:
        self._world = world
        self._scenario = scenario
        self._left = 0

    @property
    def is_feeding(self) -> bool:
        return self._left > 0

    def begin(self) -> None:
        world, rng = self._world, self._world.rng
        sent = list(self._scenario.sent)
        while sent:
            first, rest = sent[0], sent[1:]
            drawn = rng.random()
            if drawn < 0.1:
                # What one shop sends in a transaction is appended when its first record is.
                count = rng.randint(1, 3)
                self._at(first.at, self._transaction, sent[:count], rng.random() < 0.5)
                rest = sent[count:]
            else:
                self._at(first.at, self._append, first)
                if drawn < 0.15:
                    self._at(first.at, world.kafka.hole, first.topic, first.partition)
            sent = rest

    def _at(self, at: int, act: Any, *args: Any) -> None:
        self._left += 1

        def run() -> None:
            self._left -= 1
            act(*args)

        self._world.loop.call_later(at / 1000, run)

    def _append(self, sent: Sent) -> None:
        self._world.kafka.append(sent.topic, sent.partition, sent.key, sent.value, sent.headers)

    def _transaction(self, sent: list[Sent], commits: bool) -> None:
        world, rng = self._world, self._world.rng
        made = world.kafka.shop((s.topic, s.partition, s.key, s.value, s.headers) for s in sent)
        self._left += 1

        def end() -> None:
            self._left -= 1
            world.kafka.end_shop(made, commits)

        world.loop.call_later(rng.choice((0.001, 0.05, 0.7, 2.5)), end)
