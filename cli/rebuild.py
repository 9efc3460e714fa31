"""`kizuna rebuild`: makes the state anew from the log."""

import sys
from typing import TYPE_CHECKING, Any

import click

from cli.options import counted, json_option, print_json, settings_options
from cli.progress import steps
from cli.running import run
from streams.settings import Settings

if TYPE_CHECKING:
    from streams.rebuild import Result, Survey


@click.command(short_help="Make the state anew from the log, for a lost store or more partitions.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--accept-missing",
    is_flag=True,
    help="Go on where the log does not hold all that was counted: what is gone is not counted any more, and what was "
    "told of customers stays.",
)
@settings_options("program", "brokers", "topic_prefix", "redis_url", "redis_prefix", "group")
@json_option
def rebuild(settings: Settings, dry_run: bool, yes: bool, accept_missing: bool, as_json: bool) -> None:
    """Make the state anew from the whole log, and put it in the place of what Redis holds.

    It is the way out of an emptied Redis, and the way to more partitions. What was published is not published again:
    tiers and their numbers are taken over from the output. Workers that are at work go on meanwhile, and wait while
    the stores are switched.

    It may be broken off at any time: run it again. The memory of a second store is needed until it is done.
    """
    from streams.preflight import read_program
    from streams.rebuild import Rebuild

    program = read_program(settings.program)

    async def work() -> "tuple[Survey, Result | None]":
        rebuilding = await Rebuild.open(settings, program)
        try:
            found = await rebuilding.survey()
            if not as_json:
                _show(found)
            if dry_run:
                return found, None
            _agree(found, yes, accept_missing)
            with steps() as progress:
                return found, await rebuilding.run(accept_missing, progress)
        finally:
            await rebuilding.close()

    found, result = run(work())
    if as_json:
        print_json(_line(found, result))
    elif result is None:
        click.secho("nothing was changed", dim=True, err=True)
    else:
        _told(result)


def _agree(found: "Survey", yes: bool, accept_missing: bool) -> None:
    if found.gone and not accept_missing:
        (topic, partition), at = next(iter(found.gone.items()))
        raise click.ClickException(
            f"the log does not reach back to its beginning ({topic}-{partition} begins at {at}): lifetime counts, and "
            "what else comes of the records before, cannot be made anew; --accept-missing goes on without them"
        )
    if found.remade and not accept_missing:
        raise click.ClickException(
            f"{', '.join(found.remade)} was deleted and made anew: what stood in it before cannot be counted anew; "
            "--accept-missing goes on without it"
        )
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.ClickException("what Redis holds will be replaced: --yes says that it is meant so")
    click.confirm("Replace what Redis holds?", abort=True, err=True)


def _line(found: "Survey", result: "Result | None") -> dict[str, Any]:
    return {
        "partitions": found.partitions,
        "partitions_before": found.partitions_before,
        "customers_before": found.customers_before,
        "positions": found.positions,
        "members": found.members,
        "gone": {f"{topic}-{partition}": at for (topic, partition), at in found.gone.items()},
        "remade": found.remade,
        "interrupted": found.step,
        "done": result is not None,
        **({} if result is None else _numbers(result)),
    }


def _numbers(result: "Result") -> dict[str, Any]:
    if result.resumed:
        return {"resumed": True}
    return {
        "resumed": False,
        "customers": result.customers,
        "counted": result.counted,
        "duplicates": result.duplicates,
        "adopted": result.adopted,
        "unpublished": result.unpublished,
        "paused": result.paused,
    }


def _show(found: "Survey") -> None:
    click.echo(f"log: {found.positions:,} positions in {found.partitions} partitions of each input")
    if found.step is not None:
        click.secho(f"a rebuild was broken off: it was {found.step}", fg="yellow")
    if found.partitions_before is None:
        click.echo("store: there is none" if found.step is None else "store: the new one, in part")
    else:
        click.echo(
            f"store: {counted(found.customers_before, 'customer')} in {found.partitions_before} partitions"
        )
    click.echo(f"group: {counted(found.members, 'member')}")
    for (topic, partition), at in found.gone.items():
        click.secho(f"{topic}-{partition} begins at {at:,}: records before are gone", fg="yellow")


def _told(result: "Result") -> None:
    if result.resumed:
        click.secho("the switch that was broken off is done: workers may start", fg="green", err=True)
        return
    duplicates = f", {counted(result.duplicates, 'duplicate')}" if result.duplicates else ""
    click.echo(
        f"{counted(result.customers, 'customer')} of {counted(result.counted, 'event')}{duplicates}; "
        f"{result.adopted:,} stand as was told, {counted(result.unpublished, 'record')} to be published"
    )
    for partition in result.paused:
        click.secho(
            f"shard {partition}: more of its customers fall than are allowed, publishing is paused: "
            "kizuna outbox release, or drop",
            fg="yellow",
        )
    click.secho("the state is rebuilt: workers may start", fg="green", err=True)
