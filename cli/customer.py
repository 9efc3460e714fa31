"""`kizuna customer`: one customer's state."""

from typing import Any

import click

from cli.inspecting import inspecting
from cli.options import as_of_option, json_option, print_json, settings_options
from cli.records import shown
from cli.running import run
from loyalty.views import CustomerView
from schemas.times import DAY, HOUR, MINUTE, SECOND
from streams.settings import Settings


@click.command()
@click.argument("customer_id", metavar="ID")
@as_of_option
@settings_options("program", "redis_url", "redis_prefix", "clock")
@json_option
def customer(settings: Settings, customer_id: str, as_of: int | None, as_json: bool) -> None:
    """Show one customer: tier, what counts towards it, scores and contacts."""

    async def ask() -> tuple[CustomerView, dict[str, Any], str]:
        async with inspecting(settings) as inspection:
            view = await inspection.customer(customer_id, as_of)
            return view, inspection.line(view), inspection.program.currency

    view, line, currency = run(ask())
    if as_json:
        print_json(line)
    else:
        _print(view, line, currency)


def _print(view: CustomerView, line: dict[str, Any], currency: str) -> None:
    last = "none counts"
    if view.last_purchase_at is not None:
        last = f"{line['last_purchase_at']}, {_ago(view.as_of - view.last_purchase_at)} before"
    changes = "no change yet" if not view.tier_seq else f"change {view.tier_seq}"
    for name, value in (
        ("customer", shown(view.customer_id)),
        ("as of", line["as_of"]),
        ("tier", f"{click.style(view.tier, bold=True, fg='green')} ({changes})"),
        ("orders", f"{view.frequency:,} in the window, {view.lifetime_orders:,} in all"),
        ("spent", f"{line['monetary']} {currency} in the window, {line['lifetime_monetary']} in all"),
        ("last order", last),
        ("scores", f"recency {view.r}, frequency {view.f}, monetary {view.m}"),
    ):
        click.echo(f"{click.style(f'{name:<12}', dim=True)}{value}")
    if not view.contacts:
        click.echo(f"{click.style('contacts    ', dim=True)}none in the contact window")
        return
    channels = {shown(channel): counts for channel, counts in view.contacts.items()}
    width = max(len("contacts"), *map(len, channels)) + 3
    click.secho(f"{'contacts':<{width}}{'inbound':>8}{'outbound':>10}", dim=True)
    for channel, counts in channels.items():
        click.echo(f"{channel:<{width}}{counts.inbound:>8,}{counts.outbound:>10,}")


def _ago(ms: int) -> str:
    """A duration in its two largest units."""
    parts: list[str] = []
    for unit, length in (("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)):
        count, ms = divmod(ms, length)
        if count or parts or unit == "s":
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
