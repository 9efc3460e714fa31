"""A program with everything that bonds may say, and short ways to a changed one."""

from __future__ import annotations

from schemas.example_files import PROGRAM_FILE
from schemas.program import Program, parse_program
from schemas.program_bonds import Bonds, Step
from schemas.times import DAY

TEXT = PROGRAM_FILE.read_text().replace('name = "gold"', 'name = "gold"\nbenefits = ["lounge"]')
WINDOW = 365 * DAY

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
SCENARIO = 'name = "s{0}"\nwhen = "tier_at_risk"\nsteps = [{{channel = "email", content = "c"}}]'
SEGMENT = 'name = "s{0}"\nmin_orders = 1'
STEPS = '[[scenarios]]\nname = "s"\nwhen = "tier_at_risk"\n'


def program(sections: str) -> Program:
    return parse_program(TEXT + sections)


def bonds(sections: str) -> Bonds:
    found = program(sections).bonds
    assert found is not None
    return found


def changed(before: str, after: str) -> str:
    assert EVERYTHING.count(before) == 1, before
    return EVERYTHING.replace(before, after)


def many(section: str, count: int, line: str) -> str:
    return "\n".join(f"[[{section}]]\n{line.format(number)}" for number in range(count))
