"""`kizuna outbox`: what waits to be published, and deciding about falls that are held back."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import click

from cli.options import Until, counted, json_option, print_json, settings_options
from cli.running import run
from schemas.times import format_ms
from streams.operating import Operating, ShardOutbox
from streams.protocols import FatalError
from streams.settings import ClockKind, Settings

_LOOK_AGAIN = 0.1


@click.group()
def outbox() -> None:
    """See what waits to be published, and decide about falls that are held back."""


@outbox.command()
@settings_options("redis_url", "redis_prefix")
@json_option
def show(settings: Settings, as_json: bool) -> None:
    """Show each shard's outbox: what is not published yet, and whether publishing is paused, and why.

    Where more than KIZUNA_FALLS_LIMIT of a shard's customers fall within an hour, what comes from then on is held
    back until `kizuna outbox release` or `kizuna outbox drop`.
    """

    async def ask() -> list[ShardOutbox]:
        async with _operating(settings) as operating:
            return await operating.shards()

    shards = run(ask())
    if as_json:
        for shard in shards:
            print_json(_line(shard))
        return
    click.secho("shard  customers  falls  unpublished  publishing", dim=True)
    for shard in shards:
        click.echo(
            f"{shard.partition:>5}  {shard.customers:>9,}  {shard.falls:>5,}  {shard.unpublished:>11,}  {_told(shard)}"
        )
    paused = [shard for shard in shards if shard.held is not None]
    if paused:
        waiting = sum(shard.waiting for shard in paused)
        click.secho(
            f"{counted(len(paused), 'shard')} paused, {waiting:,} held back: kizuna outbox release, or drop",
            fg="yellow",
            err=True,
        )


def _line(shard: ShardOutbox) -> dict[str, Any]:
    return {
        "partition": shard.partition,
        "customers": shard.customers,
        "falls": shard.falls,
        "unpublished": shard.unpublished,
        "paused": shard.held is not None,
        "held_since": shard.held,
        "held_back": shard.waiting,
        "decision": shard.decision or None,
    }


def _told(shard: ShardOutbox) -> str:
    if shard.held is None:
        return click.style("goes on", fg="green")
    decided = f", decided: {shard.decision}" if shard.decision else ""
    since = f"since entry {shard.held:,}, {shard.waiting:,} held back{decided}"
    return f"{click.style('paused', fg='red', bold=True)} {since}"


_partition_option = click.option(
    "--partition",
    "partitions",
    type=click.IntRange(0),
    multiple=True,
    metavar="N",
    help="Of this shard only; may be given more than once. Default: every shard that is paused.",
)
_wait_option = click.option(
    "--wait",
    type=click.FloatRange(0),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait until workers have carried it out; 0 does not wait.",
)


@outbox.command()
@_partition_option
@_wait_option
@settings_options("redis_url", "redis_prefix")
@json_option
def release(settings: Settings, partitions: tuple[int, ...], wait: float, as_json: bool) -> None:
    """Publish what was held back, falls and all: it was meant so."""
    _decide(settings, "release", partitions, wait, as_json)


@outbox.command()
@click.option(
    "--keep-until",
    type=Until(),
    required=True,
    metavar="TIME",
    help="Until when those who fell keep their tier: a time, or how long from now, such as 30d.",
)
@_partition_option
@_wait_option
@settings_options("redis_url", "redis_prefix", "clock")
@json_option
def drop(
    settings: Settings, keep_until: int, partitions: tuple[int, ...], wait: float, as_json: bool
) -> None:
    """Withdraw the falls that were held back: it was a mistake.

    Who fell is as before, and keeps that tier at least until --keep-until: time to mend the cause. Then the tier
    falls, if it still is to. What was held back of others is published.
    """
    if settings.clock is ClockKind.WALL and keep_until <= time.time_ns() // 1_000_000:
        raise click.UsageError("--keep-until: expected a time that is still to come")
    _decide(settings, f"drop {keep_until}", partitions, wait, as_json)


@dataclass(frozen=True, slots=True)
class _Decided:
    """The shards of which it was decided, as they were before, and those that have not carried it out."""

    shards: list[ShardOutbox]
    open: list[int]


def _decide(
    settings: Settings, decision: str, partitions: tuple[int, ...], wait: float, as_json: bool
) -> None:
    async def decide() -> _Decided:
        async with _operating(settings) as operating:
            asked = _asked(await operating.shards(), partitions)
            decided = [shard for shard in asked if await operating.decide(shard.partition, decision)]
            if not decided:
                raise FatalError("nothing is paused any more")
            left = await _carried_out(operating, [shard.partition for shard in decided], wait)
            return _Decided(decided, left)

    found = run(decide())
    if as_json:
        for shard in found.shards:
            done = shard.partition not in found.open
            print_json({"partition": shard.partition, "decision": decision, "done": done})
    else:
        for shard in found.shards:
            _tell(shard, decision, shard.partition not in found.open)
    if found.open and wait:
        # Not by name where there are many: the list stands above.
        shards = "1 shard has" if len(found.open) == 1 else f"{len(found.open):,} shards have"
        raise click.ClickException(
            f"{shards} not carried it out within {wait:g} s: the decision stays, and a worker that holds the shard "
            "carries it out"
        )


def _asked(shards: list[ShardOutbox], partitions: tuple[int, ...]) -> list[ShardOutbox]:
    """The paused shards that are meant. Raises FatalError where there are none."""
    for partition in partitions:
        if partition >= len(shards):
            raise FatalError(f"there is no shard {partition}: the store has {len(shards)}, from 0 on")
    meant = [shard for shard in shards if not partitions or shard.partition in partitions]
    paused = [shard for shard in meant if shard.held is not None]
    if not paused:
        which = f" in shard {', '.join(map(str, sorted(set(partitions))))}" if partitions else ""
        raise FatalError(f"nothing is paused{which}")
    for shard in meant if partitions else ():
        if shard.held is None:
            click.secho(f"shard {shard.partition}: nothing is paused", fg="yellow", err=True)
    return paused


async def _carried_out(operating: Operating, partitions: list[int], wait: float) -> list[int]:
    """Wait for the workers; the shards whose decision is still there."""
    give_up_at = time.monotonic() + wait
    while True:
        # A shard that is paused anew has carried it out, too: then no decision is there.
        left = [s.partition for s in await operating.shards() if s.partition in partitions and s.decision]
        if not left or time.monotonic() >= give_up_at:
            return left
        await asyncio.sleep(_LOOK_AGAIN)


def _tell(shard: ShardOutbox, decision: str, done: bool) -> None:
    word, _, until = decision.partition(" ")
    entries = "1 entry" if shard.waiting == 1 else f"{shard.waiting:,} entries"
    what = f"{entries} released"
    if word == "drop":
        what = f"the falls among {entries} withdrawn, tiers kept until {format_ms(int(until))}"
    state = (
        click.style("done", fg="green") if done else click.style("decided, not yet carried out", fg="yellow")
    )
    click.echo(f"shard {shard.partition}: {what}: {state}")


@asynccontextmanager
async def _operating(settings: Settings) -> AsyncIterator[Operating]:
    operating = await Operating.open(settings)
    try:
        yield operating
    finally:
        await operating.close()
