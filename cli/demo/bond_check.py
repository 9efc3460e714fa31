"""Whether what was told of bonds is what the batch computation says, and what the program allows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cli.demo.check import Verdict, conversion_key, read_shown, records
from loyalty.batch_contact import draw
from schemas.murmur2 import home
from schemas.program import Program
from schemas.program_bonds import Bonds, Cap
from schemas.times import DAY, MINUTE, parse_rfc3339
from schemas.zones import time_zone
from streams.settings import Settings
from streams.topics import ATTRIBUTIONS, NURTURING_TRIGGERS, SEGMENT_CHANGES

#: When, epoch ms, and by which channel.
_Contact = tuple[int, str]
_ByCustomer = dict[str, list[dict[str, Any]]]


class PublishedBonds(NamedTuple):
    """Bodies by customer, in the order of the log, as any `read_committed` client reads them."""

    segments: _ByCustomer
    triggers: _ByCustomer
    attributions: _ByCustomer
    #: Segment and segment_seq in the hash that any client of Redis may read, by customer.
    shown: dict[str, tuple[str, str]]
    #: Records that stand in another partition than their customer's.
    misplaced: int


def read_bonds(settings: Settings, partitions: int) -> PublishedBonds:
    """Read the three topics from their beginning to their end, and the readable hashes."""
    misplaced = 0
    found: list[_ByCustomer] = []
    for topic in (SEGMENT_CHANGES, NURTURING_TRIGGERS, ATTRIBUTIONS):
        bodies: _ByCustomer = {}
        for record in records(settings, topic):
            body = json.loads(record.value)
            bodies.setdefault(body["customer_id"], []).append(body)
            misplaced += record.partition != home(body["customer_id"].encode(), partitions)
        found.append(bodies)
    segments, triggers, attributions = found
    shown = read_shown(settings, partitions, segments, ("segment", "segment_seq"))
    return PublishedBonds(segments, triggers, attributions, shown, misplaced)


def compare_segments(found: PublishedBonds, expected: Mapping[str, str | None]) -> Verdict:
    """The last change's segment is the batch's, and the chain to it is whole; Redis shows the same."""
    verdict = Verdict(len(expected))
    verdict.expect("records in a wrong partition", found.misplaced, 0)
    for customer_id in sorted(found.segments.keys() | expected.keys()):
        changes = found.segments.get(customer_id, [])
        seqs = [change["segment_seq"] for change in changes]
        verdict.expect(f"customer {customer_id}, segment_seq", seqs, list(range(1, len(changes) + 1)))
        before = [None, *(change["segment"] for change in changes[:-1])]
        told = [change["previous_segment"] for change in changes]
        verdict.expect(f"customer {customer_id}, previous_segment", told, before[: len(changes)])
        last = changes[-1]["segment"] if changes else None
        verdict.expect(f"customer {customer_id}, segment", last, expected.get(customer_id))
        if changes:
            shown = last, str(len(changes))
            verdict.expect(f"customer {customer_id} in Redis", found.shown.get(customer_id), shown)
    return verdict


def compare_attributions(found: PublishedBonds, expected: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """What was told last of each conversion is the batch's, and the sequences to it have no holes."""
    verdict = Verdict(len(expected))
    last: dict[str, dict[str, Any]] = {}
    for customer_id, bodies in sorted(found.attributions.items()):
        seqs = [body["attribution_seq"] for body in bodies]
        verdict.expect(f"customer {customer_id}, attribution_seq", seqs, list(range(1, len(bodies) + 1)))
        for body in bodies:
            key = conversion_key(customer_id, body["conversion"])
            before = last[key]["revision"] if key in last else 0
            verdict.expect(f"{body['event_id']}, revision", body["revision"], before + 1)
            last[key] = body
    for key in sorted(last.keys() | expected.keys()):
        told = last.get(key)
        holds = told is not None and told["status"] == "attributed"
        shown = {name: told[name] for name in _COMPARED} if told is not None and holds else None
        verdict.expect(f"conversion {key}", shown, expected.get(key))
    return verdict


_COMPARED = ("conversion", "touch", "match", "lag_seconds", "amount")


def check_triggers(program: Program, found: PublishedBonds) -> Verdict:
    """Each step told once; who is held out got nothing, and who is not was not held out; no cap and no quiet hour was
    broken by what was sent."""
    assert program.bonds is not None
    bonds = program.bonds
    verdict = Verdict(sum(map(len, found.triggers.values())))
    scenarios = {scenario.name: scenario for scenario in bonds.scenarios}
    for customer_id, triggers in sorted(found.triggers.items()):
        ids = [trigger["event_id"] for trigger in triggers]
        verdict.expect(f"customer {customer_id}, triggers told twice", len(ids) - len(set(ids)), 0)
        for trigger in triggers:
            drawn = draw(bonds.holdout, scenarios[trigger["scenario"]], customer_id)
            held_out = drawn is not None and (drawn.overall or drawn.scenario)
            verdict.expect(f"{trigger['event_id']}, held out", trigger["status"] == "held_out", held_out)
        policy = bonds.contact_policy
        sent = sent_at(triggers)
        for cap in () if policy is None else policy.caps:
            most = most_within(program, cap, sent)
            if most > cap.most:
                verdict.differences.append(
                    f"customer {customer_id}: {most} messages, allowed {describe(cap)}"
                )
        quiet = [at for at, _ in sent if is_quiet(program, bonds, at)]
        verdict.expect(f"customer {customer_id}, messages in quiet hours", len(quiet), 0)
    return verdict


def sent_at(triggers: Iterable[Mapping[str, Any]]) -> list[_Contact]:
    """When messages were sent, epoch ms, and by which channel."""
    return [
        (parse_rfc3339(trigger["effective_at"]), trigger["channel"])
        for trigger in triggers
        if trigger["status"] in ("sent", "reserved")
    ]


def most_within(program: Program, cap: Cap, sent: Sequence[_Contact], others: Sequence[_Contact] = ()) -> int:
    """The most contacts that there were in a cap's window up to and with one that was `sent`.

    `others` are contacts that were not asked for. Nothing that was sent comes back in the year, so it counts until it
    lapses.
    """
    policy = None if program.bonds is None else program.bonds.contact_policy
    assert policy is not None
    ours, theirs = (
        [at for at, channel in contacts if cap.channel in (None, channel)] for contacts in (sent, others)
    )
    most = 0
    for end in ours:
        counted = [at for at in ours if end - policy.lapse < at <= end] + [at for at in theirs if at <= end]
        most = max(most, sum(is_within(program, cap, at, end) for at in counted))
    return most


def is_within(program: Program, cap: Cap, at: int, end: int) -> bool:
    """Whether a contact at `at`, not after `end`, lies in the window of a cap as of `end`. Without a window (a cap
    of 0) all do."""
    if cap.within is not None:
        return at > end - cap.within
    if cap.days is not None:
        return _local_day(program, at) > _local_day(program, end) - cap.days
    return True


def is_quiet(program: Program, bonds: Bonds, at: int) -> bool:
    """Whether an instant lies in the quiet hours, in the program's time zone: the year's customers tell none."""
    quiet = None if bonds.contact_policy is None else bonds.contact_policy.quiet
    if quiet is None:
        return False
    minute = _local(program, at) % DAY // MINUTE
    begin, end = quiet
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def describe(cap: Cap) -> str:
    """A cap in a few words."""
    if not cap.most:
        return "none"
    if cap.days is not None:
        span = "a day" if cap.days == 1 else f"in {cap.days} days"
    else:
        days = (cap.within or 0) / DAY
        span = f"in {days:g} days"
    return f"{cap.most} {span}"


def _local_day(program: Program, at: int) -> int:
    return _local(program, at) // DAY


def _local(program: Program, at: int) -> int:
    """Epoch ms moved by the time zone's offset at that instant: what the clock on the wall shows."""
    offset = datetime.fromtimestamp(at / 1000, UTC).astimezone(time_zone(program.timezone)).utcoffset()
    assert offset is not None
    return at + round(offset.total_seconds() * 1000)
