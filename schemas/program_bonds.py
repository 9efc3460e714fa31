"""The program file's sections about bonds: attachment, segments, contact policy, scenarios, holdout, attribution,
subscriptions. What each means: docs/bonds.md."""

from __future__ import annotations

from typing import Literal

import msgspec

from schemas.times import DAY

SubscriptionState = Literal["active", "paused", "cancelled", "lapsed"]
When = Literal[
    "segment",
    "first_order",
    "last_order",
    "near_tier",
    "tier_at_risk",
    "subscription_renewal",
    "subscription_cancelled",
    "benefit_unused",
]
Goal = Literal["order", "visit", "condition", "none"]

MILLION = 1_000_000
"""Shares are kept in parts per million."""


class Points(msgspec.Struct, frozen=True):
    """What an inbound touch is worth whose channel and action are these; None fits any, also an absent action."""

    points: int
    channel: str | None = None
    action: str | None = None


class Attachment(msgspec.Struct, frozen=True):
    """The second axis. ``window`` is in milliseconds, everything else in points, ``tenure_years`` in years."""

    window: int = 180 * DAY
    points: tuple[Points, ...] = ()
    breadth: int = 0
    renewal: int = 0
    tenure: int = 0
    tenure_years: int = 5


class Segment(msgspec.Struct, frozen=True):
    """One segment and its tests; all that are given must hold. ``min_silence`` is in milliseconds, ``min_gaps`` in
    thousandths of the customer's usual gap. A bound of 0 or None asks for nothing."""

    name: str
    min_value: int = 0
    min_attachment: int = 0
    min_orders: int = 0
    max_orders: int | None = None
    min_silence: int | None = None
    min_gaps: int | None = None
    subscription: SubscriptionState | None = None


class Cap(msgspec.Struct, frozen=True):
    """At most ``most`` contacts of a channel (None: of all) ``within`` so many milliseconds, or in so many local
    ``days``: one of the two is None. With ``most`` 0 both may be."""

    most: int
    channel: str | None = None
    within: int | None = None
    days: int | None = None


class ContactPolicy(msgspec.Struct, frozen=True):
    """``quiet`` is None or two minutes of the local day, from and until; ``lapse`` is in milliseconds."""

    caps: tuple[Cap, ...] = ()
    quiet: tuple[int, int] | None = None
    transactional: tuple[str, ...] = ()
    lapse: int = DAY


class Step(msgspec.Struct, frozen=True):
    """``wait`` milliseconds after the step before: a message by a channel."""

    channel: str
    content: str
    wait: int = 0


class Scenario(msgspec.Struct, frozen=True):
    """One scenario. Durations are milliseconds, ``amount`` minor units, ``holdout`` parts per million. ``segment``,
    ``after``, ``amount``, ``orders``, ``before`` and ``benefit`` belong to the ``when`` that asks for them."""

    name: str
    when: When
    steps: tuple[Step, ...]
    segment: str = ""
    after: int = 0
    amount: int = 0
    orders: int = 0
    before: int = 0
    benefit: str = ""
    cool_down: int = 90 * DAY
    patience: int = 2 * DAY
    goal: Goal = "order"
    holdout: int = 0


class Holdout(msgspec.Struct, frozen=True):
    """``share`` is in parts per million of all customers; ``version`` is that of the salt."""

    share: int
    salt: str
    version: int = 1


class Attribution(msgspec.Struct, frozen=True):
    """Durations are milliseconds."""

    window: int
    campaign_window: int = 30 * DAY
    online: tuple[str, ...] = ("email", "sns", "web", "app", "blog")
    offline: tuple[str, ...] = ("store",)
    visits: tuple[str, ...] = ("visit",)


class Subscriptions(msgspec.Struct, frozen=True):
    """``period`` between two renewals and ``grace`` beyond it, in milliseconds."""

    period: int = 30 * DAY
    grace: int = 7 * DAY


class Bonds(msgspec.Struct, frozen=True):
    """All of them. ``scores`` of the program give the value. ``holdout`` may be there for the scenarios' own
    ``holdout`` alone, with a share of 0."""

    segments: tuple[Segment, ...] = ()
    attachment: Attachment = Attachment()
    subscriptions: Subscriptions = Subscriptions()
    contact_policy: ContactPolicy | None = None
    scenarios: tuple[Scenario, ...] = ()
    holdout: Holdout | None = None
    attribution: Attribution | None = None


def default_segments(window: int) -> tuple[Segment, ...]:
    """The segments of a program that has ``[attachment]`` and names none; ``window`` in milliseconds."""
    return (
        Segment("dormant", min_silence=max(1, window // 2)),
        Segment("lapsing", min_gaps=3_000),
        Segment("loyal", min_value=8, min_attachment=10),
        Segment("spender", min_value=8),
        Segment("fan", min_attachment=10),
        Segment("first_time", min_orders=1, max_orders=1),
        Segment("regular"),
    )
