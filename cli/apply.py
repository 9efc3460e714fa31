"""`kizuna program apply`: moves a store, with everyone in it, to another version of its program."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cli.options import Instant, counted, json_option, print_json, settings_options
from cli.progress import progress
from cli.records import shown
from cli.running import run
from schemas.program import Program
from schemas.times import format_ms
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.program_change import Move, ProgramChange

_LOOK_AGAIN = 0.3
#: Seconds without anybody moved, after which it is said what is waited for.
_STALLED = 10.0


@click.command(short_help="Move a store to another version of its program.")
@click.argument("file", metavar="FILE")
@click.option(
    "--dry-run", is_flag=True, help="Show who would go from which tier to which, and change nothing."
)
@click.option(
    "--protect-until",
    type=Instant(),
    metavar="TIME",
    help="Until then nobody falls below the tier that was earned before. Default: the program's protect_until.",
)
@settings_options("brokers", "topic_prefix", "redis_url", "redis_prefix", "clock", "group")
@json_option
def apply(settings: Settings, file: str, dry_run: bool, protect_until: int | None, as_json: bool) -> None:
    """Move the store to the program of FILE, and every customer with it.

    Workers of the version before end by themselves; start them with FILE. They move the customers beside their
    events; where none runs, this command does. It may be broken off at any time: the same command goes on.

    The change holds from now on, in the event clock from the newest purchase of each shard on. With --dry-run
    the store is only read.
    """
    from streams.preflight import read_program

    program = read_program(file)
    applying = _Applying(settings, program, protect_until)
    try:
        moves = run(applying.foresee() if dry_run else applying.apply())
    except KeyboardInterrupt:
        click.echo(f"interrupted: {applying.certain()}", err=True)
        raise
    if as_json:
        print_json(applying.line(dry_run, moves))
    else:
        applying.show(dry_run, moves)


@dataclass(slots=True)
class _Applying:
    """One run of the command. `protect_until` is what was asked for; the program's own, where nothing was."""

    settings: Settings
    program: Program
    protect_until: int | None
    before: Program | None = None
    is_begun: bool = False
    was_done: bool = False

    def __post_init__(self) -> None:
        if self.protect_until is None:
            self.protect_until = self.program.protect_until

    async def foresee(self) -> "list[Move]":
        """What would be."""
        async with self._change() as change:
            if change.is_done:
                return []
            with progress("looking at", "customers") as advance:
                return await change.foresee(self.protect_until, _told_alone(advance))

    async def apply(self) -> "list[Move]":
        """Do it, or go on with it; what has been done."""
        async with self._change() as change:
            if change.is_done:
                return []
            if change.is_begun:
                self.protect_until = change.protect_until
            # Whoever breaks off in the midst of it must know that some shards may be switched.
            self.is_begun = True
            await change.begin(self.protect_until)
            with progress("listing", "customers") as advance:
                await change.enlist(_told_alone(advance))
            await self._move(change)
            return await change.tally()

    async def _move(self, change: "ProgramChange") -> None:
        from streams.headless import moving_without_workers

        total = left = await change.left()
        moved_at = time.monotonic()
        async with moving_without_workers(self.settings, self.program) as mover:
            with progress("moving", "customers", total) as advance:
                while left:
                    await asyncio.sleep(_LOOK_AGAIN)
                    mover.check()
                    before, left = left, await change.left()
                    if left != before:
                        moved_at = time.monotonic()
                    elif time.monotonic() - moved_at > _STALLED:
                        moved_at = time.monotonic()
                        click.echo(_waiting(mover.is_at_work, left), err=True)
                    # Who was there in two lists at first is moved once.
                    done = max(0, total - left)
                    advance(done, done)

    @asynccontextmanager
    async def _change(self) -> "AsyncIterator[ProgramChange]":
        from streams.program_change import ProgramChange

        change = await ProgramChange.open(self.settings, self.program)
        try:
            self.before, self.is_begun, self.was_done = change.before, change.is_begun, change.is_done
            yield change
        finally:
            await change.close()

    def certain(self) -> str:
        """What is known of a run that was broken off."""
        if self.is_begun:
            return "the change is begun and not over, the same command goes on"
        return "nothing was changed"

    def way(self, move: "Move") -> str:
        """Whether a move goes `up`, `down` or nowhere (`same`), as a record of it would say."""
        if move.before == move.after:
            return "same"
        names = [tier.name for tier in self.program.tiers]
        old = [] if self.before is None else [tier.name for tier in self.before.tiers]
        after = names.index(move.after)
        if move.before in names:
            return "up" if after > names.index(move.before) else "down"
        # A tier that is gone: its place is compared, and the same place is no fall.
        return "up" if move.before not in old or after >= old.index(move.before) else "down"

    def line(self, dry_run: bool, moves: "Iterable[Move]") -> dict[str, Any]:
        """What is printed as JSON."""
        moves = list(moves)
        return {
            "program": self.program.id,
            "version": self.program.version,
            "version_before": None if self.before is None else self.before.version,
            "dry_run": dry_run,
            "already_applied": self.was_done,
            "protect_until": None if self.protect_until is None else format_ms(self.protect_until),
            "moves": [
                {
                    "from": move.before,
                    "to": move.after,
                    "direction": self.way(move),
                    "customers": move.customers,
                    **({"at_risk": move.at_risk} if dry_run else {}),
                }
                for move in moves
            ],
            **self._totals(moves),
        }

    def show(self, dry_run: bool, moves: "list[Move]") -> None:
        """The same for a person."""
        if self.was_done:
            told = f"the store is on version {self.program.version} of {self.program.id} already"
            click.secho(f"{told}: nothing to do", fg="green", err=True)
            return
        before = "" if self.before is None else f"from version {self.before.version} "
        click.echo(f"program {self.program.id}, {before}to version {self.program.version}")
        if self.protect_until is not None:
            click.echo(f"protected until {format_ms(self.protect_until)}")
        _table([self._row(dry_run, move) for move in moves], dry_run)
        totals = self._totals(moves)
        ways = ", ".join(f"{totals[way]:,} {way}" for way in ("up", "down", "same"))
        click.echo(f"{counted(totals['customers'], 'customer')}: {ways}")
        if dry_run:
            under_way = ", the change of the others is under way" if self.is_begun else ""
            click.secho(f"nothing was changed{under_way}", dim=True, err=True)
        else:
            click.secho("the program is applied", fg="green", err=True)

    def _totals(self, moves: "Iterable[Move]") -> dict[str, int]:
        totals = {"customers": 0, "up": 0, "down": 0, "same": 0}
        for move in moves:
            totals["customers"] += move.customers
            totals[self.way(move)] += move.customers
        return totals

    def _row(self, dry_run: bool, move: "Move") -> tuple[str, ...]:
        at_risk = (f"{move.at_risk:,}",) if dry_run else ()
        return shown(move.before), shown(move.after), f"{move.customers:,}", *at_risk


def _waiting(alone: bool, left: int) -> str:
    waiting = f"{counted(left, 'customer')} left"
    if alone:
        waiting += ": records of before the change may be unread, which only a worker reads: start one with that file"
    else:
        waiting += (
            ": waiting for the workers, which move them as far as records of before the change are read"
        )
    return f"{waiting}; or publishing waits (kizuna outbox show)"


def _told_alone(advance: Callable[[int, int], None]) -> Callable[[int], None]:
    return lambda done: advance(done, done)


def _table(rows: list[tuple[str, ...]], at_risk: bool) -> None:
    from rich.cells import cell_len

    heads = ("from", "to", "customers", *(("at risk",) if at_risk else ()))
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]

    def line(row: tuple[str, ...]) -> str:
        gaps = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        cells = [cell + gap for cell, gap in zip(row[:2], gaps, strict=False)]
        return "  ".join([*cells, *(gap + cell for cell, gap in zip(row[2:], gaps[2:], strict=True))])

    click.secho(line(heads), dim=True)
    for row in rows:
        click.echo(line(row))
