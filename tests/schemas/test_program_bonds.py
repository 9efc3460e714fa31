"""The program file's sections about bonds: every key, every default, and every mistake in them."""

from __future__ import annotations

import contextlib
import re
import tomllib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from schemas.example_files import PROGRAM_FILE
from schemas.program import Program, ProgramError, load_program, parse_program
from schemas.program_bond_sections import (
    ATTACHMENT_KEYS,
    ATTRIBUTION_KEYS,
    BOND_SECTIONS,
    HOLDOUT_KEYS,
    POINTS_KEYS,
    SEGMENT_KEYS,
    SUBSCRIPTIONS_KEYS,
)
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
    When,
    default_segments,
)
from schemas.program_contact_policy import CAP_KEYS, CONTACT_POLICY_KEYS
from schemas.program_scenarios import SCENARIO_KEYS, STEP_KEYS
from schemas.times import DAY, HOUR

TEXT = PROGRAM_FILE.read_text().replace('name = "gold"', 'name = "gold"\nbenefits = ["lounge"]')
WINDOW = 365 * DAY
EXAMPLES = Path(__file__).parents[2] / "examples"

EVERYTHING = """
[attachment]
window = "90d"
breadth = 2
renewal = 3
tenure = 4
tenure_years = 6
[[attachment.points]]
channel = "web"
action = "review"
points = 5
[[attachment.points]]
action = "review"
points = 4
[[attachment.points]]
channel = "sns"
points = 1
[[attachment.points]]
points = 0

[[segments]]
name = "gone"
min_silence = "180d"
subscription = "lapsed"
[[segments]]
name = "best"
min_value = 8
min_attachment = 10
min_orders = 2
max_orders = 50
min_gaps = "2.5"
[[segments]]
name = "rest"

[contact_policy]
quiet_from = "21:30"
quiet_until = "08:00"
transactional = ["receipt", "delivery"]
lapse = "6h"
[[contact_policy.caps]]
channel = "email"
most = 2
within = "7d"
[[contact_policy.caps]]
most = 1
days = 1
[[contact_policy.caps]]
channel = "call"
most = 0

[[scenarios]]
name = "come-back"
when = "segment"
segment = "best"
cool_down = "60d"
patience = "3h"
goal = "visit"
holdout = "0.05"
[[scenarios.steps]]
channel = "email"
content = "a"
[[scenarios.steps]]
wait = "3d"
channel = "sns"
content = "b"
[[scenarios]]
name = "early"
when = "first_order"
after = "10d"
[[scenarios.steps]]
channel = "email"
content = "c"
[[scenarios]]
name = "late"
when = "last_order"
after = "364d"
goal = "none"
[[scenarios.steps]]
channel = "email"
content = "c"
[[scenarios]]
name = "near"
when = "near_tier"
amount = "50.00"
orders = 2
[[scenarios.steps]]
channel = "email"
content = "c"
[[scenarios]]
name = "risk"
when = "tier_at_risk"
[[scenarios.steps]]
channel = "email"
content = "c"
[[scenarios]]
name = "renew"
when = "subscription_renewal"
before = "3d"
goal = "condition"
[[scenarios.steps]]
channel = "email"
content = "c"
[[scenarios]]
name = "cancelled"
when = "subscription_cancelled"
goal = "order"
[[scenarios.steps]]
channel = "email"
content = "c"
[[scenarios]]
name = "unused"
when = "benefit_unused"
benefit = "lounge"
after = "14d"
[[scenarios.steps]]
channel = "email"
content = "c"

[holdout]
share = "0.10"
salt = "spring"
version = 3

[attribution]
window = "7d"
campaign_window = "14d"
online = ["email", "mail"]
offline = ["store", "kiosk"]
visits = ["visit", "redeem"]

[subscriptions]
period = "14d"
grace = "2d"
"""
STEP = (Step("email", "c"),)


def program(sections: str) -> Program:
    return parse_program(TEXT + sections)


def bonds(sections: str) -> Bonds:
    found = program(sections).bonds
    assert found is not None
    return found


def changed(before: str, after: str) -> str:
    assert EVERYTHING.count(before) == 1, before
    return EVERYTHING.replace(before, after)


def test_every_key_of_every_section_is_read() -> None:
    assert bonds(EVERYTHING) == Bonds(
        segments=(
            Segment("gone", min_silence=180 * DAY, subscription="lapsed"),
            Segment("best", min_value=8, min_attachment=10, min_orders=2, max_orders=50, min_gaps=2_500),
            Segment("rest"),
        ),
        attachment=Attachment(
            window=90 * DAY,
            points=(Points(5, "web", "review"), Points(4, None, "review"), Points(1, "sns"), Points(0)),
            breadth=2,
            renewal=3,
            tenure=4,
            tenure_years=6,
        ),
        subscriptions=Subscriptions(14 * DAY, 2 * DAY),
        contact_policy=ContactPolicy(
            caps=(Cap(2, "email", within=7 * DAY), Cap(1, days=1), Cap(0, "call")),
            quiet=(21 * 60 + 30, 8 * 60),
            transactional=("receipt", "delivery"),
            lapse=6 * HOUR,
        ),
        scenarios=(
            Scenario(
                "come-back",
                "segment",
                (Step("email", "a"), Step("sns", "b", 3 * DAY)),
                segment="best",
                cool_down=60 * DAY,
                patience=3 * HOUR,
                goal="visit",
                holdout=50_000,
            ),
            Scenario("early", "first_order", STEP, after=10 * DAY),
            Scenario("late", "last_order", STEP, after=364 * DAY, goal="none"),
            Scenario("near", "near_tier", STEP, amount=5_000, orders=2),
            Scenario("risk", "tier_at_risk", STEP),
            Scenario("renew", "subscription_renewal", STEP, before=3 * DAY, goal="condition"),
            Scenario("cancelled", "subscription_cancelled", STEP),
            Scenario("unused", "benefit_unused", STEP, benefit="lounge", after=14 * DAY),
        ),
        holdout=Holdout(100_000, "spring", 3),
        attribution=Attribution(
            7 * DAY, 14 * DAY, ("email", "mail"), ("store", "kiosk"), ("visit", "redeem")
        ),
    )


def test_a_program_without_the_sections_has_no_bonds() -> None:
    assert program("").bonds is None


LEAST = {
    "attachment": ("[attachment]", Bonds(segments=default_segments(WINDOW))),
    "segments": ('[[segments]]\nname = "all"', Bonds(segments=(Segment("all"),))),
    "contact_policy": ("[contact_policy]", Bonds(contact_policy=ContactPolicy())),
    "scenarios": (
        '[[scenarios]]\nname = "risk"\nwhen = "tier_at_risk"\n'
        '[[scenarios.steps]]\nchannel = "email"\ncontent = "c"',
        Bonds(scenarios=(Scenario("risk", "tier_at_risk", STEP),)),
    ),
    "holdout": ('[holdout]\nsalt = "s"', Bonds(holdout=Holdout(0, "s"))),
    "attribution": ('[attribution]\nwindow = "7d"', Bonds(attribution=Attribution(7 * DAY))),
    "subscriptions": ("[subscriptions]", Bonds()),
}


@pytest.mark.parametrize("section", BOND_SECTIONS)
def test_each_section_stands_alone_with_the_documented_defaults(section: str) -> None:
    text, expected = LEAST[section]
    assert bonds(text) == expected


def test_the_defaults_are_the_documented_ones() -> None:
    assert Attachment() == Attachment(180 * DAY, (), 0, 0, 0, 5)
    assert Subscriptions() == Subscriptions(30 * DAY, 7 * DAY)
    assert ContactPolicy() == ContactPolicy((), None, (), DAY)
    assert Scenario("", "tier_at_risk", ()) == Scenario(
        *("", "tier_at_risk", ()), cool_down=90 * DAY, patience=2 * DAY, goal="order", holdout=0
    )
    assert Attribution(DAY) == Attribution(
        *(DAY, 30 * DAY, ("email", "sns", "web", "app", "blog"), ("store",), ("visit",))
    )


def test_who_has_attachment_and_no_segments_has_those_that_teach() -> None:
    names = [segment.name for segment in bonds("[attachment]").segments]
    assert names == ["dormant", "lapsing", "loyal", "spender", "fan", "first_time", "regular"]
    assert bonds("[attachment]").segments[0].min_silence == WINDOW // 2
    assert bonds("[subscriptions]").segments == ()


SPELT_OUT = [
    ("[attachment]", 'window = "180d"'),
    ("[attachment]", 'window = "4320h"'),
    ("[attachment]", "breadth = 0\nrenewal = 0\ntenure = 0\ntenure_years = 5"),
    ("[contact_policy]", 'transactional = []\nlapse = "1d"'),
    (LEAST["holdout"][0], "version = 1"),
    (LEAST["holdout"][0], 'share = "0"'),
    (LEAST["holdout"][0], 'share = "0.000000"'),
    (LEAST["attribution"][0], 'campaign_window = "30d"'),
    (LEAST["attribution"][0], 'online = ["email", "sns", "web", "app", "blog"]'),
    (LEAST["attribution"][0], 'offline = ["store"]\nvisits = ["visit"]'),
    ('[attribution]\nwindow = "60d"', 'campaign_window = "60d"'),
    ("[subscriptions]", 'period = "30d"\ngrace = "168h"'),
    (LEAST["scenarios"][0], 'wait = "0s"'),
    ('[[segments]]\nname = "few"\nmax_orders = 1\n[[segments]]\nname = "rest"', ""),
]


@pytest.mark.parametrize(("section", "line"), SPELT_OUT)
def test_a_default_spelt_out_changes_neither_the_bonds_nor_the_version(section: str, line: str) -> None:
    plain, spelt_out = program(section), program(f"{section}\n{line}")
    assert spelt_out.bonds == plain.bonds
    assert spelt_out.version == plain.version


def test_a_scenarios_defaults_spelt_out_change_nothing() -> None:
    text = LEAST["scenarios"][0]
    head = 'when = "tier_at_risk"\n'
    spelt_out = text.replace(head, head + 'cool_down = "90d"\npatience = "2d"\ngoal = "order"\n')
    assert program(spelt_out).version == program(text).version
    assert bonds(spelt_out) == bonds(text)


def test_the_default_segments_spelt_out_change_nothing() -> None:
    segments = """
        [[segments]]
        name = "dormant"
        min_silence = "4380h"
        [[segments]]
        name = "lapsing"
        min_gaps = "3"
        [[segments]]
        name = "loyal"
        min_value = 8
        min_attachment = 10
        [[segments]]
        name = "spender"
        min_value = 8
        [[segments]]
        name = "fan"
        min_attachment = 10
        [[segments]]
        name = "first_time"
        min_orders = 1
        max_orders = 1
        [[segments]]
        name = "regular"
    """
    assert bonds("[attachment]" + segments) == bonds("[attachment]")
    assert program("[attachment]" + segments).version == program("[attachment]").version


def test_never_is_never_within_whatever() -> None:
    cap = "[[contact_policy.caps]]\nmost = 0"
    for text in (cap, f'{cap}\nwithin = "7d"', f"{cap}\ndays = 2"):
        assert program(text).version == program(cap).version


ONE_VALUE_EACH = [
    ('window = "90d"', 'window = "91d"'),
    ("breadth = 2", "breadth = 3"),
    ("renewal = 3", "renewal = 4"),
    ("tenure = 4", "tenure = 5"),
    ("tenure_years = 6", "tenure_years = 7"),
    ('channel = "web"', 'channel = "blog"'),
    ('channel = "web"\naction = "review"', 'channel = "web"\naction = "post"'),
    ("points = 5", "points = 6"),
    ('name = "gone"', 'name = "went"'),
    ('min_silence = "180d"', 'min_silence = "181d"'),
    ('"lapsed"', '"paused"'),
    ("min_value = 8", "min_value = 9"),
    ("min_attachment = 10", "min_attachment = 11"),
    ("min_orders = 2", "min_orders = 3"),
    ("max_orders = 50", "max_orders = 51"),
    ("max_orders = 50\n", ""),
    ('"2.5"', '"2.501"'),
    ('"21:30"', '"21:31"'),
    ('"08:00"', '"08:01"'),
    ('"delivery"', '"deliveries"'),
    ('lapse = "6h"', 'lapse = "7h"'),
    ('channel = "email"\nmost = 2', 'channel = "sms"\nmost = 2'),
    ('channel = "email"\nmost = 2', "most = 2"),
    ("most = 2", "most = 3"),
    ('within = "7d"', 'within = "8d"'),
    ("days = 1", "days = 2"),
    ("days = 1", 'within = "1d"'),
    ('name = "come-back"', 'name = "come.back"'),
    ('segment = "best"', 'segment = "gone"'),
    ('cool_down = "60d"', 'cool_down = "61d"'),
    ('patience = "3h"', 'patience = "0s"'),
    ('goal = "visit"', 'goal = "none"'),
    ('holdout = "0.05"', 'holdout = "0.050001"'),
    ('wait = "3d"', 'wait = "4d"'),
    ('channel = "sns"\ncontent = "b"', 'channel = "app"\ncontent = "b"'),
    ('content = "b"', 'content = "bb"'),
    ('after = "10d"', 'after = "0s"'),
    ('when = "first_order"', 'when = "last_order"'),
    ('amount = "50.00"', 'amount = "50.01"'),
    ("orders = 2\n[[scenarios", "orders = 3\n[[scenarios"),
    ('amount = "50.00"\n', ""),
    ('before = "3d"', 'before = "0s"'),
    ('after = "14d"', 'after = "15d"'),
    ('share = "0.10"', 'share = "1"'),
    ('"spring"', '"summer"'),
    ("version = 3", "version = 4"),
    ('window = "7d"\ncampaign', 'window = "8d"\ncampaign'),
    ('campaign_window = "14d"', 'campaign_window = "15d"'),
    ('["email", "mail"]', '["email"]'),
    ('["store", "kiosk"]', "[]"),
    ('["visit", "redeem"]', "[]"),
    ('period = "14d"', 'period = "15d"'),
    ('grace = "2d"', 'grace = "0s"'),
]


def test_every_other_change_changes_the_version_each_to_another() -> None:
    versions = {program(changed(*change)).version for change in ONE_VALUE_EACH}
    assert len(versions | {program(EVERYTHING).version}) == len(ONE_VALUE_EACH) + 1


def test_the_version_is_the_same_for_ever() -> None:
    # Stores are bound to it: a change here makes every existing store refuse its own program.
    assert program(EVERYTHING).version == "197309605987a206"
    assert program("[attachment]").version == "5e06c12ded20c950"


def many(section: str, count: int, line: str) -> str:
    return "\n".join(f"[[{section}]]\n{line.format(number)}" for number in range(count))


SCENARIO = 'name = "s{0}"\nwhen = "tier_at_risk"\nsteps = [{{channel = "email", content = "c"}}]'
SEGMENT = 'name = "s{0}"\nmin_orders = 1'
STEPS = '[[scenarios]]\nname = "s"\nwhen = "tier_at_risk"\n'


def test_there_may_be_as_many_of_each_as_documented() -> None:
    found = bonds(
        "[attachment]\n"
        + many("attachment.points", 64, 'points = 1\naction = "a{0}"')
        + "\n"
        + many("segments", 31, SEGMENT)
        + '\n[[segments]]\nname = "rest"\n'
        + many("contact_policy.caps", 32, "most = {0}\ndays = 1")
        + "\n"
        + many("scenarios", 64, SCENARIO)
    )
    assert len(found.attachment.points) == 64
    assert len(found.segments) == 32
    assert found.contact_policy is not None
    assert len(found.contact_policy.caps) == 32
    assert len(found.scenarios) == 64
    (scenario,) = bonds(STEPS + many("scenarios.steps", 16, 'channel = "email"\ncontent = "{0}"')).scenarios
    assert len(scenario.steps) == 16


def test_the_furthest_values_are_allowed() -> None:
    longest = "36500d"
    found = bonds(
        changed('window = "90d"', f'window = "{longest}"')
        .replace("tenure_years = 6", "tenure_years = 100")
        .replace('"180d"', '"365d"')
        .replace('"2.5"', '"1000000"')
        .replace('lapse = "6h"', f'lapse = "{longest}"')
        .replace('within = "7d"', f'within = "{longest}"')
        .replace("days = 1", "days = 36500")
        .replace('"60d"', f'"{longest}"')
        .replace('"3h"', f'"{longest}"')
        .replace('wait = "3d"', f'wait = "{longest}"')
        .replace('content = "a"', f'content = "{"x" * 256}"')
        .replace('"21:30"', '"00:00"')
        .replace('"08:00"', '"23:59"')
        .replace('"0.05"', '"0.000001"')
        .replace('"0.10"', '"1.000000"')
    )
    assert found.attachment.window == 36_500 * DAY
    assert found.segments[0].min_silence == WINDOW
    assert found.segments[1].min_gaps == 1_000_000_000
    assert found.contact_policy is not None
    assert found.contact_policy.quiet == (0, 24 * 60 - 1)
    assert found.contact_policy.caps[1].days == 36_500
    assert found.scenarios[0].holdout == 1
    assert found.scenarios[0].steps[0].content == "x" * 256
    assert found.holdout == Holdout(1_000_000, "spring", 3)


def test_a_campaign_is_remembered_at_least_as_long_as_any_touch() -> None:
    found = bonds('[attribution]\nwindow = "60d"').attribution
    assert found == Attribution(60 * DAY, 60 * DAY)


def test_the_smallest_window_still_has_segments() -> None:
    text = TEXT.replace('window = "365d"', 'window = "1ms"').replace('max_recency = "90d"', "")
    found = parse_program(text + "[attachment]").bonds
    assert found is not None
    assert found.segments[0].min_silence == 1


MISTAKES = [
    # attachment
    ("[attachment]", "[attachments]", "attachments"),
    ("breadth = 2", "broad = 2", "attachment.broad"),
    ('window = "90d"', 'window = "0s"', "attachment.window"),
    ('window = "90d"', 'window = "36501d"', "attachment.window"),
    ("breadth = 2", "breadth = -1", "attachment.breadth"),
    ("renewal = 3", 'renewal = "3"', "attachment.renewal"),
    ("tenure = 4", "tenure = 1.5", "attachment.tenure"),
    ("tenure_years = 6", "tenure_years = 0", "attachment.tenure_years"),
    ("tenure_years = 6", "tenure_years = 101", "attachment.tenure_years"),
    ("points = 5\n", "", "attachment.points[0].points"),
    ("points = 5", "points = -5", "attachment.points[0].points"),
    ("points = 5", "points = true", "attachment.points[0].points"),
    ("points = 5", "points = 5\nstore = 1", "attachment.points[0].store"),
    ('channel = "web"', 'channel = ""', "attachment.points[0].channel"),
    ('channel = "web"', f'channel = "{"x" * 65}"', "attachment.points[0].channel"),
    ('channel = "web"\naction = "review"', 'channel = "web"\naction = ""', "attachment.points[0].action"),
    ('channel = "web"\naction = "review"\n', "", "attachment.points[1]"),
    ('channel = "web"\naction = "review"', 'action = "review"', "attachment.points[1]"),
    ('channel = "web"\naction = "review"', 'channel = "sns"', "attachment.points[2]"),
    # segments
    ('name = "gone"\n', "", "segments[0].name"),
    ('name = "gone"', 'name = ""', "segments[0].name"),
    ('name = "gone"', f'name = "{"x" * 65}"', "segments[0].name"),
    ('name = "best"', 'name = "gone"', "segments[1].name"),
    ('min_silence = "180d"\nsubscription = "lapsed"\n', "", "segments[0]"),
    ('name = "rest"', 'name = "rest"\nmin_value = 1', "segments[2].min_value"),
    ('name = "rest"', 'name = "rest"\nsubscription = "active"', "segments[2].subscription"),
    ('name = "rest"', 'name = "rest"\nmin_recency = "1d"', "segments[2].min_recency"),
    ("min_value = 8", "min_value = 0", "segments[1].min_value"),
    ("min_value = 8", "min_value = 11", "segments[1].min_value"),
    ("min_attachment = 10", "min_attachment = 0", "segments[1].min_attachment"),
    ("min_orders = 2", "min_orders = 0", "segments[1].min_orders"),
    ("max_orders = 50", "max_orders = 1", "segments[1].max_orders"),
    ("max_orders = 50", "max_orders = -1", "segments[1].max_orders"),
    ('min_silence = "180d"', 'min_silence = "366d"', "segments[0].min_silence"),
    ('min_silence = "180d"', 'min_silence = "0d"', "segments[0].min_silence"),
    ('"2.5"', "2.5", "segments[1].min_gaps"),
    ('"2.5"', '"0"', "segments[1].min_gaps"),
    ('"2.5"', '"0.000"', "segments[1].min_gaps"),
    ('"2.5"', '"2.0005"', "segments[1].min_gaps"),
    ('"2.5"', '"1000000.001"', "segments[1].min_gaps"),
    ('"2.5"', '"-1"', "segments[1].min_gaps"),
    ('"lapsed"', '"over"', "segments[0].subscription"),
    ('"lapsed"', "true", "segments[0].subscription"),
    # contact policy
    ("transactional", "exempt", "contact_policy.exempt"),
    ('quiet_from = "21:30"\n', "", "contact_policy.quiet_from"),
    ('quiet_until = "08:00"\n', "", "contact_policy.quiet_until"),
    ('quiet_until = "08:00"', 'quiet_until = "21:30"', "contact_policy.quiet_until"),
    ('"21:30"', '"24:00"', "contact_policy.quiet_from"),
    ('"21:30"', '"9:30"', "contact_policy.quiet_from"),
    ('"21:30"', "21:30:00", "contact_policy.quiet_from"),
    ('"08:00"', '"08:60"', "contact_policy.quiet_until"),
    ('["receipt", "delivery"]', '"receipt"', "contact_policy.transactional"),
    ('["receipt", "delivery"]', '["receipt", "receipt"]', "contact_policy.transactional[1]"),
    ('["receipt", "delivery"]', '[""]', "contact_policy.transactional[0]"),
    ('lapse = "6h"', 'lapse = "0s"', "contact_policy.lapse"),
    ('lapse = "6h"', 'lapse = "36501d"', "contact_policy.lapse"),
    ("most = 2\n", "", "contact_policy.caps[0].most"),
    ("most = 2", "most = -1", "contact_policy.caps[0].most"),
    ("most = 2", "most = 2\nper = 1", "contact_policy.caps[0].per"),
    ('within = "7d"', "", "contact_policy.caps[0]"),
    ('within = "7d"', 'within = "7d"\ndays = 7', "contact_policy.caps[0].days"),
    ('within = "7d"', 'within = "0d"', "contact_policy.caps[0].within"),
    ("days = 1", "days = 0", "contact_policy.caps[1].days"),
    ("days = 1", 'days = "1d"', "contact_policy.caps[1].days"),
    ('channel = "call"', 'channel = ""', "contact_policy.caps[2].channel"),
    ("most = 0", 'most = 0\ndays = 1\nwithin = "1d"', "contact_policy.caps[2].days"),
    # scenarios
    ('name = "come-back"\n', "", "scenarios[0].name"),
    ('name = "come-back"', 'name = "come/back"', "scenarios[0].name"),
    ('name = "come-back"', 'name = "come back"', "scenarios[0].name"),
    ('name = "come-back"', f'name = "{"x" * 65}"', "scenarios[0].name"),
    ('name = "early"', 'name = "come-back"', "scenarios[1].name"),
    ('when = "segment"\n', "", "scenarios[0].when"),
    ('when = "segment"', 'when = "full_moon"', "scenarios[0].when"),
    ('when = "segment"', "when = 1", "scenarios[0].when"),
    ('segment = "best"\n', "", "scenarios[0].segment"),
    ('segment = "best"', 'segment = "worst"', "scenarios[0].segment"),
    ('segment = "best"', 'segment = "best"\nafter = "1d"', "scenarios[0].after"),
    ('when = "tier_at_risk"', 'when = "tier_at_risk"\nsegment = "best"', "scenarios[4].segment"),
    ('when = "tier_at_risk"', 'when = "tier_at_risk"\namount = "1"', "scenarios[4].amount"),
    ('when = "tier_at_risk"', 'when = "tier_at_risk"\nbefore = "1d"', "scenarios[4].before"),
    ('when = "tier_at_risk"', 'when = "tier_at_risk"\nbenefit = "lounge"', "scenarios[4].benefit"),
    ('when = "tier_at_risk"', 'when = "tier_at_risk"\nuntil = "1d"', "scenarios[4].until"),
    ('when = "subscription_cancelled"', 'when = "subscription_cancelled"\norders = 1', "scenarios[6].orders"),
    ('after = "10d"\n', "", "scenarios[1].after"),
    ('after = "10d"', 'after = "36501d"', "scenarios[1].after"),
    ('after = "364d"', 'after = "365d"', "scenarios[2].after"),
    ('after = "364d"\n', "", "scenarios[2].after"),
    ('amount = "50.00"\norders = 2\n', "", "scenarios[3]"),
    ('amount = "50.00"', 'amount = "0"', "scenarios[3].amount"),
    ('amount = "50.00"', "amount = 50", "scenarios[3].amount"),
    ('amount = "50.00"', 'amount = "50.001"', "scenarios[3].amount"),
    ("orders = 2\n[[scenarios", "orders = 0\n[[scenarios", "scenarios[3].orders"),
    ('before = "3d"\n', "", "scenarios[5].before"),
    ('before = "3d"', 'before = "36501d"', "scenarios[5].before"),
    ('benefit = "lounge"\n', "", "scenarios[7].benefit"),
    ('benefit = "lounge"', 'benefit = "pool"', "scenarios[7].benefit"),
    ('after = "14d"', "after = 14", "scenarios[7].after"),
    ('cool_down = "60d"', 'cool_down = "36501d"', "scenarios[0].cool_down"),
    ('patience = "3h"', 'patience = "36501d"', "scenarios[0].patience"),
    ('goal = "visit"', 'goal = "sale"', "scenarios[0].goal"),
    ('holdout = "0.05"', "holdout = 0.05", "scenarios[0].holdout"),
    ('holdout = "0.05"', 'holdout = "1.000001"', "scenarios[0].holdout"),
    ('holdout = "0.05"', 'holdout = "5%"', "scenarios[0].holdout"),
    ('wait = "3d"', 'wait = "36501d"', "scenarios[0].steps[1].wait"),
    ('wait = "3d"', 'wait = "3d"\naction = "send"', "scenarios[0].steps[1].action"),
    ('channel = "sns"\ncontent = "b"', 'content = "b"', "scenarios[0].steps[1].channel"),
    ('content = "b"', "", "scenarios[0].steps[1].content"),
    ('content = "b"', 'content = ""', "scenarios[0].steps[1].content"),
    ('content = "b"', f'content = "{"x" * 257}"', "scenarios[0].steps[1].content"),
    # holdout
    ('share = "0.10"', 'share = "0.1000000"', "holdout.share"),
    ('share = "0.10"', 'share = "-0.1"', "holdout.share"),
    ('share = "0.10"', "share = 0.1", "holdout.share"),
    ('share = "0.10"', 'share = "2"', "holdout.share"),
    ('salt = "spring"\n', "", "holdout.salt"),
    ('salt = "spring"', 'salt = ""', "holdout.salt"),
    ('salt = "spring"', 'salt = "a:b"', "holdout.salt"),
    ('salt = "spring"', f'salt = "{"x" * 257}"', "holdout.salt"),
    ("version = 3", "version = 0", "holdout.version"),
    ("version = 3", "version = 3\nseed = 1", "holdout.seed"),
    # attribution
    ('window = "7d"\ncampaign', "campaign", "attribution.window"),
    ('window = "7d"\ncampaign', 'window = "0d"\ncampaign', "attribution.window"),
    ('campaign_window = "14d"', 'campaign_window = "6d"', "attribution.campaign_window"),
    ('campaign_window = "14d"', 'campaign_window = "36501d"', "attribution.campaign_window"),
    ('["email", "mail"]', "[]", "attribution.online"),
    ('["email", "mail"]', '["email", "email"]', "attribution.online[1]"),
    ('["email", "mail"]', f'["{"x" * 65}"]', "attribution.online[0]"),
    ('["store", "kiosk"]', '["store", "mail"]', "attribution.offline[1]"),
    ('["visit", "redeem"]', '[""]', "attribution.visits[0]"),
    ('["visit", "redeem"]', '["visit", "redeem"]\nmodel = "last"', "attribution.model"),
    # subscriptions
    ('period = "14d"', 'period = "0d"', "subscriptions.period"),
    ('period = "14d"', 'period = "36501d"', "subscriptions.period"),
    ('grace = "2d"', 'grace = "2w"', "subscriptions.grace"),
    ('grace = "2d"', 'grace = "2d"\nprice = "1"', "subscriptions.price"),
]


@pytest.mark.parametrize(("before", "after", "key"), MISTAKES)
def test_a_mistake_is_one_line_that_begins_with_its_key(before: str, after: str, key: str) -> None:
    refused(changed(before, after), key)


WITHOUT = [
    ('[[segments]]\nname = "a"\nmin_attachment = 1\n[[segments]]\nname = "b"', "segments[0].min_attachment"),
    ("segments = []", "segments"),
    ("segments = 5", "segments"),
    ("[segments]", "segments"),
    ("segments = [5]", "segments[0]"),
    ("attachment = 5", "attachment"),
    ("[[attachment]]", "attachment"),
    ("holdout = 1", "holdout"),
    ('[holdout]\nshare = "0.1"', "holdout.salt"),
    ("[attribution]", "attribution.window"),
    ("scenarios = 5", "scenarios"),
    ("[contact_policy]\ncaps = {}", "contact_policy.caps"),
    ("[contact_policy]\ncaps = [5]", "contact_policy.caps[0]"),
    ("[attachment]\npoints = 5", "attachment.points"),
    (STEPS, "scenarios[0].steps"),
    (f"{STEPS}steps = []", "scenarios[0].steps"),
    (f"{STEPS}steps = [5]", "scenarios[0].steps[0]"),
    (STEPS + many("scenarios.steps", 17, 'channel = "email"\ncontent = "{0}"'), "scenarios[0].steps"),
    (f'{STEPS}holdout = "0.05"\nsteps = [{{channel = "email", content = "c"}}]', "scenarios[0].holdout"),
    (
        '[[scenarios]]\nname = "s"\nwhen = "segment"\nsegment = "loyal"\n'
        'steps = [{channel = "email", content = "c"}]',
        "scenarios[0].segment",
    ),
    (many("scenarios", 65, SCENARIO), "scenarios"),
    (many("segments", 33, SEGMENT), "segments"),
    (many("contact_policy.caps", 33, "most = {0}\ndays = 1"), "contact_policy.caps"),
    (many("attachment.points", 65, 'points = 1\naction = "a{0}"'), "attachment.points"),
    (f"[contact_policy]\ntransactional = {[str(n) for n in range(33)]}", "contact_policy.transactional"),
]


@pytest.mark.parametrize(("sections", "key"), WITHOUT)
def test_a_section_of_another_form_or_without_what_it_needs_is_refused(sections: str, key: str) -> None:
    # Before the first table, as a bare key would else belong to the last one.
    refused(sections, key, before=not sections.startswith("["))


def refused(sections: str, key: str, *, before: bool = False) -> None:
    with pytest.raises(ProgramError) as caught:
        parse_program(f"{sections}\n{TEXT}" if before else TEXT + sections)
    message = str(caught.value)
    assert message.startswith(f"{key}: ")
    assert "\n" not in message
    assert "expected" in message or "allowed" in message


KEYS = {
    "attachment": ATTACHMENT_KEYS,
    "attachment.points": POINTS_KEYS,
    "segments": SEGMENT_KEYS,
    "contact_policy": CONTACT_POLICY_KEYS,
    "contact_policy.caps": CAP_KEYS,
    "scenarios": SCENARIO_KEYS,
    "scenarios.steps": STEP_KEYS,
    "holdout": HOLDOUT_KEYS,
    "attribution": ATTRIBUTION_KEYS,
    "subscriptions": SUBSCRIPTIONS_KEYS,
}


def test_every_key_there_is_was_got_wrong_once() -> None:
    wrong = {
        re.sub(r"\[[0-9]+\]", "", key) for key in (*(key for _, _, key in MISTAKES), *dict(WITHOUT).values())
    }
    assert wrong >= {f"{section}.{key}" for section, keys in KEYS.items() for key in keys}


ODD = (
    '""',
    '"x"',
    "0",
    "-1",
    "1e400",
    "nan",
    "true",
    "[]",
    "[[]]",
    "{}",
    '"1" * 2',
    "1979-05-27",
    f'"{10**15}d"',
)


@pytest.mark.parametrize("odd", ODD)
def test_whatever_a_key_holds_there_is_a_program_or_a_program_error(odd: str) -> None:
    lines = EVERYTHING.splitlines()
    for index, line in enumerate(lines):
        key, equals, _ = line.partition(" = ")
        if equals:
            with contextlib.suppress(ProgramError):
                found = program("\n".join((*lines[:index], f"{key} = {odd}", *lines[index + 1 :])))
                assert isinstance(found, Program)


def test_the_example_of_a_loyal_program_has_every_section_and_every_condition() -> None:
    example = load_program(EXAMPLES / "loyal.toml")
    found = example.bonds
    assert found is not None
    written = tomllib.loads(example.text)
    assert set(BOND_SECTIONS) <= written.keys()
    assert {scenario.when for scenario in found.scenarios} == set(get_args(When))
    assert found.contact_policy is not None
    assert found.holdout is not None
    assert found.attribution is not None
    # All who read the default segments find them here.
    assert {segment.name for segment in found.segments} == {s.name for s in default_segments(example.window)}


def test_the_example_of_a_loyal_program_is_the_grocerys_with_more() -> None:
    loyal, grocery = load_program(EXAMPLES / "loyal.toml"), load_program(EXAMPLES / "grocery.toml")
    more = {"benefits": (), "grace_period": 0}
    tiers = tuple(msgspec.structs.replace(tier, **more) for tier in loyal.tiers)
    same = msgspec.structs.replace(loyal, bonds=None, tiers=tiers, version=grocery.version, text=grocery.text)
    assert same == grocery
