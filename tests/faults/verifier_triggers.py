"""The verifier's part about triggers: runs, holdout, caps and goals."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from hashlib import blake2b
from typing import Any
from zoneinfo import ZoneInfo

from schemas.events import PurchaseMade, RefundMade, TouchpointMade
from schemas.program_bonds import MILLION, Bonds, Cap, ContactPolicy
from tests.faults.expected import Expected
from tests.faults.marketing import ms_of
from tests.faults.reading import Found
from tests.faults.told import TRIGGERS, Of, Positions, Told, positions_of
from tests.faults.verdict import Verdict


def judge_triggers(
    verdict: Verdict, expected: Expected, told: Iterable[Of], cuts: dict[int, list[tuple[int, Positions]]]
) -> None:
    """Compare what scenarios published; `cuts` are those of `cuts_of`, or none where nothing is known of them."""
    bonds = expected.program.bonds
    assert bonds is not None
    for of in told:
        _runs(verdict, bonds, of)
        _draws(verdict, bonds, of)
        _caps(verdict, expected, of)
        _goals(verdict, expected, of, cuts)


def _runs(verdict: Verdict, bonds: Bonds, of: Of) -> None:
    """The steps of a run come in order, runs too, and a new one only when the scenario has cooled down."""
    for scenario in bonds.scenarios:
        last: dict[str, Any] | None = None
        for told in of.steps():
            body = told.body
            if body["scenario"] != scenario.name:
                continue
            verdict.triggers[body["status"]] += 1
            begins = last is None or body["run"] != last["run"]
            verdict.expect(
                f"{body['event_id']}: step", body["step"], 1 if last is None or begins else last["step"] + 1
            )
            if last is not None and begins:
                cooled = ms_of(last["run_started_at"]) + scenario.cool_down
                if body["run"] < last["run"] or ms_of(body["run_started_at"]) < cooled:
                    verdict.wrong.append(f"{body['event_id']}: too soon after {last['event_id']}")
            step = scenario.steps[min(body["step"], len(scenario.steps)) - 1]
            verdict.expect(
                f"{body['event_id']}: message",
                (body["steps"], body["channel"], body["content"]),
                (len(scenario.steps), step.channel, step.content),
            )
            last = body


def _draws(verdict: Verdict, bonds: Bonds, of: Of) -> None:
    """Who is held out is drawn by the salted hash, and is sent nothing."""
    holdout, shares = bonds.holdout, {scenario.name: scenario.holdout for scenario in bonds.scenarios}
    for told in of.steps():
        body, draw = told.body, None
        if holdout is not None:
            salt = f"{holdout.salt}:{holdout.version}"
            draw = {
                "overall": _is_drawn(f"{salt}::{of.customer_id}", holdout.share),
                "scenario": _is_drawn(
                    f"{salt}:{body['scenario']}:{of.customer_id}", shares[body["scenario"]]
                ),
                "salt": holdout.salt,
                "version": holdout.version,
            }
        verdict.expect(f"{body['event_id']}: holdout", body["holdout"], draw)
        is_out = draw is not None and bool(draw["overall"] or draw["scenario"])
        verdict.expect(f"{body['event_id']}: held out", body["status"] == "held_out", is_out)


def _is_drawn(text: str, share: int) -> bool:
    number = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
    return number * MILLION < share * 2**64


def _caps(verdict: Verdict, expected: Expected, of: Of) -> None:
    """No trigger that was sent exceeds a cap, given those sent before it that had not lapsed, joined or not.

    Touches count, too, and one that comes back keeps its place for longer: both make it stricter than this.
    """
    bonds = expected.program.bonds
    policy = None if bonds is None else bonds.contact_policy
    if policy is None:
        return
    # Whose local days are the program's, for all that was ever read.
    is_local = not any(
        isinstance(event, TouchpointMade) and event.timezone is not None
        for _, _, event in expected.events.get(of.customer_id, ())
    )
    zone = ZoneInfo(expected.program.timezone) if is_local else None
    placed = [told for told in of.only(TRIGGERS) if told.body["status"] in ("sent", "reserved")]
    for number, told in enumerate(placed):
        for cap in policy.caps:
            if cap.channel not in (None, told.body["channel"]):
                continue
            count = sum(_counts(policy, cap, before, told.at, zone) for before in placed[:number])
            verdict.full_caps += count + 1 == cap.most
            if count >= cap.most:
                verdict.wrong.append(
                    f"{told.body['event_id']}: one more than {count}, {cap} allows {cap.most}"
                )


def _counts(policy: ContactPolicy, cap: Cap, before: Told, at: int, zone: ZoneInfo | None) -> bool:
    if at >= before.at + policy.lapse or cap.channel not in (None, before.body["channel"]):
        return False
    if cap.within is not None:
        return before.at > at - cap.within
    return (
        cap.days is not None and zone is not None and (_day(at, zone) - _day(before.at, zone)).days < cap.days
    )


def _day(at: int, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(at / 1000, UTC).astimezone(zone).date()


def cuts_of(found: Found) -> dict[int, list[tuple[int, Positions]]]:
    """By partition: up to where the inputs had been read after each commit that told anything of a bond, in order; with
    the sum of the positions."""
    cuts: defaultdict[int, dict[int, Positions]] = defaultdict(dict)
    for record in (record for records in found.bonds.values() for record in records):
        positions = positions_of(record)
        cuts[record.partition][sum(positions.values())] = positions
    return {partition: sorted(of.items()) for partition, of in cuts.items()}


def _goals(
    verdict: Verdict, expected: Expected, of: Of, cuts: dict[int, list[tuple[int, Positions]]]
) -> None:
    """A run whose goal was met by what had been read before goes no further.

    What the batch held with which a trigger came may be later than it, so the commit before that is asked. Where Redis
    lost writes, what was read again was cut into other batches, and nothing is known of what was read before.
    """
    bonds = expected.program.bonds
    assert bonds is not None
    goals = {scenario.name: scenario.goal for scenario in bonds.scenarios}
    offline = ("store",) if bonds.attribution is None else bonds.attribution.offline
    for told in of.steps():
        goal, of_partition = goals[told.body["scenario"]], cuts.get(told.record.partition, [])
        index = bisect_left(of_partition, (sum(positions_of(told.record).values()),))
        if goal not in ("order", "visit") or index == 0:
            continue
        read = of_partition[index - 1][1]
        events = [
            event
            for topic, offset, event in expected.events.get(of.customer_id, ())
            if offset < read.get(topic, 0)
        ]
        started, verdict.goals = ms_of(told.body["run_started_at"]), verdict.goals + 1
        met = _ordered(events) if goal == "order" else _visited(events, offline)
        if any(at > started for at in met):
            verdict.wrong.append(f"{told.body['event_id']}: of a run whose {goal} had come")


def _ordered(events: Iterable[Any]) -> Iterator[int]:
    """When orders were made that count."""
    paid: Counter[str] = Counter()
    refunded: Counter[str] = Counter()
    made: dict[str, int] = {}
    for event in events:
        if isinstance(event, PurchaseMade):
            paid[event.order_id] += event.amount
            made[event.order_id] = min(event.occurred_at, made.get(event.order_id, event.occurred_at))
        elif isinstance(event, RefundMade):
            refunded[event.order_id] += event.amount
    return (at for i, at in made.items() if not refunded[i] or refunded[i] < paid[i])


def _visited(events: Iterable[Any], offline: tuple[str, ...]) -> Iterator[int]:
    """When the customer came to a store."""
    for event in events:
        is_inbound = isinstance(event, TouchpointMade) and event.direction == "inbound"
        if is_inbound and (event.channel in offline or event.store_id is not None):
            yield event.occurred_at
