"""The program of the fault tests: the tiers of all tests, and every section about bonds."""

from typing import Any

from tests.space import PROGRAM

#: Thresholds lie where the load's customers are, so that every part decides something all the time. `{u}` is a unit.
_SECTIONS = """
[attachment]
window = "20{u}"
breadth = 1
renewal = 2
tenure = 1
[[attachment.points]]
action = "review"
points = 3
[[attachment.points]]
channel = "store"
action = "visit"
points = 2
[[attachment.points]]
points = 1

[[segments]]
name = "dormant"
min_silence = "6{u}"
[[segments]]
name = "lapsing"
min_gaps = "3"
[[segments]]
name = "left"
subscription = "cancelled"
max_orders = 30
[[segments]]
name = "loyal"
min_value = 8
min_attachment = 7
[[segments]]
name = "spender"
min_value = 8
[[segments]]
name = "fan"
min_attachment = 7
[[segments]]
name = "first_time"
min_orders = 1
max_orders = 1
[[segments]]
name = "regular"

[contact_policy]
{quiet}
transactional = ["receipt"]
lapse = "1{u}"
[[contact_policy.caps]]
channel = "email"
most = 1
{a_day}
[[contact_policy.caps]]
most = 3
within = "4{u}"
[[contact_policy.caps]]
channel = "call"
most = 0

[[scenarios]]
name = "come-back"
when = "segment"
segment = "lapsing"
cool_down = "5{u}"
patience = "2{u}"
holdout = "0.20"
[[scenarios.steps]]
channel = "email"
content = "we-miss-you"
[[scenarios.steps]]
wait = "1{u}"
channel = "mail"
content = "coupon"
[[scenarios]]
name = "second-visit"
when = "first_order"
after = "1{u}"
goal = "visit"
cool_down = "100{u}"
[[scenarios.steps]]
channel = "web"
content = "welcome"
[[scenarios.steps]]
wait = "3{u}"
channel = "call"
content = "nobody-is-called"
[[scenarios.steps]]
wait = "3{u}"
channel = "email"
content = "come-and-see-us"
[[scenarios]]
name = "almost-there"
when = "near_tier"
amount = "40.00"
orders = 1
cool_down = "4{u}"
[[scenarios.steps]]
channel = "email"
content = "little-is-missing"
[[scenarios]]
name = "renewal-ahead"
when = "subscription_renewal"
before = "2{u}"
goal = "none"
cool_down = "3{u}"
[[scenarios.steps]]
channel = "sns"
content = "your-box-renews"
[[scenarios]]
name = "after-cancelling"
when = "subscription_cancelled"
goal = "condition"
cool_down = "3{u}"
[[scenarios.steps]]
wait = "1{u}"
channel = "email"
content = "what-did-we-do-wrong"

[holdout]
share = "0.10"
salt = "faults"
version = 3

[attribution]
window = "2{u}"
campaign_window = "10{u}"

[subscriptions]
period = "10{u}"
grace = "3{u}"
"""


def sections(unit: str = "d") -> str:
    """Every section about bonds; their durations are in `unit`. Quiet hours and local days are there for days alone:
    a test by the wall clock must not depend on the hour at which it runs."""
    days = unit == "d"
    return _SECTIONS.format(
        u=unit,
        quiet='quiet_from = "21:00"\nquiet_until = "08:00"' if days else "",
        a_day="days = 1" if days else f'within = "1{unit}"',
    )


def with_bonds(window: str = "30d", ledger: str = "120d", silver: str = "100.00", unit: str = "d") -> str:
    """The program with all sections on."""
    return PROGRAM.format(window=window, ledger=ledger, silver=silver) + sections(unit)


#: What most spaces of these tests have: an event clock and a month's window, so that customers rise and fall all the
#: time.
BONDED: dict[str, Any] = {"clock": "event", "program": with_bonds()}
#: The same with tiers alone.
TIERS_ONLY: dict[str, Any] = {"clock": "event", "window": "30d", "ledger": "120d", "silver": "100.00"}
