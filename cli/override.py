"""`kizuna customer ID override`: somebody decides a customer's tier by hand, for a while."""

import getpass
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

import click

from cli.inspecting import inspecting
from cli.options import Instant, Until, json_option, print_json, settings_options
from cli.records import shown
from cli.running import run
from schemas.decoding import EventDecoder
from schemas.program import Program
from schemas.rejection import RejectedError
from schemas.times import format_ms
from streams.preflight import read_program
from streams.protocols import COMMANDS
from streams.settings import ClockKind, Settings

_SOURCE = "kizuna-cli"
_MODES = ("pin", "floor", "clear")


@click.command(short_help="Decide this customer's tier by hand, for a while.")
@click.argument("mode", type=click.Choice(_MODES), metavar="pin|floor|clear")
@click.argument("tier", required=False)
@click.option(
    "--until", type=Until(), metavar="TIME", help="Its end: a time, or how long from now, such as 30d."
)
@click.option("--actor", metavar="NAME", help="Who decided it. Default: the login name.")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for people.")
@click.option(
    "--at",
    type=Instant(),
    metavar="TIME",
    help="When it begins to hold. Default: now; in the event clock, the newest event of all shards.",
)
@settings_options("program", "brokers", "topic_prefix", "redis_url", "redis_prefix", "clock")
@json_option
@click.pass_obj
def override(
    customer_id: str,
    settings: Settings,
    mode: str,
    tier: str | None,
    until: int | None,
    actor: str | None,
    reason: str,
    at: int | None,
    as_json: bool,
) -> None:
    """Decide this customer's tier by hand: send an override, which holds from now on.

    pin TIER: this tier, whatever is earned. floor TIER: this tier at least. Both take --until. clear: nothing is
    held any more. A customer has one override at a time, the one that was decided last.
    """
    if mode == "clear" and (tier is not None or until is not None):
        raise click.UsageError("clear takes no TIER and no --until")
    if mode != "clear" and (tier is None or until is None):
        raise click.UsageError(f"{mode} takes a TIER and --until")
    program = read_program(settings.program)
    event = {
        "event_id": str(uuid.uuid4()),
        "source": _SOURCE,
        "type": "override",
        "customer_id": customer_id,
        "occurred_at": format_ms(_now(settings) if at is None else at),
        "mode": mode,
        **({} if until is None else {"tier": tier, "until": format_ms(until)}),
        "actor": _login() if actor is None else actor,
        "reason": reason,
    }
    topic, partition, offset = _sent(settings, program, event)
    if as_json:
        print_json({"topic": topic, "partition": partition, "offset": offset, "value": event})
    else:
        _print(event, f"{topic}[{partition}]@{offset}")


def _now(settings: Settings) -> int:
    if settings.clock is ClockKind.WALL:
        return time.time_ns() // 1_000_000
    # In a replay now is when its events are: today would move the customer beyond all of them.

    async def ask() -> int:
        async with inspecting(settings) as inspection:
            return await inspection.now()

    return run(ask())


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError) as error:
        raise click.UsageError("nobody is logged in: say --actor") from error


@dataclass(frozen=True, slots=True)
class _Command:
    """The record as a worker will find it."""

    value: bytes
    key: bytes
    timestamp: int
    headers: tuple[tuple[str, bytes | None], ...] = ()


def _sent(settings: Settings, program: Program, event: dict[str, Any]) -> tuple[str, int, int]:
    """Send it; where it stands in Kafka. Raises ClickException for what a worker would not take."""
    from cli.producing import abandon, check_topic, producer_of

    try:
        key = event["customer_id"].encode()
        value = json.dumps(event, ensure_ascii=False).encode()
        EventDecoder(program).command(_Command(value, key, time.time_ns() // 1_000_000))
    except UnicodeError as error:
        raise click.ClickException("expected Unicode text") from error
    except RejectedError as error:
        raise click.ClickException(error.detail) from error
    check_topic(settings, COMMANDS)
    producer = producer_of(settings)
    try:
        told = producer.send(settings.topic(COMMANDS), value=value, key=key).get()
    except BaseException:
        abandon(producer)
        raise
    producer.close()
    return told.topic, told.partition, told.offset


def _print(event: dict[str, Any], place: str) -> None:
    mode, customer_id = event["mode"], shown(event["customer_id"])
    tier = click.style(shown(event.get("tier")), fg="green", bold=True)
    if mode == "clear":
        click.echo(f"nothing is to hold customer {customer_id} by hand any more")
    else:
        least = "at least " if mode == "floor" else ""
        click.echo(f"customer {customer_id} is to be {least}{tier} until {event['until']}")
    by = f"by {shown(event['actor'])}: {shown(event['reason'])}; sent to {place} as {event['event_id']}"
    click.secho(by, dim=True)
