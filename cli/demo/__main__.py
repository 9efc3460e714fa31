"""`make demo`: a year of a real shop through a real Kafka and Redis, and whether it comes out right."""

import asyncio
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Never, TypeVar

import click
from kafka.errors import KafkaError
from redis.exceptions import RedisError

from cli.demo import bond_check, bond_report, check, picture, story
from cli.demo.data import CACHE, DataMissingError, Event, events
from cli.demo.replay import Replay, Replayed, ReplayError, WorkerProcess
from cli.demo.screen import Screen
from cli.local_jars import ROOT
from cli.local_server import free_port
from cli.local_stack import LocalStack, LocalStackError
from cli.options import print_json
from schemas.program import Program
from streams.inspection import InspectionError
from streams.preflight import read_program
from streams.protocols import PURCHASES, FatalError
from streams.settings import ClockKind, Settings
from streams.topics import DEFAULT_PARTITIONS, administration
from streams.topics import create as create_topics

T = TypeVar("T")

#: What `--json` says of the comparison; the last three where the program keeps bonds.
_VERDICTS = ("states_equal", "changes_equal", "segments_equal", "attributions_equal", "triggers_kept")

#: Kafka waits this long for a worker that was killed before another gets its partitions: the least there is.
_SHORT_SESSION = 6.0


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for."""

    kills: int
    keep: bool
    months: int | None
    program: Path
    output: Path


@dataclass(frozen=True, slots=True)
class Ran:
    """What the pipeline made of the year."""

    replayed: Replayed
    published: check.Published
    #: What was told of bonds; None where the program keeps none.
    bonds: bond_check.PublishedBonds | None
    states: dict[str, dict[str, Any]]
    #: Where the data of Kafka and Valkey are kept, if they are.
    kept: Path | None


@click.command()
@click.option(
    "--kills", type=click.IntRange(0, 20), default=0, help="Kill the worker (kill -9) so often on the way."
)
@click.option("--months", type=click.IntRange(1, 12), help="Only the first months of the year.")
@click.option("--keep", is_flag=True, help="Keep the data of Kafka and Valkey, and tell how to look at them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end, all else to stderr.")
@click.option(
    "--program",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=ROOT / "examples" / "loyal-year.toml",
    help="Another program file.  [default: examples/loyal-year.toml]",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=CACHE,
    help="Where the pictures and the worker's log are written.  [default: .local/demo]",
)
def main(as_json: bool, **asked: Any) -> None:
    """Replay a year of a real grocery chain through the pipeline, on servers of its own, and check it.

    Exits with 0 only where every customer's state, every tier change, and the last segments and attributions equal
    the batch computation.
    """
    _on_signals(_interrupt)
    screen = Screen(quiet_stdout=as_json)
    try:
        told = demo(Options(**asked), screen)
    except (LocalStackError, ReplayError, DataMissingError, FatalError, InspectionError) as error:
        raise click.ClickException(str(error)) from error
    except (KafkaError, RedisError) as error:
        raise click.ClickException(f"{type(error).__name__}: {error}") from error
    except KeyboardInterrupt:
        screen.warn("stopped; nothing is left running")
        raise SystemExit(130) from None
    if as_json:
        print_json(told)
    if not all(told[name] for name in _VERDICTS if name in told):
        raise SystemExit(1)


def demo(options: Options, screen: Screen) -> dict[str, Any]:
    """The whole of it; returns what `--json` prints."""
    started = time.monotonic()
    program = read_program(str(options.program))
    with screen.step("reading the Complete Journey data, times taken as UTC"):
        year = events(options.months)
    kinds = Counter(event.topic for event in year)
    bought, households = kinds[PURCHASES], len({event.key for event in year})
    screen.say(f"   {bought:,} purchases and {len(year) - bought:,} contacts of {households:,} households")
    ran = _run(options, screen, program, year)
    with screen.step("computing the same as one batch, for comparison"):
        expected = check.compute(program, year, DEFAULT_PARTITIONS, lambda _: None)
        states = check.compare_states(ran.states, expected.states)
        changes = check.compare_changes(ran.published, expected.changes)
    told = _summary(options, screen, program, year, ran)
    dead = ran.published.dead_letters
    screen.heading("Is it right? The stream against a batch computation of the same events")
    screen.verdict("states", states.equal, f"{states.compared:,} customers", states.differences)
    screen.verdict("tier changes", changes.equal, f"{changes.compared:,}", changes.differences)
    bonds = {} if ran.bonds is None else _bonds_verdicts(screen, program, ran.bonds, expected)
    if dead != expected.dead_letters:
        screen.warn(f"  dead letters: {dict(dead)}, batch: {dict(expected.dead_letters)}")
    if ran.kept is not None:
        _how_to_look(screen, ran.kept, options, told["customer"], ran.bonds is not None)
    seconds = time.monotonic() - started
    screen.console.print()
    screen.say(
        f"{len(year):,} events in {ran.replayed.seconds or 0:.1f} s: {ran.replayed.rate:,.0f} events/s. "
        f"All in all {seconds:.0f} s; nothing is left running."
    )
    return told | {
        "dead_letters": dict(dead),
        "states_equal": states.equal,
        "states_compared": states.compared,
        "changes_equal": changes.equal and dead == expected.dead_letters,
        "changes_compared": changes.compared,
        **bonds,
        "total_seconds": round(seconds, 1),
    }


def _bonds_verdicts(
    screen: Screen, program: Program, found: bond_check.PublishedBonds, expected: check.Expected
) -> dict[str, Any]:
    """Segments and attributions against the batch, triggers against the program's own rules."""
    told: dict[str, Any] = {}
    assert program.bonds is not None
    if program.bonds.segments:
        verdict = bond_check.compare_segments(found, expected.segments)
        screen.verdict("segments", verdict.equal, f"{verdict.compared:,} customers", verdict.differences)
        told |= {"segments_equal": verdict.equal, "segments_compared": verdict.compared}
    if program.bonds.attribution is not None:
        verdict = bond_check.compare_attributions(found, expected.attributions)
        screen.verdict(
            "attributions", verdict.equal, f"{verdict.compared:,} conversions", verdict.differences
        )
        told |= {"attributions_equal": verdict.equal, "attributions_compared": verdict.compared}
    if program.bonds.scenarios:
        verdict = bond_check.check_triggers(program, found)
        detail = f"{verdict.compared:,}; each once, holdouts, caps and quiet hours kept"
        screen.verdict("triggers", verdict.equal, detail, verdict.differences, ("as allowed", "NOT ALLOWED"))
        told |= {"triggers_kept": verdict.equal, "triggers_checked": verdict.compared}
    return told


def _run(options: Options, screen: Screen, program: Program, year: list[Event]) -> Ran:
    """Servers and worker up, replay, everything read back, everything down again."""
    options.output.mkdir(parents=True, exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="data-", dir=options.output)) if options.keep else None
    stack = LocalStack(data)
    worker: WorkerProcess | None = None
    try:
        with screen.step(
            f"starting Kafka and Valkey on free ports {stack.kafka.port} and {stack.redis.port}"
        ):
            stack.start()
            settings = Settings(
                brokers=stack.brokers,
                redis_url=stack.redis_url,
                program=str(options.program.resolve()),
                clock=ClockKind.EVENT,
                web_port=free_port(),
                session_timeout=_SHORT_SESSION if options.kills else Settings().session_timeout,
            )
            with administration(settings) as admin:
                create_topics(admin, settings, DEFAULT_PARTITIONS, replication=1, retention_ms=-1)
        worker = WorkerProcess(stack.data_dir / "worker", settings, options.output / "worker.log")
        with screen.step(f"starting a worker, metrics at http://127.0.0.1:{worker.port}/metrics"):
            worker.start()
        replay = Replay(stack, settings, program, DEFAULT_PARTITIONS, worker, year)
        with screen.replaying(len(year)) as shown:
            replayed = _await(replay.run(options.kills, shown.update, shown.kill))
        with screen.step("reading back all that was told, and every customer"):
            published = check.read_published(settings, DEFAULT_PARTITIONS)
            keeps = program.bonds is not None
            bonds = bond_check.read_bonds(settings, DEFAULT_PARTITIONS) if keeps else None
            states = _await(check.read_states(settings, program))
    finally:
        _on_signals(signal.SIG_IGN)  # the stopping must not be broken off
        if worker is not None:
            worker.stop()
        stack.stop()
        _on_signals(_interrupt)
    return Ran(replayed, published, bonds, states, data)


def _summary(
    options: Options, screen: Screen, program: Program, year: list[Event], ran: Ran
) -> dict[str, Any]:
    joined = story.first_purchases(year)
    until = story.day_of(max(event.occurred_at for event in year))
    tiers = [tier.name for tier in program.tiers]
    held = Counter(state["tier"] for customer_id, state in ran.states.items() if customer_id in joined)
    counts = {tier: held[tier] for tier in tiers}
    screen.tiers(counts, until)

    # Those that tell only of a tier at risk, or retained, moved nobody.
    moves = {
        customer_id: [change for change in of_one if "direction" in change]
        for customer_id, of_one in ran.published.changes.items()
    }
    changes = [change for of_one in moves.values() for change in of_one]
    directions = Counter(change["direction"] for change in changes)
    path = options.output / "tier-changes.png"
    title = "A year of a grocery chain: who moved up, who moved down"
    days = program.window // 86_400_000
    note = f"Each purchase counts for {days} days; falls begin when the first ones no longer count."
    picture.draw(path, title, note, tiers, changes, joined, until)
    screen.heading(f"Moves between tiers: {directions['upgrade']:,} up, {directions['downgrade']:,} down")
    screen.say(f"  picture: {_shown(path)}")

    chosen = story.choose(moves, year)
    if chosen is not None:
        screen.story(story.tell(program, chosen, moves[chosen], year, ran.states[chosen]))

    bonds: dict[str, Any] = {}
    if ran.bonds is not None:
        path_of_bonds = options.output / "loyalty.png"
        bonds = bond_report.tell(screen, program, ran.bonds, ran.states, year, path_of_bonds)
        if "loyalty_picture" in bonds:
            screen.say(f"  picture: {_shown(path_of_bonds)}")

    dead = ran.published.dead_letters
    screen.heading(f"Dead letters: {sum(dead.values()):,}")
    for reason, count in sorted(dead.items()):
        screen.say(f"  {reason}: {count:,}")
    return {
        "events": len(year),
        "seconds": round(ran.replayed.seconds or 0, 2),
        "events_per_second": round(ran.replayed.rate),
        "kills": [
            {"pid": kill.pid, "committed": kill.committed, "unread": kill.unread}
            for kill in ran.replayed.kills
        ],
        "tiers": counts,
        "upgrades": directions["upgrade"],
        "downgrades": directions["downgrade"],
        "picture": str(path.resolve()),
        "customer": chosen,
        **bonds,
    }


def _how_to_look(
    screen: Screen, kept: Path, options: Options, customer_id: str | None, keeps_bonds: bool
) -> None:
    screen.heading(f"Kept: {_shown(kept)}. To look at it:")
    screen.say(f"  kizuna local up --data-dir {_shown(kept)}")
    screen.say(f"  kizuna customer {customer_id or 'ID'} --clock event --program {_shown(options.program)}")
    screen.say("  kizuna tail tier-changes --from-beginning")
    if keeps_bonds:
        screen.say("  kizuna tail segment-changes --from-beginning")


def _shown(path: Path) -> Path:
    """The path as a person in the present directory would write it."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _on_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _interrupt(signal_number: int, frame: FrameType | None) -> Never:
    # From here on everything is being stopped; a second signal must not break that off.
    _on_signals(signal.SIG_IGN)
    raise KeyboardInterrupt


def _await(work: Coroutine[Any, Any, T]) -> T:
    """Its result. A signal cancels it in order: an exception out of nowhere could hit any of its tasks.

    Raises KeyboardInterrupt where a signal came.
    """

    async def watched() -> T:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop(signal_number: int, frame: FrameType | None) -> None:
            _on_signals(signal.SIG_IGN)
            loop.call_soon_threadsafe(stopped.set)

        _on_signals(stop)
        task, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stopped.wait())
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not stopped.is_set():
            return await task
        while not task.done():
            # A cancellation that meets an answer is swallowed by Python 3.11's wait_for: ask again.
            task.cancel()
            await asyncio.wait({task}, timeout=1)
        await asyncio.gather(task, return_exceptions=True)
        raise asyncio.CancelledError

    try:
        result = asyncio.run(watched())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    except BaseException:
        _on_signals(_interrupt)
        raise
    _on_signals(_interrupt)
    return result


if __name__ == "__main__":
    main(prog_name="python -m cli.demo")
