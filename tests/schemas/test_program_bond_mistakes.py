"""Every mistake that the sections about bonds may hold."""

from __future__ import annotations

import contextlib
import re

import pytest

from schemas.program import Program, ProgramError, parse_program
from schemas.program_bond_sections import (
    ATTACHMENT_KEYS,
    ATTRIBUTION_KEYS,
    HOLDOUT_KEYS,
    POINTS_KEYS,
    SEGMENT_KEYS,
    SUBSCRIPTIONS_KEYS,
)
from schemas.program_contact_policy import CAP_KEYS, CONTACT_POLICY_KEYS
from schemas.program_scenarios import SCENARIO_KEYS, STEP_KEYS
from tests.schemas.bond_sections import EVERYTHING, SCENARIO, SEGMENT, STEPS, TEXT, changed, many, program

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
