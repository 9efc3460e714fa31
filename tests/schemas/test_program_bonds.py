"""The program file's sections about bonds: every key, every default and every version of them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from schemas.program import load_program, parse_program
from schemas.program_bond_sections import BOND_SECTIONS
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
from schemas.times import DAY, HOUR
from tests.schemas.bond_sections import (
    EVERYTHING,
    SCENARIO,
    SEGMENT,
    STEP,
    STEPS,
    TEXT,
    WINDOW,
    bonds,
    changed,
    many,
    program,
)

EXAMPLES = Path(__file__).parents[2] / "examples"


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
