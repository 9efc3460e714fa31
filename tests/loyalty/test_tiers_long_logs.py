"""Long random logs under programs with grace, overrides and changes of program: the fold against the batch."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest

from schemas.program import Program, Scores, Tier
from tests.loyalty.comparison import Pair, compare_views, latest, lines
from tests.loyalty.worlds import START, UNIT, command, program, purchase, refund, small_pages, touch

CHANGES = {
    f"{reason} {kind}"
    for reason in ("purchase", "refund", "window_expiry", "inactivity", "override", "program_change")
    for kind in ("upgrade", "downgrade", "at-risk", "retained")
}
IMPOSSIBLE = {
    "refund retained",
    "window_expiry upgrade",
    "window_expiry retained",
    "inactivity upgrade",
    "inactivity retained",
}

RARE = {"refund upgrade"}  # at the very instant at which a pin below the earned tier ends


@pytest.mark.parametrize("seed", range(4))
def test_fold_and_batch_agree_over_long_logs_of_every_kind(seed: int) -> None:
    met: Counter[str] = Counter()
    for world in range(300):
        random = Random(seed * 1_000 + world)
        with small_pages(random.choice([2, 3, 8, 64]), random.choice([0, 1, 16])):
            met += run(random)
    assert {change for change in CHANGES - IMPOSSIBLE - RARE if met[change] < 2} == set()
    assert {change for change in IMPOSSIBLE if met[change]} == set()


def run(random: Random) -> Counter[str]:
    """One log, compared after every step; what was published on the way."""
    pair = Pair(random_program(random))
    length, span = random.randint(20, 110), random.choice([60, 150, 400])
    jitter, held = random.choice([0, 0, 5, 30]), random.choice([0.02, 0.15])
    ids, orders = random.choice([30, 3_000]), random.choice([4, 10])
    for number in range(length):
        at = START + number * span // length * UNIT + random.choice([0, 0, 0, 1, -1])
        if random.random() < 0.5:
            at -= random.randint(0, jitter) * UNIT
        pair.take(random_step(random, at, str(random.randint(0, ids)), str(random.randint(0, orders)), held))
    check_looking_back(pair, random)
    met: Counter[str] = Counter()
    for customer_id in pair.shard.customers:
        met.update(
            f"{body.reason} {body.direction if body.kind == 'changed' else body.kind}"
            for body in pair.shard.bodies(customer_id)
        )
    return met


def check_looking_back(pair: Pair, random: Random) -> None:
    """Sweeps and reloads leave no trace in a view of an instant that lies before them, and after the newest
    change of program."""
    compare_views(pair.shard, pair.reference, 50)
    shard = pair.shard
    for customer_id in shard.customers:
        pair.take(("move", customer_id))
    first = latest(shard)
    looked = [(at, lines(shard, at)) for at in (first + random.randint(0, 90) * UNIT for _ in range(3))]
    for at in sorted([*(at for at, _ in looked), START + 1_000 * UNIT]):
        pair.take(("sweep", at + random.randint(0, 2)))
        pair.take(("save", "a"))
        for earlier, shown in looked:
            assert lines(shard, earlier) == shown


def random_step(random: Random, at: int, event_id: str, order_id: str, held: float) -> Any:
    kind, customer_id = random.random(), random.choice("aaab")
    if kind < 0.10:
        return random.choice(
            [
                *[("sweep", at), ("save", customer_id)] * 4,
                ("view", random.randint(0, 80)),
                ("move", customer_id),
            ]
        )
    if kind < 0.13:
        return random_change(random, at)
    given = {"customer_id": customer_id, "event_id": event_id, "source": random.choice(["", "", "pos"])}
    if kind < 0.13 + held:
        until = at + max(1, random.randint(0, 40) * UNIT + random.choice([0, 0, 1, -1]))
        mode = random.choice(["pin", "floor", "floor", "clear"])
        return command(at, mode, str(random.randint(0, 3)), until, **given)
    kind = random.random()
    if kind < 0.65:
        return purchase(at, order_id, random.choice([0, 1, 100, 100, 250, 250, 600]), **given)
    if kind < 0.9:
        return refund(at, order_id, random.choice([1, 100, 250, 600]), **given)
    return touch(at, random.choice(["email", "web"]), random.choice(["inbound", "outbound"]), **given)


def random_change(random: Random, at: int) -> Any:
    """A step of ``Pair``: another program, mostly with some of the tiers' names."""
    names = random.sample(["t0", "t1", "t2", "t3", "new"], 5)
    if random.random() < 0.6:
        names.sort()
    protect_until = random.choice([None, at + random.randint(-5, 60) * UNIT])
    other = msgspec.structs.replace(random_program(random, names), protect_until=protect_until)
    starts = at + random.choice([random.randint(-3, 12), random.randint(-60, 30)]) * UNIT
    return "change", other, starts, random.random() < 0.3


def random_program(random: Random, names: list[str] | None = None) -> Program:
    window = random.randint(8, 60) * UNIT + random.choice([0, 0, 1])
    names = names or ["t0", "t1", "t2", "t3"]
    tiers = [Tier(names[0], benefits=random.choice([(), ("card",)]))]
    for name in names[1 : random.randint(2, 4)]:
        below = tiers[-1]
        longest = below.max_recency or window - UNIT
        recency = random.choice([below.max_recency, random.randint(1, max(1, longest // UNIT)) * UNIT])
        monetary = below.min_monetary + random.choice([0, 100, 250, 700, 2_000])
        frequency = below.min_frequency + random.randint(0, 3)
        tiers.append(
            Tier(
                name,
                monetary,
                frequency,
                recency,
                retain_monetary=random.choice([None, random.randint(0, monetary)]),
                retain_frequency=random.choice([None, random.randint(0, frequency)]),
                grace_period=random.choice([0, 1, random.randint(1, 40) * UNIT]),
                downgrade=random.choice(["requalify", "one_down", "base"]),
                refund_policy=random.choice(["reverse", "grace"]),
                benefits=random.choice([(), ("lounge",), ("lounge", "parking")]),
            )
        )
    return program(
        window=window,
        ledger=window + random.choice([random.randint(-7, 40), random.randint(0, 10), 90]) * UNIT,
        contact_days=random.randint(1, 9),
        timezone=random.choice(["UTC", "Asia/Tokyo", "America/New_York"]),
        publish_from=random.choice([None, None, None, START + random.randint(0, 120) * UNIT]),
        tiers=tuple(tiers),
        scores=Scores((UNIT, 5 * UNIT, 10 * UNIT, 20 * UNIT), (1, 3, 4, 6), (100, 200, 500, 900)),
    )
