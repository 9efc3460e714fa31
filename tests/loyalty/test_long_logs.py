"""Longer logs than Hypothesis likes to make, with a clock that goes on: pages fill, seal and are dropped."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from loyalty.batch import Batch
from schemas.program import Program, Scores, Tier
from tests.loyalty.comparison import compare_states, compare_views, save_and_load
from tests.loyalty.worlds import START, UNIT, Event, Shard, program, purchase, refund, small_pages, touch


@pytest.mark.parametrize("seed", range(4))
def test_fold_and_batch_agree_over_long_logs(seed: int) -> None:
    met: Counter[str] = Counter()
    for world in range(25):
        random = Random(seed * 1_000 + world)
        with small_pages(random.choice([2, 3, 8, 64]), random.choice([0, 1, 16])):
            met += run(random, random_program(random))
    assert met["dropped page"] > 20
    assert met["not counted"] > 100
    reasons = ("purchase upgrade", "purchase downgrade", "refund downgrade")
    assert all(met[reason] for reason in (*reasons, "window_expiry downgrade", "inactivity downgrade"))


def run(random: Random, rules: Program) -> Counter[str]:
    """One log, compared after every step; what was met on the way."""
    met: Counter[str] = Counter()
    shard, reference = Shard(rules), Batch(rules)
    length, span, jitter = (
        random.randint(10, 150),
        random.choice([100, 300, 800]),
        random.choice([0, 5, 30, 200]),
    )
    ids, orders = random.choice([30, 300, 3_000]), random.choice([3, 8, 30])
    for number in range(length):
        at = START + number * span // length * UNIT + random.choice([0, 0, 0, 1, -1])
        if random.random() < 0.5:
            at -= random.randint(0, jitter) * UNIT
        step = random.random()
        if step < 0.03:
            shard.sweep(at)
            reference.let_fall(before=at)
        elif step < 0.07:
            save_and_load(shard, random.choice("ab"))
        elif step < 0.08:
            compare_views(shard, reference, random.randint(0, 80))
        else:
            event = random_event(random, at, str(random.randint(0, ids)), str(random.randint(0, orders)))
            counted = shard.read(event)
            assert counted == reference.read(event)
            met["counted" if counted else "not counted"] += 1
        compare_states(shard, reference)
    compare_views(shard, reference, 50)
    for customer in reference.customers.values():
        met.update(f"{change.reason} {change.direction}" for change in customer.changes)
    for folded in shard.customers.values():
        met["dropped page"] += folded.open.number - len(folded.pages)
    return met


def random_event(random: Random, at: int, event_id: str, order_id: str) -> Event:
    given = {
        "customer_id": random.choice("aaab"),
        "event_id": event_id,
        "source": random.choice(["", "", "pos"]),
    }
    kind = random.random()
    if kind < 0.7:
        return purchase(at, order_id, random.choice([0, 1, 100, 100, 250, 250, 600]), **given)
    if kind < 0.87:
        return refund(at, order_id, random.choice([1, 100, 250, 600]), **given)
    return touch(at, random.choice(["email", "web"]), random.choice(["inbound", "outbound"]), **given)


def random_program(random: Random) -> Program:
    window = random.randint(8, 60) * UNIT + random.choice([0, 0, 1])
    tiers = [Tier("t0")]
    for number in range(1, random.randint(1, 3) + 1):
        below = tiers[-1]
        longest = below.max_recency or window - UNIT
        recency = random.choice([below.max_recency, random.randint(1, max(1, longest // UNIT)) * UNIT])
        tiers.append(
            Tier(
                f"t{number}",
                below.min_monetary + random.choice([0, 100, 250, 700, 2_000]),
                below.min_frequency + random.randint(0, 3),
                recency,
            )
        )
    return program(
        window=window,
        ledger=window + random.choice([random.randint(-7, 40), random.randint(0, 10), 90]) * UNIT,
        contact_days=random.randint(1, 9),
        timezone=random.choice(["UTC", "Asia/Tokyo", "America/New_York"]),
        publish_from=random.choice([None, None, START + random.randint(0, 120) * UNIT]),
        tiers=tuple(tiers),
        scores=Scores((UNIT, 5 * UNIT, 10 * UNIT, 20 * UNIT), (1, 3, 4, 6), (100, 200, 500, 900)),
    )
