"""The demo's comparison and its numbers about bonds: every difference is seen, every number worked by hand."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.demo import bond_check, bond_picture, bonds, check
from cli.demo.bond_check import PublishedBonds
from cli.demo.data import Event
from cli.demo.story import day_of
from cli.local_jars import ROOT
from loyalty.batch_contact import draw
from schemas.program import Program, load_program
from schemas.program_bonds import Cap
from schemas.times import DAY, HOUR, format_ms
from streams.protocols import PURCHASES, TOUCHPOINTS

PROGRAM = load_program(ROOT / "examples" / "loyal-year.toml")
START = 1_483_228_800_000  # 1 January 2017
NOON = START + 12 * HOUR


def sections(program: Program = PROGRAM) -> Any:
    assert program.bonds is not None
    return program.bonds


def segment(number: int, before: str | None, after: str, at: int = NOON) -> dict[str, Any]:
    return {
        "customer_id": "1",
        "segment_seq": number,
        "previous_segment": before,
        "segment": after,
        "effective_at": format_ms(at),
    }


def attribution(
    number: int, revision: int, order_id: str, amount: str | None, **given: Any
) -> dict[str, Any]:
    """An attributed purchase, or with ``amount`` None a withdrawn one."""
    conversion = dict.fromkeys(("event_id", "source", "channel", "store_id", "campaign_id"))
    conversion |= {"kind": "purchase", "order_id": order_id, "occurred_at": format_ms(NOON + DAY)}
    return {
        "event_id": f"grocery:attribution/1/{number}",
        "attribution_seq": number,
        "revision": revision,
        "status": "withdrawn" if amount is None else "attributed",
        "conversion": conversion,
        "touch": None if amount is None else {"event_id": "m", "source": "", "occurred_at": format_ms(NOON)},
        "match": None if amount is None else "campaign",
        "lag_seconds": None if amount is None else 86_400,
        "amount": amount or "0.00",
        **given,
    }


def trigger(
    customer_id: str, at: int, channel: str = "email", scenario: str = "come-back", **given: Any
) -> dict[str, Any]:
    """A trigger with the status that the draw gives."""
    chosen = next(s for s in sections().scenarios if s.name == scenario)
    drawn = draw(sections().holdout, chosen, customer_id)
    assert drawn is not None
    return {
        "event_id": f"grocery:trigger/{customer_id}/{scenario}/{at}/{channel}",
        "scenario": scenario,
        "status": "held_out" if drawn.overall or drawn.scenario else "sent",
        "channel": channel,
        "effective_at": format_ms(at),
        **given,
    }


def customers(held_out: bool, scenario: str = "come-back") -> list[str]:
    """Ten who are held out of a scenario, or who are not."""
    chosen = next(s for s in sections().scenarios if s.name == scenario)
    found = []
    for number in range(1000):
        drawn = draw(sections().holdout, chosen, str(number))
        assert drawn is not None
        if (drawn.overall or drawn.scenario) == held_out:
            found.append(str(number))
    return found[:10]


ASKED, HELD_OUT = customers(held_out=False)[0], customers(held_out=True)[0]


def published() -> PublishedBonds:
    return PublishedBonds(
        {"1": [segment(1, None, "first_time"), segment(2, "first_time", "loyal")]},
        {ASKED: [trigger(ASKED, NOON)], HELD_OUT: [trigger(HELD_OUT, NOON)]},
        {
            "1": [
                attribution(1, 1, "a", "12.50"),
                attribution(2, 1, "b", "3.00"),
                attribution(3, 2, "b", None),
                attribution(4, 2, "a", "10.50"),
            ]
        },
        {"1": ("loyal", "2")},
        0,
    )


def expected() -> dict[str, dict[str, Any]]:
    last = attribution(4, 2, "a", "10.50")
    key = check.conversion_key("1", last["conversion"])
    return {key: {name: last[name] for name in ("conversion", "touch", "match", "lag_seconds", "amount")}}


def test_the_same_segments_and_attributions_are_equal() -> None:
    segments = bond_check.compare_segments(published(), {"1": "loyal"})
    assert (segments.equal, segments.compared) == (True, 1)
    attributions = bond_check.compare_attributions(published(), expected())
    assert (attributions.equal, attributions.compared) == (True, 1)
    triggers = bond_check.check_triggers(PROGRAM, published())
    assert (triggers.equal, triggers.compared) == (True, 2)


def test_nothing_compared_is_not_equal() -> None:
    nothing = PublishedBonds({}, {}, {}, {}, 0)
    assert not bond_check.compare_segments(nothing, {}).equal
    assert not bond_check.compare_attributions(nothing, {}).equal
    assert not bond_check.check_triggers(PROGRAM, nothing).equal


def lose_the_first(found: PublishedBonds) -> None:
    del found.segments["1"][0]


def lose_the_last(found: PublishedBonds) -> None:
    del found.segments["1"][1]


def say_one_twice(found: PublishedBonds) -> None:
    found.segments["1"].append(found.segments["1"][-1])


def break_the_chain(found: PublishedBonds) -> None:
    found.segments["1"][1]["previous_segment"] = "regular"


def another_segment(found: PublishedBonds) -> None:
    found.segments["1"][1]["segment"] = "spender"


def another_customer(found: PublishedBonds) -> None:
    found.segments["2"] = [segment(1, None, "first_time")]


def hash_differs(found: PublishedBonds) -> None:
    found.shown["1"] = ("loyal", "1")


@pytest.mark.parametrize(
    "spoil",
    [
        lose_the_first,
        lose_the_last,
        say_one_twice,
        break_the_chain,
        another_segment,
        another_customer,
        hash_differs,
    ],
)
def test_a_difference_in_the_segments_is_seen(spoil: Callable[[PublishedBonds], None]) -> None:
    found = published()
    spoil(found)
    assert not bond_check.compare_segments(found, {"1": "loyal"}).equal


def test_a_record_in_a_wrong_partition_and_a_customer_without_segment_are_seen() -> None:
    assert not bond_check.compare_segments(published()._replace(misplaced=1), {"1": "loyal"}).equal
    assert not bond_check.compare_segments(published(), {"1": "loyal", "2": "regular"}).equal


def lose_an_attribution(found: PublishedBonds) -> None:
    del found.attributions["1"][3]


def skip_a_revision(found: PublishedBonds) -> None:
    found.attributions["1"][3]["revision"] = 3


def skip_a_seq(found: PublishedBonds) -> None:
    found.attributions["1"][3]["attribution_seq"] = 5


def leave_one_standing(found: PublishedBonds) -> None:
    found.attributions["1"][2] = attribution(3, 2, "b", "3.00")


def another_amount(found: PublishedBonds) -> None:
    found.attributions["1"][3]["amount"] = "10.51"


def another_touch(found: PublishedBonds) -> None:
    found.attributions["1"][3]["touch"]["event_id"] = "n"


def withdraw_it(found: PublishedBonds) -> None:
    found.attributions["1"].append(attribution(5, 3, "a", None))


@pytest.mark.parametrize(
    "spoil",
    [
        lose_an_attribution,
        skip_a_revision,
        skip_a_seq,
        leave_one_standing,
        another_amount,
        another_touch,
        withdraw_it,
    ],
)
def test_a_difference_in_the_attributions_is_seen(spoil: Callable[[PublishedBonds], None]) -> None:
    found = published()
    spoil(found)
    assert not bond_check.compare_attributions(found, expected()).equal


def test_an_attribution_that_never_came_is_seen() -> None:
    found = published()
    found.attributions.clear()
    assert not bond_check.compare_attributions(found, expected()).equal


@pytest.mark.parametrize(
    "told",
    [
        [trigger(ASKED, NOON), trigger(ASKED, NOON)],
        [trigger(ASKED, NOON, status="held_out")],
        [trigger(ASKED, NOON), trigger(ASKED, NOON + HOUR)],
        [trigger(ASKED, NOON, "mail"), trigger(ASKED, NOON + 28 * DAY - 1, "mail")],
        [trigger(ASKED, NOON + day * DAY) for day in range(3)],
        [trigger(ASKED, START + 21 * HOUR)],
        [trigger(ASKED, START + 8 * HOUR - 1)],
        [trigger(ASKED, NOON, "call")],
    ],
    ids=["twice", "not held out", "e-mails", "letters", "all", "evening", "morning", "call"],
)
def test_a_trigger_that_is_not_allowed_is_seen(told: list[dict[str, Any]]) -> None:
    found = PublishedBonds({}, {ASKED: told}, {}, {}, 0)
    assert not bond_check.check_triggers(PROGRAM, found).equal


def test_a_message_to_somebody_held_out_is_seen() -> None:
    told = [trigger(HELD_OUT, NOON, status="sent")]
    assert not bond_check.check_triggers(PROGRAM, PublishedBonds({}, {HELD_OUT: told}, {}, {}, 0)).equal


@pytest.mark.parametrize(
    "told",
    [
        [trigger(ASKED, NOON), trigger(ASKED, NOON + HOUR, status="suppressed")],
        [trigger(ASKED, NOON), trigger(ASKED, START + DAY + 8 * HOUR)],
        [trigger(ASKED, NOON, "mail"), trigger(ASKED, NOON + 28 * DAY, "mail")],
        [trigger(ASKED, NOON + day * DAY) for day in (0, 1, 14)],
        [trigger(ASKED, START + 21 * HOUR - 1)],
    ],
    ids=["suppressed", "e-mails", "letters", "all", "evening"],
)
def test_what_just_keeps_to_the_rules_is_allowed(told: list[dict[str, Any]]) -> None:
    found = PublishedBonds({}, {ASKED: told}, {}, {}, 0)
    assert bond_check.check_triggers(PROGRAM, found).differences == []


def test_what_was_sent_counts_until_it_lapses_and_other_contacts_for_the_whole_window() -> None:
    policy = msgspec.structs.replace(sections().contact_policy, lapse=DAY)
    short = msgspec.structs.replace(PROGRAM, bonds=msgspec.structs.replace(sections(), contact_policy=policy))
    cap = Cap(1, None, within=7 * DAY)
    sent = [(NOON, "email"), (NOON + DAY, "email")]
    assert bond_check.most_within(short, cap, sent) == 1
    assert bond_check.most_within(PROGRAM, cap, sent) == 2
    others = [(NOON - 6 * DAY, "mail"), (NOON + 2 * DAY, "mail")]
    assert bond_check.most_within(short, cap, sent, others) == 2
    assert bond_check.most_within(short, Cap(1, "mail", within=7 * DAY), sent, others) == 0


def test_the_batch_is_asked_for_segments_and_attributions_at_the_end() -> None:
    def event(topic: str, at: int, **body: str) -> Event:
        content = {"customer_id": "1", "occurred_at": format_ms(at), **body}
        return Event(topic, b"1", json.dumps(content).encode(), at)

    sent = {"type": "touchpoint", "channel": "mail", "direction": "outbound", "campaign_id": "8"}
    bought = {"type": "purchase", "currency": "USD", "channel": "store", "campaign_id": "8"}
    year = [
        event(TOUCHPOINTS, NOON, event_id="m", **sent),
        event(PURCHASES, NOON + DAY, event_id="p", order_id="o", amount="12.50", **bought),
    ]
    computed = check.compute(PROGRAM, year, 12, lambda _: None)
    assert computed.segments == {"1": "first_time"}
    (told,) = computed.attributions.values()
    assert (told["conversion"]["order_id"], told["touch"]["event_id"]) == ("o", "m")
    assert (told["match"], told["lag_seconds"], told["amount"]) == ("campaign", 86_400, "12.50")
    line = computed.states["1"]
    assert (line["segment"], line["attachment"]) == ("first_time", 0)
    plain = msgspec.structs.replace(PROGRAM, bonds=None)
    assert "segment" not in check.compute(plain, year, 12, lambda _: None).states["1"]


def test_segments_are_told_with_what_their_customers_spent() -> None:
    states = [
        {"segment": "loyal", "lifetime_monetary": "10.00", "attachment": 12},
        {"segment": "loyal", "lifetime_monetary": "5.50", "attachment": 15},
        {"segment": "dormant", "lifetime_monetary": "1.00", "attachment": 0},
    ]
    rows = bonds.segment_rows(sections(), states, 2)
    assert [row.name for row in rows] == [
        *("loyal", "spender", "fan", "regular", "first_time", "dormant", "lapsing")
    ]
    assert (rows[0].customers, rows[0].spent, rows[0].attachment) == (2, 15_50, 13.5)
    assert (rows[1].customers, rows[1].spent, rows[1].attachment) == (0, 0, 0)


def test_an_experiment_compares_everybody_by_the_draw_alone() -> None:
    asked = customers(held_out=False, scenario="second-visit")[:4]
    held_out = customers(held_out=True, scenario="second-visit")[:3]
    changes = {c: [segment(1, None, "first_time")] for c in (*asked, *held_out)}
    changes["never"] = [segment(1, None, "regular")]
    late = customers(held_out=True, scenario="second-visit")[4]
    changes[late] = [segment(1, None, "first_time", NOON + 90 * DAY)]
    back = [(asked[0], 1), (asked[1], 30), (asked[2], 31), (held_out[0], 2), (late, 91), ("other", 100)]
    year = [Event(PURCHASES, c.encode(), b"", NOON) for c in (*asked, *held_out)]
    year += [Event(PURCHASES, c.encode(), b"", NOON + day * DAY) for c, day in back]
    # Nobody got a message: who came back before it was due is in the comparison all the same.
    measured = bonds.experiment(PROGRAM, PublishedBonds(changes, {}, {}, {}, 0), year)
    assert measured is not None
    assert measured.scenario == "second-visit"
    assert (measured.asked.customers, measured.asked.came_back) == (4, 2)
    assert (measured.held_out.customers, measured.held_out.came_back) == (3, 1)
    assert measured.difference == pytest.approx(1 / 2 - 1 / 3)
    assert measured.margin == pytest.approx(1.96 * (1 / 4 / 4 + 2 / 9 / 3) ** 0.5)


def test_without_a_holdout_nothing_is_measured() -> None:
    nobody = msgspec.structs.replace(PROGRAM, bonds=msgspec.structs.replace(sections(), holdout=None))
    assert bonds.experiment(nobody, published(), []) is None


def test_what_was_withdrawn_brought_nothing() -> None:
    told = bonds.brought(published(), 2)
    assert told == {("purchase", "campaign"): bonds.Brought(1, 10_50, DAY)}


def test_caps_are_told_with_the_most_that_came_to_them() -> None:
    mail = b'{"channel":"mail","direction":"outbound","action":"send"}'
    year = [
        Event(TOUCHPOINTS, ASKED.encode(), mail, NOON - DAY),
        Event(TOUCHPOINTS, ASKED.encode(), mail.replace(b"out", b"in"), NOON - DAY),
        Event(TOUCHPOINTS, b"other", mail, NOON - DAY),
    ]
    found = PublishedBonds({}, {ASKED: [trigger(ASKED, NOON, "mail")]}, {}, {}, 0)
    rows = bonds.cap_rows(PROGRAM, found, year)
    assert [(row.channel, row.allowed, row.ours, row.with_others) for row in rows] == [
        ("mail", "1 in 28 days", 1, 2),
        ("email", "1 a day", 0, 0),
        ("all", "2 in 14 days", 1, 2),
        ("call", "none", 0, 0),
    ]


def test_redemptions_in_a_store_are_visits() -> None:
    redeemed = b'{"channel":"store","direction":"inbound","action":"redeem"}'
    year = [
        Event(TOUCHPOINTS, b"1", redeemed, NOON),
        Event(TOUCHPOINTS, b"1", redeemed.replace(b"store", b"web"), NOON),
        Event(TOUCHPOINTS, b"1", redeemed.replace(b"redeem", b"ask"), NOON),
        Event(PURCHASES, b"1", b"", NOON),
    ]
    assert bonds.visits(sections(), year) == 1


def test_triggers_are_counted_by_scenario_and_status() -> None:
    assert bonds.statuses(published()) == {"come-back": Counter({"sent": 1, "held_out": 1})}


def test_the_picture_is_drawn_of_any_segments(tmp_path: Path) -> None:
    states = [
        {
            "customer_id": str(number),
            "segment": name,
            "f": 1 + number % 5,
            "m": 4,
            "frequency": number % 3,
            "attachment": 3 * number,
            "lifetime_monetary": "1.00",
        }
        for number, name in enumerate(["loyal", "spender", "regular", "lapsing"] * 5)
    ]
    changes = [segment(1, None, "first_time"), segment(2, "first_time", "loyal", NOON + 3 * DAY)]
    rows = bonds.segment_rows(sections(), states, 2)
    path = tmp_path / "deep" / "loyalty.png"
    days = day_of(NOON), day_of(NOON + 9 * DAY)
    bond_picture.draw(path, "Title", "note", sections(), rows, states, changes, *days)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_each_doubling_of_attachment_is_a_step_up_the_map() -> None:
    heights = [bond_picture.height(attachment) for attachment in (0, 3, 9, 21)]
    assert heights == pytest.approx([0, 1, 2, 3])
