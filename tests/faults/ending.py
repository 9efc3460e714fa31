"""How a worker ends by itself: what it tells meanwhile and at last, and that what it had done until then is right."""

from typing import Any

import msgspec

from streams.protocols import INPUTS
from tests.faults.expected import expect
from tests.faults.processes import launch, metric
from tests.faults.reading import read_found
from tests.faults.verdict import Verdict
from tests.faults.verifier import judge
from tests.space import Read, Space, Worker, wait_until

#: Seconds for which a worker of these tests goes on serving its pages.
LINGER = 2
#: What a worker may have logged in its whole short life: bytes, lines.
LARGEST_LOG = 16_000, 60

Logs = dict[str, list[Read]]


def ending(space: Space, **env: Any) -> Worker:
    """A worker that tells for LINGER seconds why it stops."""
    return launch(space, **{"KIZUNA_LINGER": LINGER} | env)


def ended(worker: Worker, reason: str, seconds: float = 60) -> str:
    """Wait until a worker stops by itself for `reason`; the one line with which it does, without its beginning.

    While it lingers, its metrics and /readyz say the same; it ends with status 1, and has logged little.
    """
    sample = f'kizuna_stopped{{reason="{reason}"}}'

    def tells() -> bool:
        assert worker.process.poll() is None, f"it ended without telling why:\n{worker.log.read_text()}"
        try:
            return metric(worker, "kizuna_stopped") > 0
        except OSError:  # its pages do not answer yet
            return False

    wait_until(tells, seconds, sample)
    assert (metric(worker, sample), metric(worker, "kizuna_stopped")) == (1, 1), worker.get("/metrics")[1]
    status, body = worker.get("/readyz")
    assert status == 503
    assert metric(worker, "kizuna_shards") == 0
    assert worker.process.wait(LINGER + 15) == 1
    line = last_line(worker)
    assert msgspec.json.decode(body)["reason"] == line
    return line


def last_line(worker: Worker) -> str:
    """The line with which an ended worker stops: the only one of its kind, the last one, and no traceback before."""
    text = worker.log.read_text()
    lines = text.splitlines()
    told = [line.removeprefix("kizuna worker stops: ") for line in lines if "kizuna worker stops: " in line]
    assert len(told) == 1, text
    assert lines[-1] == f"kizuna worker stops: {told[0]}", text
    assert "Traceback" not in text, text
    assert len(text) < LARGEST_LOG[0], text
    assert len(lines) < LARGEST_LOG[1], text
    return told[0]


def watermarks(space: Space) -> dict[tuple[str, int], int]:
    """Up to where the store has read, by input and partition."""
    return {
        (topic, p): int(space.redis.hget(f"{space.name}:{{{p}}}:shard", f"offset:{topic}"))
        for topic in INPUTS
        for p in range(space.partitions)
    }


async def verdict_of(space: Space, logs: Logs) -> Verdict:
    """Judge what ended workers have done: all of `logs` up to the store's watermarks, nothing else, nothing twice."""
    until = watermarks(space)
    read = {
        topic: [r for r in records if r.offset < until.get((topic, r.partition), 0)]
        for topic, records in logs.items()
    }
    expected = expect(space.program, read, space.partitions)
    newest = max(at for at in expected.newest if at is not None)
    found = await read_found(space, lambda: newest)
    return judge(expected, found, topic_prefix=space.settings.topic_prefix, stopped=True)
