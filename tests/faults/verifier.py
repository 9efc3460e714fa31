"""The verifier: whether what came out is what the log says must come out, after whatever happened in between.

It reads the log and the outputs with plain clients, decides by the contract where each record belongs and what is a
dead letter, and has `loyalty.batch` compute the rest a second time. `judge` is pure, so that tests can hand it wrong
outputs.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
from redis import Redis

from schemas.tier_change import EVENT_TYPES
from streams.protocols import PURCHASES
from streams.settings import ClockKind
from tests.faults.expected import Expected, expect, home
from tests.faults.reading import Found, Inputs, read_found
from tests.faults.verdict import Verdict, short
from tests.faults.verifier_bonds import judge_bonds
from tests.space import Read, Space, now_ms, wait_until

DLQ = ("dlq-reason", "dlq-detail", "dlq-topic", "dlq-partition", "dlq-offset", "dlq-timestamp")
_KEPT = 64 * 1024


async def verify(
    space: Space, *, lost_writes: bool = False, inputs: Inputs | None = None, seconds: float = 90
) -> Verdict:
    """Wait until all is read, fallen and published, then judge.

    `lost_writes`: Redis lost its last writes, so dead letters and records sent on may come twice. `inputs`: what was
    read of the log before some of it was deleted.
    """
    inputs = inputs or Inputs(space)
    is_wall = space.settings.clock is ClockKind.WALL
    lateness = space.program.allowed_lateness
    lower = now_ms() if is_wall else None
    wait_until(lambda: is_settled(space, lower), seconds, "all read, fallen and published")
    logs = inputs.follow()
    expected = expect(space.program, logs, space.partitions, lateness if is_wall else None)
    newest = max((at for at in expected.newest if at is not None), default=0)
    # After the last event, so that the dump is not refused; in the wall clock also after all that may have fallen.
    found = await read_found(space, lambda: max(newest, now_ms() + 1_000) if is_wall else newest)
    return judge(
        expected, found, lower, now_ms() if is_wall else None, lost_writes, space.settings.topic_prefix
    )


def is_settled(space: Space, until: int | None) -> bool:
    """Whether all input is committed, all that is due before the clock has fallen, and all output is published."""
    assert any(worker.process.poll() is None for worker in space.workers), "no worker runs"
    if not space.all_is_read():
        return False
    return all(
        _has_fallen(space.redis, f"{space.name}:{{{p}}}", space, until) for p in range(space.partitions)
    )


def _has_fallen(redis: "Redis", tag: str, space: Space, until: int | None) -> bool:
    with redis.pipeline(transaction=True) as pipe:
        pipe.hget(f"{tag}:shard", f"newest:{PURCHASES}")
        pipe.zrange(f"{tag}:due", 0, 0, withscores=True)
        pipe.llen(f"{tag}:outbox")
        newest, due, waiting = pipe.execute()
    clock = int(newest or 0) if until is None else until
    return not waiting and (not due or due[0][1] >= clock - space.program.allowed_lateness)


def judge(
    expected: Expected,
    found: Found,
    lower: int | None = None,
    upper: int | None = None,
    lost_writes: bool = False,
    topic_prefix: str = "",
    stopped: bool = False,
) -> Verdict:
    """Compare. In the wall clock what falls due before `lower` must be published, and nothing from `upper` on may.

    `stopped`: all workers have stopped in the midst of their work, so the last of what they decided may wait.
    """
    verdict = Verdict(stopped=stopped)
    bodies = _published(verdict, expected, found.changes)
    _one_body(verdict, found, lost_writes)
    _newest(verdict, expected, found, bodies)
    # First what holds as of an earlier instant than `upper`.
    _facts(verdict, expected, found)
    _promised(verdict, expected, bodies, lower, upper)
    _dead_letters(verdict, expected, found.dead_letters, lost_writes, topic_prefix)
    _sent_on(verdict, expected, lost_writes)
    judge_bonds(verdict, expected, found, lower, upper, lost_writes)
    return verdict


def _published(
    verdict: Verdict, expected: Expected, changes: Iterable[Read]
) -> dict[str, list[dict[str, Any]]]:
    """Each id once, in the right place; sequences without holes; each previous tier the tier before."""
    program, partitions = expected.program, len(expected.batches)
    bodies: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    ids: Counter[str] = Counter()
    for record in changes:
        body, header = record.json, record.header
        customer_id, event_id = body["customer_id"], body["event_id"]
        before = bodies[customer_id]
        tier, at = (before[-1]["tier"], before[-1]["effective_at"]) if before else (program.tiers[0].name, "")
        ids[event_id] += 1
        verdict.expect(f"{event_id}: ce_id", header.get("ce_id"), event_id.encode())
        verdict.expect(f"{event_id}: ce_type", header.get("ce_type"), _type_of(body))
        verdict.expect(f"{event_id}: key", record.key, customer_id.encode())
        verdict.expect(f"{event_id}: partition", record.partition, home(customer_id, partitions))
        verdict.expect(f"{customer_id}: tier_seq", body["tier_seq"], len(before) + 1)
        verdict.expect(f"{event_id}: id", event_id, f"{program.id}/{customer_id}/{body['tier_seq']}")
        verdict.expect(f"{event_id}: previous_tier", body["previous_tier"], tier)
        if body["effective_at"] < at:
            verdict.wrong.append(f"{event_id}: effective_at {body['effective_at']} after {at}")
        before.append(body)
    for event_id, times in ids.items():
        verdict.expect(f"{event_id}: times that a read_committed reader saw it", times, 1)
    verdict.changes = ids.total()
    return bodies


def _type_of(body: dict[str, Any]) -> bytes:
    kind = "changed" if "direction" in body else "at-risk" if "at_risk_until" in body else "retained"
    return EVENT_TYPES[kind].encode()  # type: ignore[index]


def _one_body(verdict: Verdict, found: Found, lost_writes: bool) -> None:
    """One id has one body, wherever and whenever it was read.

    What was decided and lost with Redis's last writes may stand in a transaction that was aborted, so then only what
    was committed is looked at.
    """
    seen: dict[str, bytes | None] = {}
    for record in [*found.changes, *found.tiers, *([] if lost_writes else found.uncommitted)]:
        event_id = record.json["event_id"]
        verdict.expect(f"{event_id}: a second body", record.value, seen.setdefault(event_id, record.value))


def _newest(
    verdict: Verdict, expected: Expected, found: Found, bodies: dict[str, list[dict[str, Any]]]
) -> None:
    """customer-tiers, the packed state and the readable hash all say what the last change says."""
    newest = {(record.key or b"").decode(): record.json for record in found.tiers}
    ids = Counter(record.json["event_id"] for record in found.tiers)
    for event_id, times in ids.items():
        verdict.expect(f"{event_id}: times in customer-tiers", times, 1)
    known = {customer_id for batch in expected.batches for customer_id in batch.customers}
    for customer_id in sorted(known | bodies.keys() | newest.keys() | found.stored.keys()):
        last = bodies[customer_id][-1] if bodies.get(customer_id) else None
        standing = (expected.program.tiers[0].name, 0) if last is None else (last["tier"], last["tier_seq"])
        verdict.expect(f"{customer_id}: newest in customer-tiers", newest.get(customer_id), last)
        if verdict.stopped:
            continue
        verdict.expect(f"{customer_id}: stored", found.stored.get(customer_id), standing)
        verdict.expect(f"{customer_id}: readable", found.readable.get(customer_id), standing)


def _promised(
    verdict: Verdict,
    expected: Expected,
    bodies: dict[str, list[dict[str, Any]]],
    lower: int | None,
    upper: int | None,
) -> None:
    """Where the input came in time order, the changes are the batch computation's, but for what touchpoints say."""
    expected.let_fall(lower)
    least = {i: len(c.changes) for batch in expected.batches for i, c in batch.customers.items()}
    if upper is not None:
        expected.let_fall(upper)
    for batch, ordered in zip(expected.batches, expected.ordered, strict=True):
        if not ordered:
            continue
        for customer_id, customer in batch.customers.items():
            wanted = [msgspec.to_builtins(change) for change in customer.changes]
            changes = bodies.get(customer_id, [])
            verdict.promised += len(changes)
            fewest = 0 if verdict.stopped else least[customer_id]
            if not fewest <= len(changes) <= len(wanted):
                verdict.wrong.append(
                    f"{customer_id}: {len(changes)} changes, expected {fewest} to {len(wanted)}"
                )
            for change, want in zip(changes, wanted, strict=False):
                verdict.expect(want["event_id"], _without_touches(change), _without_touches(want))


def _facts(verdict: Verdict, expected: Expected, found: Found) -> None:
    """The metrics are the batch computation's; so is the tier, but where somebody commanded it; so is the sequence
    where the input came in time order."""
    partitions = len(expected.batches)
    lines = expected.lines(found.as_of)
    verdict.customers = len(lines)
    for customer_id in sorted(lines.keys() | found.dump.keys()):
        want, line = lines.get(customer_id), found.dump.get(customer_id)
        if want is not None and line is not None:
            if not expected.ordered[home(customer_id, partitions)]:
                want["tier_seq"] = line["tier_seq"]
            if customer_id in expected.commanded:
                want["tier"] = line["tier"]
        verdict.expect(f"{customer_id} as of the end", line, want)


def _dead_letters(
    verdict: Verdict, expected: Expected, letters: Iterable[Read], lost_writes: bool, topic_prefix: str
) -> None:
    """Each is there, whole, with its reason, and once."""
    times: Counter[tuple[str, int, int]] = Counter()
    for letter in letters:
        header = dict(letter.headers[-len(DLQ) :])
        if tuple(header) != DLQ:
            verdict.wrong.append(f"a dead letter with the headers {[name for name, _ in letter.headers]}")
            continue
        topic = (header["dlq-topic"] or b"").decode().removeprefix(topic_prefix)
        place = topic, int(header["dlq-partition"] or -1), int(header["dlq-offset"] or -1)
        times[place] += 1
        if place not in expected.dead_letters:
            verdict.wrong.append(f"{place}: a dead letter, and none was expected: {header['dlq-reason']!r}")
            continue
        record, reason = expected.dead_letters[place]
        verdict.expect(f"{place}: dlq-reason", header["dlq-reason"], reason.encode())
        verdict.expect(f"{place}: dlq-timestamp", header["dlq-timestamp"], str(record.timestamp).encode())
        detail = header["dlq-detail"] or b""
        _same(verdict, f"{place}: value", letter.value, record.value, detail)
        _same(verdict, f"{place}: key", letter.key, record.key, detail)
        originals = letter.headers[: -len(DLQ)]
        if b"; cut: " not in detail:
            verdict.expect(f"{place}: headers", originals, record.headers)
    verdict.dead_letters = len(expected.dead_letters)
    for place in expected.dead_letters:
        if (times[place] == 0 and not verdict.stopped) or (times[place] > 1 and not lost_writes):
            verdict.wrong.append(f"{place}: {times[place]} dead letters, expected 1")


def _same(verdict: Verdict, what: str, found: bytes | None, original: bytes | None, detail: bytes) -> None:
    """The original bytes, or the first of them with the sum of all."""
    if found != original and original is not None and b"; cut: " in detail:
        told = f"{what.rpartition(' ')[2]} of {len(original)} bytes, SHA-256 {hashlib.sha256(original).hexdigest()}"
        if original[:_KEPT] == found and told.encode() in detail:
            return
    verdict.expect(what, found, original)


def _sent_on(verdict: Verdict, expected: Expected, lost_writes: bool) -> None:
    for copy in expected.sent_on.keys() | expected.found_sent_on.keys():
        wanted, times = expected.sent_on[copy], expected.found_sent_on[copy]
        if (times < wanted and not verdict.stopped) or (times > wanted and (wanted == 0 or not lost_writes)):
            verdict.wrong.append(f"sent on {times} times, expected {wanted}: {short(copy)}")


def _without_touches(body: dict[str, Any]) -> dict[str, Any]:
    """Without what rests on touchpoints, too, and so on how far they had been read."""
    return {name: value for name, value in body.items() if name not in ("contacts", "segment")}
