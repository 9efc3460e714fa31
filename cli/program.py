"""`kizuna program`: the program file."""

from typing import Any

import click

from cli.options import json_option, print_json
from schemas.money import format_minor
from schemas.program import Program, ProgramError, load_program
from schemas.times import DAY, HOUR, MINUTE, SECOND, format_ms


@click.group()
def program() -> None:
    """The program file: currency, windows, tiers and scores."""


@program.command()
@click.argument("file", metavar="FILE")
@json_option
def check(file: str, as_json: bool) -> None:
    """Check FILE as the worker would, and show what it means.

    Its version is a hash of that meaning. A store that was built with another version refuses the worker.
    """
    try:
        found = _told(load_program(file))
    except ProgramError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        print_json(found)
    else:
        _print(found)


def _told(program: Program) -> dict[str, Any]:
    """The program in the terms of its file, defaults spelt out, null where nothing is asked."""

    def money(amount: int) -> str:
        return format_minor(amount, program.decimals)

    return {
        "id": program.id,
        "version": program.version,
        "currency": program.currency,
        "timezone": program.timezone,
        "window": _duration(program.window),
        "contact_window": f"{program.contact_days}d",
        "ledger": _duration(program.ledger),
        "allowed_lateness": _duration(program.allowed_lateness),
        "max_future": _duration(program.max_future),
        "publish_from": None if program.publish_from is None else format_ms(program.publish_from),
        "rates": {code: format(rate, "f") for code, rate in program.rates.items()},
        "tiers": [
            {
                "name": tier.name,
                "min_monetary": money(tier.min_monetary) if tier.min_monetary else None,
                "min_frequency": tier.min_frequency or None,
                "max_recency": None if tier.max_recency is None else _duration(tier.max_recency),
            }
            for tier in program.tiers
        ],
        "scores": {
            "recency_days": [cut // DAY for cut in program.scores.recency],
            "frequency": list(program.scores.frequency),
            "monetary": [money(cut) for cut in program.scores.monetary],
        },
    }


def _print(found: dict[str, Any]) -> None:
    for name in ("id", "version", "currency", "timezone", "window", "contact_window", "ledger"):
        click.echo(_line(name, found[name]))
    for name in ("allowed_lateness", "max_future", "publish_from"):
        click.echo(_line(name, found[name] or "not set: every change is published"))
    for code, rate in found["rates"].items():
        click.echo(_line("rate", f"1 {code} = {rate} {found['currency']}"))
    for tier in found["tiers"]:
        click.echo(_line("tier", f"{click.style(tier['name'], bold=True)}{_asks(tier, found['currency'])}"))
    for name, cuts in found["scores"].items():
        click.echo(_line("score", f"{name} {', '.join(map(str, cuts))}"))
    click.secho("the program is valid", fg="green", err=True)


def _asks(tier: dict[str, Any], currency: str) -> str:
    asked = [
        *([f"at least {tier['min_monetary']} {currency}"] if tier["min_monetary"] else []),
        *([f"at least {tier['min_frequency']} orders"] if tier["min_frequency"] else []),
        *([f"the last order less than {tier['max_recency']} ago"] if tier["max_recency"] else []),
    ]
    return f": {', '.join(asked)}" if asked else ": everyone"


def _line(name: str, value: str) -> str:
    return f"{click.style(f'{name:<17}', dim=True)}{value}"


def _duration(ms: int) -> str:
    """The duration in its largest whole unit, as the file takes it."""
    for unit, length in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        if ms and ms % length == 0:
            return f"{ms // length}{unit}"
    return f"{ms}ms" if ms else "0s"
