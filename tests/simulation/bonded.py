"""Bonds in the simulator: random sections of a program, and what shops say for them.

Thresholds and durations lie where the random logs do, so that every part decides something in a short schedule.
"""

from random import Random
from typing import Any

from schemas.program import Program
from schemas.program_bonds import (
    MILLION,
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
    When,
)

CHANNELS = ("email", "web", "store")
ACTIONS = (None, "visit", "review", "receipt", "pause", "resume", "cancel", "redeem")
CAMPAIGNS = (None, "spring", "card")
SUBSCRIPTIONS = (None, None, None, "coffee", "tea")


def random_bonds(rng: Random, program: Program, unit: int) -> Bonds:
    """All sections, or some of them; durations are in `unit` milliseconds."""

    def some(most: int, least: int = 1) -> int:
        return rng.randint(least, most) * unit

    segments = [
        Segment("dormant", min_silence=max(1, program.window // rng.choice((1, 2, 4)))),
        Segment("lapsing", min_gaps=rng.choice((1_000, 1_500, 3_000))),
        Segment("subscribed", subscription=rng.choice(("active", "paused", "cancelled", "lapsed"))),
        Segment("loyal", min_value=rng.randint(2, 8), min_attachment=rng.randint(1, 6)),
        Segment("spender", min_value=rng.randint(2, 8)),
        Segment("fan", min_attachment=rng.randint(1, 6)),
        Segment("first_time", min_orders=1, max_orders=1),
    ]
    rng.shuffle(segments)
    segments = [*segments[: rng.randint(1, len(segments))], Segment("regular")]
    holdout = Holdout(rng.choice((0, 300_000, 500_000)), "salt", 2) if rng.random() < 0.6 else None
    return Bonds(
        segments=tuple(segments) if rng.random() < 0.9 else (),
        attachment=Attachment(
            window=some(40),
            points=(Points(3, "store", "visit"), Points(2, None, "review"), Points(1)),
            breadth=rng.randint(0, 2),
            renewal=rng.randint(0, 2),
            tenure=rng.randint(0, 2),
        ),
        subscriptions=Subscriptions(some(20), some(8)),
        contact_policy=_policy(rng, unit) if rng.random() < 0.85 else None,
        scenarios=tuple(_scenario(rng, n, segments, unit, holdout) for n in range(rng.randint(1, 4))),
        holdout=holdout,
        attribution=Attribution(some(20), some(40)) if rng.random() < 0.85 else None,
    )


def _policy(rng: Random, unit: int) -> ContactPolicy:
    caps = []
    for _ in range(rng.randint(1, 3)):
        channel, most = rng.choice((None, "email", "web")), rng.choice((0, 1, 1, 2, 3))
        if rng.random() < 0.7:
            caps.append(Cap(most, channel, within=rng.randint(1, 40) * unit))
        else:
            caps.append(Cap(most, channel, days=rng.randint(1, 3)))
    quiet = rng.choice((None, None, (22 * 60, 7 * 60), (11 * 60, 13 * 60)))
    return ContactPolicy(tuple(caps), quiet, ("receipt",), rng.randint(1, 30) * unit)


def _scenario(
    rng: Random, number: int, segments: list[Segment], unit: int, holdout: Holdout | None
) -> Scenario:
    when: When = rng.choice(
        (
            *("segment", "segment", "first_order", "last_order", "near_tier", "tier_at_risk"),
            *("subscription_renewal", "subscription_cancelled", "benefit_unused"),
        )
    )
    steps = tuple(
        Step(rng.choice(("email", "email", "web")), f"content-{n}", rng.choice((0, 0, 1, 5, 15)) * unit)
        for n in range(rng.randint(1, 3))
    )
    return Scenario(
        f"s{number}",
        when,
        steps,
        segment=rng.choice(segments).name if when == "segment" else "",
        after=rng.randint(0, 20) * unit,
        amount=rng.choice((0, 100, 300)),
        orders=rng.randint(0, 1),
        before=rng.randint(0, 10) * unit,
        benefit=rng.choice(("lounge", "card")) if when == "benefit_unused" else "",
        cool_down=rng.choice((0, 3, 20)) * unit,
        patience=rng.choice((0, 3, 30, 200)) * unit,
        goal=rng.choice(("order", "order", "visit", "condition", "none")),
        holdout=rng.choice((0, MILLION // 3)) if holdout is not None else 0,
    )


def bought(rng: Random) -> dict[str, Any]:
    """What a purchase says for bonds."""
    return _present(
        channel=rng.choice((None, "web", "store")),
        store_id=rng.choice((None, None, "s1", "s2")),
        campaign_id=rng.choice(CAMPAIGNS),
        subscription_id=rng.choice(SUBSCRIPTIONS),
    )


def touched(rng: Random) -> dict[str, Any]:
    """What a touchpoint says for bonds.

    One that pauses, resumes or cancels names its subscription: without one it means those that are known when it is
    read, and between two inputs that is nobody's promise.
    """
    action = rng.choice(ACTIONS)
    said = _present(
        action=action,
        campaign_id=rng.choice((None, "lounge", "card") if action == "redeem" else CAMPAIGNS),
        store_id=rng.choice((None, None, "s1")),
        timezone="Asia/Tokyo" if rng.random() < 0.03 else None,
    )
    if action in ("pause", "resume", "cancel"):
        said["subscription_id"] = rng.choice(("coffee", "tea"))
    return said


def _present(**given: str | None) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
