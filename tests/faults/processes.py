"""What the fault tests do to worker processes, and what they ask them."""

import json
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Self

from kafka.admin import MemberToRemove

from streams.protocols import INPUTS
from streams.topics import administration
from tests.faults.stepped import Step
from tests.space import Space, Worker, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
#: The shortest that a broker takes; seconds.
SESSION = 6


class Stepped(NamedTuple):
    """A worker that ends, or stops, by itself."""

    worker: Worker
    file: Path

    @property
    def has_bitten(self) -> bool:
        return self.file.exists()

    def wait_bitten(self, seconds: float = 120) -> Self:
        """Until it has killed or suspended itself."""

        def bitten() -> bool:
            if not self.has_bitten:
                assert self.worker.process.poll() is None, self.worker.log.read_text()
                return False
            return self.worker.process.poll() is not None or is_suspended(self.worker)

        wait_until(bitten, seconds, "the fault bites")
        return self


def stepped(
    space: Space, step: Step, times: int = 1, *, how: str = "KILL", after: int = 0, **env: Any
) -> Stepped:
    """Launch a worker that kills (`how` KILL) or suspends (STOP) itself at `step`, the n-th time, once `after` of its
    commits were answered."""
    file = space.directory / f"bitten{len(space.workers)}"
    worker = launch(
        space,
        "stepped",
        FAULT_STEP=step,
        FAULT_TIMES=times,
        FAULT_SIGNAL=how,
        FAULT_AFTER=after,
        FAULT_FILE=file,
        **env,
    )
    return Stepped(worker, file)


def launch(space: Space, module: str = "", **env: Any) -> Worker:
    """A worker with the shortest session, run by a module of this directory where one is named."""
    env = {"KIZUNA_SESSION_TIMEOUT": SESSION} | env
    if not module:
        return space.launch(**env)
    command = (sys.executable, "-m", f"tests.faults.{module}")
    return space.launch(command=command, PYTHONPATH=ROOT, **env)


def is_suspended(worker: Worker) -> bool:
    """Whether SIGSTOP holds the process."""
    return Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def resume(worker: Worker) -> None:
    worker.process.send_signal(signal.SIGCONT)


def evict(space: Space) -> None:
    """Take every member out of the group, as an operator may: who lives joins again at once, and nobody waits for the
    session of one that was killed to run out."""
    with administration(space.settings) as admin:
        members = admin.describe_groups([space.settings.group])[space.settings.group]["members"]
        if members:
            gone = [MemberToRemove(member_id=member["member_id"]) for member in members]
            admin.remove_group_members(space.settings.group, gone)


def assigned(space: Space) -> dict[str, set[tuple[str, int]]]:
    """By member of the group: the input partitions that it has, as the broker tells it."""
    with administration(space.settings) as admin:
        members = admin.describe_groups([space.settings.group])[space.settings.group]["members"]
    cut = len(space.settings.topic_prefix)
    return {
        member["member_id"]: {
            (given["topic"][cut:], p)
            for given in (member["member_assignment"] or {}).get("assigned_partitions", ())
            for p in given["partitions"]
        }
        for member in members
    }


def together(parts: dict[str, set[tuple[str, int]]], partitions: int) -> bool:
    """Whether all partitions are given, each p of all inputs to one member."""
    given = [item for part in parts.values() for item in part]
    whole = all((topic, p) in part for part in parts.values() for _, p in part for topic in INPUTS)
    return whole and len(given) == len(set(given)) == partitions * len(INPUTS)


def held(worker: Worker) -> list[int]:
    """The shards that a worker says it holds; none where it is not ready."""
    if worker.process.poll() is not None:
        return []
    try:
        status, body = worker.get("/readyz")
    except OSError:
        return []
    return json.loads(body)["partitions"] if status == 200 else []


def wait_all_held(space: Space, *workers: Worker, seconds: float = 60) -> None:
    """Until these workers hold all shards between them."""
    everything = list(range(space.partitions))
    wait_until(
        lambda: sorted(p for worker in workers for p in held(worker)) == everything,
        seconds,
        "all shards are held",
    )


def metric(worker: Worker, name: str) -> float:
    """The sum of a metric's samples; `name` may bear labels: `kizuna_shards_lost_total{cause="refused"}`."""
    pattern = re.escape(name) + (r"" if "{" in name else r"(?:\{[^}]*\})?") + r" ([0-9.e+-]+|NaN)$"
    text = worker.get("/metrics")[1].decode()
    return sum(float(value) for value in re.findall(f"^{pattern}", text, re.MULTILINE))


def count(worker: Worker, text: str) -> int:
    """How many of a worker's log lines hold a text."""
    return sum(text in line for line in worker.log.read_text(errors="replace").splitlines())


def progress(space: Space) -> Callable[[], bool]:
    """Whether any shard has committed since this was called."""
    before = space.committed()
    return lambda: space.committed() > before
