"""The program file's sections about bonds, read and checked whole. What each means: docs/bonds.md."""

from __future__ import annotations

import re
from typing import cast, get_args

from schemas.program_bonds import (
    Attachment,
    Attribution,
    Bonds,
    Holdout,
    Points,
    Segment,
    Subscriptions,
    SubscriptionState,
    default_segments,
)
from schemas.program_contact_policy import read_contact_policy
from schemas.program_scenarios import Known, read_scenarios
from schemas.program_table import (
    LONGEST,
    LONGEST_NAME,
    LONGEST_TEXT,
    Table,
    decimal,
    refuse,
    share,
    whole,
)
from schemas.program_tiers import Tier
from schemas.times import DAY

BOND_SECTIONS = (
    *("attachment", "segments", "contact_policy", "scenarios", "holdout", "attribution", "subscriptions"),
)
ATTACHMENT_KEYS = ("window", "breadth", "renewal", "tenure", "tenure_years", "points")
POINTS_KEYS = ("points", "channel", "action")
_TEST_KEYS = (
    *("min_value", "min_attachment", "min_orders", "max_orders", "min_silence", "min_gaps", "subscription"),
)
SEGMENT_KEYS = ("name", *_TEST_KEYS)
HOLDOUT_KEYS = ("share", "salt", "version")
ATTRIBUTION_KEYS = ("window", "campaign_window", "online", "offline", "visits")
SUBSCRIPTIONS_KEYS = ("period", "grace")

_STATES = get_args(SubscriptionState)
_MOST_POINTS = 64
_MOST_SEGMENTS = 32
_MOST_TENURE_YEARS = 100
_HIGHEST_VALUE = 10
_MOST_GAPS = 1_000_000_000
_GAPS_ALLOWED = 'a decimal above zero in quotes, at most 3 digits behind the point and 1000000, such as "2.5"'
_SALT = re.compile(r"[^:]{1,256}", re.DOTALL)
_SALT_ALLOWED = "1 to 256 characters, none of them a colon"


def read_bonds(file: Table, decimals: int, window: int, tiers: tuple[Tier, ...]) -> Bonds | None:
    """The file's bonds, or None where it has none of their sections. ``decimals`` are the currency's, ``window`` is
    the program's, in milliseconds. Raises ``ProgramError``."""
    if not any(section in file for section in BOND_SECTIONS):
        return None
    segments = _segments(file, window)
    holdout = _holdout(file)
    known = Known(decimals, window, segments, tiers, holdout is not None)
    return Bonds(
        segments=segments,
        attachment=_attachment(file),
        subscriptions=_subscriptions(file),
        contact_policy=read_contact_policy(file),
        scenarios=read_scenarios(file, known),
        holdout=holdout,
        attribution=_attribution(file),
    )


def _attachment(file: Table) -> Attachment:
    if "attachment" not in file:
        return Attachment()
    table = Table("attachment", file.values["attachment"], ATTACHMENT_KEYS)
    plain = Attachment()
    points: list[Points] = []
    for entry in table.tables("points", POINTS_KEYS, _MOST_POINTS):
        points.append(_points(entry))
        for index, earlier in enumerate(points[:-1]):
            if earlier.channel in {None, points[-1].channel} and earlier.action in {None, points[-1].action}:
                # The first one that fits counts, so this one would never be asked.
                refuse(entry.path, f"expected a touch that attachment.points[{index}] does not fit already")
    return Attachment(
        window=table.duration("window", f"{plain.window // DAY}d", least=1, most=LONGEST),
        points=tuple(points),
        breadth=_count(table, "breadth"),
        renewal=_count(table, "renewal"),
        tenure=_count(table, "tenure"),
        tenure_years=whole(
            table.at("tenure_years"),
            table.values.get("tenure_years", plain.tenure_years),
            most=_MOST_TENURE_YEARS,
        ),
    )


def _points(table: Table) -> Points:
    if "points" not in table:
        refuse(table.at("points"), "missing; allowed is a whole number from 0")
    return Points(
        _count(table, "points"),
        table.name("channel", LONGEST_NAME) if "channel" in table else None,
        table.name("action", LONGEST_TEXT) if "action" in table else None,
    )


def _count(table: Table, key: str) -> int:
    return whole(table.at(key), table.values.get(key, 0), least=0)


def _segments(file: Table, window: int) -> tuple[Segment, ...]:
    if "segments" not in file:
        return default_segments(window) if "attachment" in file else ()
    tables = file.tables("segments", SEGMENT_KEYS, _MOST_SEGMENTS, least=1)
    segments: list[Segment] = []
    for table in tables:
        segment = _segment(table, window, attachment="attachment" in file)
        if any(segment.name == earlier.name for earlier in segments):
            refuse(table.at("name"), "expected a name that no segment before it has")
        tests = [key for key in _TEST_KEYS if key in table]
        if table is tables[-1] and tests:
            refuse(table.at(tests[0]), "not allowed here: the last segment is everyone else's")
        if table is not tables[-1] and not tests:
            refuse(
                table.path,
                f"expected at least one of {', '.join(_TEST_KEYS)}: only the last segment has none",
            )
        segments.append(segment)
    return tuple(segments)


def _segment(table: Table, window: int, *, attachment: bool) -> Segment:
    name = table.name("name", LONGEST_NAME)
    min_value = min_attachment = min_orders = 0
    max_orders = min_silence = min_gaps = subscription = None
    if "min_value" in table:
        min_value = whole(table.at("min_value"), table.values["min_value"], most=_HIGHEST_VALUE)
    if "min_attachment" in table:
        if not attachment:
            refuse(table.at("min_attachment"), "not allowed without a table [attachment]")
        min_attachment = whole(table.at("min_attachment"), table.values["min_attachment"])
    if "min_orders" in table:
        min_orders = whole(table.at("min_orders"), table.values["min_orders"])
    if "max_orders" in table:
        max_orders = whole(table.at("max_orders"), table.values["max_orders"], least=0)
        if max_orders < min_orders:
            refuse(table.at("max_orders"), "expected at least min_orders")
    if "min_silence" in table:
        min_silence = table.duration("min_silence", least=1)
        if min_silence > window:
            refuse(table.at("min_silence"), "expected a duration no longer than program.window")
    if "min_gaps" in table:
        value = table.values["min_gaps"]
        min_gaps = decimal(table.at("min_gaps"), value, 3, _GAPS_ALLOWED, _MOST_GAPS, least=1)
    if "subscription" in table:
        subscription = cast("SubscriptionState", table.choice("subscription", _STATES))
    return Segment(
        name, min_value, min_attachment, min_orders, max_orders, min_silence, min_gaps, subscription
    )


def _holdout(file: Table) -> Holdout | None:
    if "holdout" not in file:
        return None
    table = Table("holdout", file.values["holdout"], HOLDOUT_KEYS)
    held_out = share(table.at("share"), table.values["share"]) if "share" in table else 0
    salt = table.text("salt", _SALT_ALLOWED)
    if not _SALT.fullmatch(salt):
        # With a colon two salts could make one text to hash.
        refuse(table.at("salt"), f"expected {_SALT_ALLOWED}")
    version = whole(table.at("version"), table.values.get("version", Holdout(0, "").version))
    return Holdout(held_out, salt, version)


def _attribution(file: Table) -> Attribution | None:
    if "attribution" not in file:
        return None
    table = Table("attribution", file.values["attribution"], ATTRIBUTION_KEYS)
    window = table.duration("window", least=1, most=LONGEST)
    plain = Attribution(window)
    campaign_window = max(window, plain.campaign_window)
    if "campaign_window" in table:
        campaign_window = table.duration("campaign_window", most=LONGEST)
        if campaign_window < window:
            refuse(table.at("campaign_window"), "expected a duration at least as long as attribution.window")
    online = table.texts("online", LONGEST_NAME, plain.online, least=1)
    offline = table.texts("offline", LONGEST_NAME, plain.offline)
    for index, channel in enumerate(offline):
        if channel in online:
            refuse(f"{table.at('offline')}[{index}]", "expected a channel that is not in attribution.online")
    visits = table.texts("visits", LONGEST_TEXT, plain.visits)
    return Attribution(window, campaign_window, online, offline, visits)


def _subscriptions(file: Table) -> Subscriptions:
    if "subscriptions" not in file:
        return Subscriptions()
    table = Table("subscriptions", file.values["subscriptions"], SUBSCRIPTIONS_KEYS)
    plain = Subscriptions()
    return Subscriptions(
        table.duration("period", f"{plain.period // DAY}d", least=1, most=LONGEST),
        table.duration("grace", f"{plain.grace // DAY}d", most=LONGEST),
    )
