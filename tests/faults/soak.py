"""All faults at random, under load, for as long as one likes; then the verifier's verdict: `make soak MINUTES=20`.

A real Kafka, a real Valkey behind a proxy, three workers that are started again whenever they end, and a load that
goes on throughout. What happens is drawn from a seed. One worker is never killed: its memory must stay flat.
"""

import asyncio
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import redis

from cli.local_stack import KafkaServer
from tests.faults.load import Load, stream
from tests.faults.processes import launch, metric, resume, stepped
from tests.faults.proxy import Proxy
from tests.faults.sections import with_bonds
from tests.faults.stepped import Step
from tests.faults.valkey import OwnValkey
from tests.faults.verifier import verify
from tests.space import Servers, Space, Worker, wait_until

PARTITIONS = 6
#: More than a worker's session, so that its shards go to others.
SUSPENDED = 9.0
#: How much the memory of the worker that is never killed may grow from the second quarter of the run to the last.
GROWTH = 1.15
#: A fault that came so often must have found unfinished work at least once.
_OFTEN = 4
#: Lines of its log that are shown of a worker that ended by itself.
_LAST_WORDS = 60
#: Bytes that a worker may log for each second of its life, on average: faults come every few seconds.
LOGGED = 20_000


class Soak:
    """The servers, the workers and what is done to them."""

    def __init__(self, space: Space, kafka: KafkaServer, valkey: OwnValkey, proxy: Proxy, seed: int) -> None:
        self.space, self.kafka, self.valkey, self.proxy = space, kafka, valkey, proxy
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        #: Of them, how many found unread or unpublished work.
        self.bit: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()
        self.memory: list[tuple[float, int]] = []
        self.wrong: list[str] = []
        self.started = time.monotonic()
        self.steady = self._launch()
        self.others = [self._launch(), self._launch()]

    def faults(self) -> dict[Callable[[], str], int]:
        """Each with its weight."""
        return {
            self.kill: 4,
            self.kill_at_a_step: 4,
            self.suspend: 2,
            self.replace: 3,
            self.cut: 2,
            self.drop_a_reply: 3,
            self.stall: 1,
            self.lose_writes: 4,
            self.restart_redis: 2,
            self.fill_redis: 1,
            self.restart_kafka: 1,
            self.kill_kafka: 1,
        }

    # -- faults: each says what it did ---------------------------------------------------------------------------

    def kill(self) -> str:
        """A worker, from outside; another comes in its place."""
        number = self.random.randrange(len(self.others))
        self.others[number].kill()
        self.others[number] = self._launch()
        return "kill -9"

    def kill_at_a_step(self) -> str:
        """A worker that joins, and dies at a step of its work."""
        step = self.random.choice(list(Step))
        number = self.random.randrange(len(self.others))
        self.others[number].kill()
        doomed = stepped(self.space, step, self.random.randrange(1, 20), after=1, **self._env())
        self.others[number] = doomed.worker
        try:
            doomed.wait_bitten(20)
        except AssertionError:
            return f"kill -9 {step}: it did not come to that"
        self.others[number] = self._launch()
        return f"kill -9 {step}"

    def suspend(self) -> str:
        """A worker, for longer than its session; any of them."""
        worker = self.random.choice([self.steady, *self.others])
        if worker.process.poll() is not None:
            return "suspend: it had ended"
        worker.process.send_signal(19)
        time.sleep(SUSPENDED)
        resume(worker)
        return f"suspended for {SUSPENDED:.0f} s"

    def replace(self) -> str:
        """A worker leaves in order, and another joins: two rebalances."""
        number = self.random.randrange(len(self.others))
        if self.others[number].process.poll() is None:
            self.others[number].stop()
        self.others[number] = self._launch()
        return "rebalance"

    def cut(self) -> str:
        """Every connection to Redis."""
        self.proxy.cut()
        return "connections cut"

    def drop_a_reply(self) -> str:
        """A script ran, and nobody hears of it."""
        self.proxy.drop_reply(b"EVALSHA")
        return "reply dropped"

    def stall(self) -> str:
        """Redis, for some seconds."""
        seconds = self.random.choice((3, 8))
        self.proxy.stall()
        time.sleep(seconds)
        self.proxy.resume()
        return f"Redis stalled for {seconds} s"

    def lose_writes(self) -> str:
        """Redis is killed and has lost its last writes when it comes again."""
        self.valkey.kill()
        if self.random.random() < 0.5:
            lost = self.valkey.cut_seconds(self.random.choice((1, 2, 4)))
        else:
            lost = self.valkey.cut_bytes(self.random.choice((200, 20_000, 400_000)))
        self.valkey.start()
        return f"Redis lost {lost:,} bytes"

    def restart_redis(self) -> str:
        """In order: nothing is lost."""
        self.valkey.stop()
        self.valkey.start()
        return "Redis restarted"

    def fill_redis(self) -> str:
        """No memory for a while."""
        with self.valkey.client() as client:
            client.config_set("maxmemory", "1mb")
            time.sleep(3)
            client.config_set("maxmemory", "0")
        return "Redis out of memory for 3 s"

    def restart_kafka(self) -> str:
        """In order."""
        self.kafka.stop()
        self.kafka.start()
        return "Kafka restarted"

    def kill_kafka(self) -> str:
        """As a crash would."""
        self.kafka.kill()
        self.kafka.start()
        return "Kafka killed"

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self, seconds: float, tell: Callable[[str], None]) -> None:
        """Faults, with pauses in which something must get done, until the time is over."""
        faults = self.faults()
        while time.monotonic() - self.started < seconds:
            self._rest(self.random.uniform(2, 6))
            fault = self.random.choices(list(faults), list(faults.values()))[0]
            unfinished = not self.space.all_is_read()
            said = fault()
            self.done[fault.__name__] += 1
            self.bit[fault.__name__] += unfinished
            self._revive()
            committed = self._wait_progress()
            tell(f"{self._minutes()}  {said:32}  {committed:>9,} read")

    def _rest(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._revive()
            self._weigh()
            time.sleep(1)

    def _wait_progress(self) -> int:
        """However bad it was: within two minutes work goes on."""
        before = self._committed()

        def moved() -> bool:
            self._revive()
            return self._committed() > before or self.space.all_is_read()

        wait_until(moved, 120, f"progress after {before:,} ({self._minutes()})")
        return self._committed()

    def _committed(self) -> int:
        try:
            return self.space.committed()
        except redis.RedisError:
            return 0

    def _launch(self) -> Worker:
        return launch(self.space, **self._env())

    def _env(self) -> dict[str, Any]:
        return {"KIZUNA_REDIS_URL": f"redis://{self.proxy.address}/0", "KIZUNA_LINGER": 0}

    def _revive(self) -> None:
        """What a supervisor does: a worker that ended is started again."""
        for number, worker in enumerate(self.others):
            if (status := worker.process.poll()) is not None:
                self._note_ending(worker, status)
                self.others[number] = self._launch()
        if (status := self.steady.process.poll()) is not None:
            self._note_ending(self.steady, status)
            self.steady = self._launch()
            self.memory.clear()

    def _note_ending(self, worker: Worker, status: int) -> None:
        said = worker.log.read_text(errors="replace").strip().splitlines()
        last = next((line for line in reversed(said) if "worker stops" in line), "")
        self.endings[last or f"status {status}"] += 1
        if "stops:" in last or "error of its own" in last:
            self.wrong.append("\n    ".join([f"a worker ended by itself: {last}", *said[-_LAST_WORDS:]]))

    def _weigh(self) -> None:
        try:
            status = Path(f"/proc/{self.steady.process.pid}/status").read_text()
        except OSError:
            return
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        self.memory.append((time.monotonic() - self.started, int(resident.split()[1]) * 1024))

    def _minutes(self) -> str:
        seconds = int(time.monotonic() - self.started)
        return f"{seconds // 60:3}:{seconds % 60:02}"

    # -- the end -------------------------------------------------------------------------------------------------

    def quarters(self) -> list[int]:
        """Median bytes of the worker that is never killed, by quarter of its life."""
        count = len(self.memory) // 4
        parts = [self.memory[n * count : (n + 1) * count] for n in range(4)]
        return [int(statistics.median(size for _, size in part)) for part in parts if part]

    def judge_processes(self) -> None:
        """Memory flat, logs bounded, and every kind of fault found work."""
        quarters = self.quarters()
        if len(quarters) < 4:
            self.wrong.append("the run was too short to see whether memory stays flat")
        elif quarters[3] > GROWTH * quarters[1]:
            self.wrong.append(f"memory grew: {[f'{size / 1e6:.0f} MB' for size in quarters]}")
        logged = sum(worker.log.stat().st_size for worker in self.space.workers)
        if logged > LOGGED * (time.monotonic() - self.started):
            self.wrong.append(f"{logged:,} bytes were logged")
        for fault, times in self.done.items():
            if times >= _OFTEN and not self.bit[fault]:
                self.wrong.append(f"{fault} never found unfinished work, in {times} times")


async def soak(
    minutes: float, seed: int, rate: float, directory: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """One run; what it found."""
    kafka, valkey = KafkaServer(directory / "kafka"), OwnValkey(directory / "valkey")
    with ExitStack() as stack:
        for server in (kafka, valkey):
            stack.callback(server.kill)
            server.start()
        proxy = stack.enter_context(Proxy(valkey.port))
        usual: dict[str, Any] = {"clock": "event", "program": with_bonds(silver="60.00")}
        space = stack.enter_context(
            Space(Servers(kafka.address, valkey.url), directory, partitions=PARTITIONS, **usual)  # type: ignore[arg-type]
        )
        run = Soak(space, kafka, valkey, proxy, seed)
        with Load(space, stream(seed, customers=1_500), rate=rate) as load:
            wait_until(lambda: metric(run.steady.wait_ready(), "kizuna_shards") > 0, 60, "a worker at work")
            run.run(minutes * 60, tell)
            sent = load.sent
        tell(f"{run._minutes()}  no more faults; {sent:,} events were sent; the verifier reads the log")
        run._revive()
        verdict = await verify(space, lost_writes=True, seconds=300)
        run.judge_processes()
        return {
            "seed": seed,
            "minutes": minutes,
            "sent": sent,
            "faults": dict(run.done),
            "found_unfinished_work": dict(run.bit),
            "endings": dict(run.endings),
            "memory_by_quarter": run.quarters(),
            "customers": verdict.customers,
            "changes": verdict.changes,
            "promised": verdict.promised,
            "dead_letters": verdict.dead_letters,
            "records_of_bonds": verdict.told,
            "triggers": dict(verdict.triggers),
            "last_segments": verdict.segments,
            "last_attributions": verdict.attributions,
            "wrong": [*run.wrong, *verdict.wrong],
            "clean": verdict.is_clean and not run.wrong,
        }


@click.command()
@click.option("--minutes", default=20.0, show_default=True, help="How long faults come.")
@click.option("--seed", type=int, help="What happens is drawn from it; another one each time unless given.")
@click.option("--rate", default=250.0, show_default=True, help="Events a second.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON line.")
def main(minutes: float, seed: int | None, rate: float, as_json: bool) -> None:
    """Mix all faults at random under load, and judge what came out."""
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    click.echo(f"seed {seed}: {minutes:g} minutes, {rate:g} events a second", err=True)
    with tempfile.TemporaryDirectory(prefix="kizuna-soak-") as directory:
        found = asyncio.run(
            soak(minutes, seed, rate, Path(directory), lambda line: click.echo(line, err=True))
        )
    if as_json:
        click.echo(json.dumps(found))
    else:
        _tell(found)
    if not found["clean"]:
        raise click.ClickException(
            f"not clean; the same faults again: make soak MINUTES={minutes:g} ARGS='--seed {seed}'"
        )


def _tell(found: dict[str, Any]) -> None:
    faults = ", ".join(
        f"{name} {times} ({found['found_unfinished_work'].get(name, 0)} at work)"
        for name, times in sorted(found["faults"].items())
    )
    click.echo(f"faults: {faults}")
    click.echo(f"workers that ended: {found['endings'] or 'none'}")
    quarters = ", ".join(f"{size / 1e6:.0f}" for size in found["memory_by_quarter"])
    click.echo(f"memory of the worker that is never killed, by quarter: {quarters} MB")
    click.echo(
        f"{found['sent']:,} events, {found['customers']:,} customers, {found['changes']:,} changes "
        f"({found['promised']:,} of them promised), {found['dead_letters']:,} dead letters"
    )
    triggers = ", ".join(f"{count:,} {status}" for status, count in sorted(found["triggers"].items()))
    click.echo(
        f"{found['records_of_bonds']:,} records of bonds, {found['last_segments']:,} last segments and "
        f"{found['last_attributions']:,} attributions as the log says, triggers: {triggers}"
    )
    for line in found["wrong"][:20]:
        click.secho(f"  {line}", fg="red")
    click.secho(
        "clean" if found["clean"] else f"{len(found['wrong'])} wrong", fg="green" if found["clean"] else "red"
    )


if __name__ == "__main__":
    main()
