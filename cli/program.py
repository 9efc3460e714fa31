"""`kizuna program`: the program file."""

from typing import Any

import click

from cli.apply import apply
from cli.options import json_option, print_json
from cli.program_bonds import bonds_lines, bonds_told, duration
from cli.records import shown
from schemas.money import format_minor
from schemas.program import Program, ProgramError, load_program
from schemas.times import DAY, format_ms


@click.group()
def program() -> None:
    """The program file: currency, windows, tiers and scores."""


program.add_command(apply)


@program.command()
@click.argument("file", metavar="FILE")
@json_option
def check(file: str, as_json: bool) -> None:
    """Check FILE as the worker would, and show what it means.

    Its version is a hash of that meaning. A store that is on another version refuses the worker, until
    `kizuna program apply` has moved it.
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

    told = {
        "id": program.id,
        "version": program.version,
        "currency": program.currency,
        "timezone": program.timezone,
        "window": duration(program.window),
        "contact_window": f"{program.contact_days}d",
        "ledger": duration(program.ledger),
        "allowed_lateness": duration(program.allowed_lateness),
        "max_future": duration(program.max_future),
        "publish_from": None if program.publish_from is None else format_ms(program.publish_from),
        "protect_until": None if program.protect_until is None else format_ms(program.protect_until),
        "rates": {code: format(rate, "f") for code, rate in program.rates.items()},
        "tiers": [
            {
                "name": tier.name,
                "min_monetary": money(tier.min_monetary) if tier.min_monetary else None,
                "min_frequency": tier.min_frequency or None,
                "max_recency": None if tier.max_recency is None else duration(tier.max_recency),
                "retain_monetary": money(tier.stays_at[0]) if tier.stays_at[0] else None,
                "retain_frequency": tier.stays_at[1] or None,
                "grace_period": duration(tier.grace_period),
                "downgrade": tier.downgrade,
                "refund_policy": tier.refund_policy,
                "benefits": list(tier.benefits),
            }
            for tier in program.tiers
        ],
        "scores": {
            "recency_days": [cut // DAY for cut in program.scores.recency],
            "frequency": list(program.scores.frequency),
            "monetary": [money(cut) for cut in program.scores.monetary],
        },
    }
    return told if program.bonds is None else told | {"bonds": bonds_told(program, program.bonds)}


def _print(found: dict[str, Any]) -> None:
    for name in ("id", "version", "currency", "timezone", "window", "contact_window", "ledger"):
        click.echo(_line(name, found[name]))
    for name in ("allowed_lateness", "max_future", "publish_from"):
        click.echo(_line(name, found[name] or "not set: every change is published"))
    if found["protect_until"] is not None:
        click.echo(_line("protect_until", found["protect_until"]))
    for code, rate in found["rates"].items():
        click.echo(_line("rate", f"1 {code} = {rate} {found['currency']}"))
    for tier in found["tiers"]:
        click.echo(_line("tier", f"{click.style(tier['name'], bold=True)}{_asks(tier, found['currency'])}"))
        for told in _keeping(tier, found["currency"]):
            click.echo(_line("", told))
    for name, cuts in found["scores"].items():
        click.echo(_line("score", f"{name} {', '.join(map(str, cuts))}"))
    for name, line in bonds_lines(found["bonds"]) if "bonds" in found else ():
        click.echo(_line(name, line))
    click.secho("the program is valid", fg="green", err=True)


def _asks(tier: dict[str, Any], currency: str) -> str:
    asked = [
        *([f"at least {tier['min_monetary']} {currency}"] if tier["min_monetary"] else []),
        *([f"at least {tier['min_frequency']} orders"] if tier["min_frequency"] else []),
        *([f"the last order less than {tier['max_recency']} ago"] if tier["max_recency"] else []),
    ]
    return f": {', '.join(asked)}" if asked else ": everyone"


def _keeping(tier: dict[str, Any], currency: str) -> list[str]:
    """What it takes to stay, where that is less than to enter; how one falls; what the tier gives."""
    told = []
    stays = {f"min_{name}": tier[f"retain_{name}"] for name in ("monetary", "frequency")}
    if any(tier[name] != stay for name, stay in stays.items()):
        asked = stays | {"max_recency": tier["max_recency"]}
        told.append(f"to stay{_asks(asked, currency) if any(asked.values()) else ': nothing'}")
    falls = [
        *([f"{tier['grace_period']} of grace"] if tier["grace_period"] != "0s" else []),
        *([_FALLS[tier["downgrade"]]] if tier["downgrade"] != "requalify" else []),
        *(["refunds are given grace, too"] if tier["refund_policy"] == "grace" else []),
    ]
    if falls:
        told.append(f"who no longer qualifies: {', '.join(falls)}")
    if tier["benefits"]:
        told.append(f"gives: {', '.join(map(shown, tier['benefits']))}")
    return told


_FALLS = {"one_down": "then down one tier", "base": "then down to the first tier"}


def _line(name: str, value: str) -> str:
    return f"{click.style(f'{name:<17}', dim=True)}{value}"
