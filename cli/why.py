"""`kizuna customer ID why`: the customer's tier explained, for whoever is asked about it."""

from typing import Any

import click
from rich.cells import cell_len

from cli.inspecting import inspecting
from cli.options import as_of_option, counted, json_option, print_json, settings_options
from cli.records import lasting, shown
from cli.running import run
from loyalty.why import Asked, Coming, Threshold, Why, why_line
from loyalty.why import Missing as Lack
from schemas.money import format_minor
from schemas.times import format_ms
from streams.settings import Settings

_MOST_ORDERS = 20

_PROTECTED = {
    "program_change": ", since the program changed",
    "override": ", since its fall was withdrawn",
}
_NAMES = {"monetary": "spent", "frequency": "orders", "recency": "last order"}


@click.command(short_help="Explain this customer's tier.")
@as_of_option
@settings_options("program", "redis_url", "redis_prefix", "clock")
@json_option
@click.pass_obj
def why(customer_id: str, settings: Settings, as_of: int | None, as_json: bool) -> None:
    """Show why this customer has its tier: what counts, what is missing, what holds it, and what comes next."""

    async def ask() -> Why:
        async with inspecting(settings) as inspection:
            return await inspection.why(customer_id, as_of)

    found = run(ask())
    if as_json:
        print_json(why_line(found))
    else:
        click.echo("\n".join(_text(found)))


def _text(found: Why) -> list[str]:
    lines = [
        _row("customer", shown(found.customer_id)),
        _row("as of", format_ms(found.as_of)),
        *_tiers(found),
    ]
    if found.retain.thresholds:
        lines += ["", _heading(f"to keep {found.earned}"), *_thresholds(found, found.retain)]
        lines += _staying(found)
    if found.enter is not None and found.missing is not None:
        lines += ["", _heading(f"to reach {found.enter.tier}"), *_thresholds(found, found.enter)]
        lines.append(_note(_reaching(found, found.enter, found.missing)))
    return [*lines, "", *_coming(found.next), "", *_orders(found)]


def _tiers(found: Why) -> list[str]:
    changes = "no change yet" if not found.tier_seq else f"change {found.tier_seq}"
    risk = (
        "" if found.at_risk_until is None else f", {_warned('at risk')} until {_second(found.at_risk_until)}"
    )
    lines = [_row("tier", f"{click.style(shown(found.tier), bold=True, fg='green')} ({changes}){risk}")]
    if (held := found.override) is not None:
        least = "at least " if held.mode == "floor" else ""
        lines += [
            _row("by hand", f"{held.mode}: {least}{shown(held.tier)} until {_second(held.until)}"),
            _row("", click.style(f"{shown(held.actor)}: {shown(held.reason)}", dim=True)),
        ]
    if (kept := found.protection) is not None:
        because = _PROTECTED.get(kept.reason, "")
        lines.append(_row("protected", f"at least {shown(kept.tier)} until {_second(kept.until)}{because}"))
    if found.override is not None or found.protection is not None:
        grace = "" if found.grace_until is None else f", kept in grace until {_second(found.grace_until)}"
        lines.append(_row("earned", f"{shown(found.earned)}{grace}"))
    lines.append(_row("program", f"{found.program}, version {found.version}"))
    return lines


def _thresholds(found: Why, asked: Asked) -> list[str]:
    """A line for each, in columns: what it is, what there is, what it takes, and until when that is so."""
    rows = [
        (
            _NAMES[one.name],
            _value(found, one, one.has),
            f"of {_value(found, one, one.needs)}"
            if one.name != "recency"
            else f"under {_briefly(one.needs)}",
            "" if one.until is None else f"until {_second(one.until)}",
        )
        for one in asked.thresholds
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"  {_mark(one.holds)} {row[0]:<12}{row[1]:>{widths[1]}} {row[2]:<{widths[2]}}  {_dim(row[3])}".rstrip()
        for one, row in zip(asked.thresholds, rows, strict=True)
    ]


def _value(found: Why, one: Threshold, amount: int | None) -> str:
    if amount is None:
        return "none"
    if one.name == "monetary":
        return f"{format_minor(amount, found.decimals)} {found.currency}"
    return f"{amount:,}" if one.name == "frequency" else _briefly(amount)


def _staying(found: Why) -> list[str]:
    if found.needed is not None:
        until = "" if found.grace_until is None else f" before {_second(found.grace_until)}"
        return [_note(f"to stay: {_lack(found, found.needed)}{until}")]
    if (lost := found.retain.lost_first) is not None:
        names = " and ".join(_NAMES[name] for name in lost[0])
        return [_note(f"lost first: {names}, at {_second(lost[1])}, if nothing more arrives")]
    return []


def _reaching(found: Why, asked: Asked, missing: Lack) -> str:
    if not asked.failing:
        return "nothing is missing: the next purchase raises to it"
    return f"missing: {_lack(found, missing)}"


def _lack(found: Why, missing: Lack) -> str:
    parts = []
    if missing.monetary:
        parts.append(f"{format_minor(missing.monetary, found.decimals)} {found.currency}")
    if missing.frequency:
        parts.append(counted(missing.frequency, "order"))
    if missing.recency is not None:
        parts.append(f"an order less than {_briefly(missing.recency)} ago")
    return ", ".join(parts) or "nothing"


def _coming(records: tuple[Coming, ...]) -> list[str]:
    if not records:
        return [_row("next", "time alone changes nothing")]
    lines: list[str] = []
    for record in records:
        if record.kind == "changed":
            told = (
                f"{shown(record.previous_tier)} → {click.style(shown(record.tier), fg='yellow', bold=True)}"
            )
        elif record.kind == "at-risk":
            until = "" if record.at_risk_until is None else f" until {_second(record.at_risk_until)}"
            told = f"{shown(record.tier)} {_warned('at risk')}{until}"
        else:
            told = f"{shown(record.tier)} retained"
        lines.append(
            _row("" if lines else "next", f"{_second(record.at)}  {told}  {_dim(record.reason)}".rstrip())
        )
    return lines


def _orders(found: Why) -> list[str]:
    orders = found.orders
    if not orders:
        return [_row("orders", "none counts")]
    spent = f"{format_minor(found.monetary, found.decimals)} {found.currency}"
    lines = [_row("orders", f"{len(orders):,} count, {spent}")]
    ids = [shown(order.order_id, 32) for order in orders[:_MOST_ORDERS]]
    width = max(len("order"), *map(cell_len, ids))
    lines.append(_dim(f"  {'bought':<20}  {'order':<{width}}  {'net':>12}  leaves"))
    for name, order in zip(ids, orders, strict=False):
        net = format_minor(order.net, found.decimals)
        refunded = f"  {format_minor(order.refunded, found.decimals)} refunded" if order.refunded else ""
        padded = name + " " * (width - cell_len(name))
        lines.append(
            f"  {_second(order.time)}  {padded}  {net:>12}  {_second(order.leaves_at)}{_dim(refunded)}"
        )
    if len(orders) > _MOST_ORDERS:
        lines.append(_dim(f"  and {len(orders) - _MOST_ORDERS:,} newer ones (--json shows all)"))
    return lines


def _briefly(ms: int) -> str:
    return lasting(ms).removesuffix(" 0h")


def _second(at: int) -> str:
    return f"{format_ms(at)[:19]}Z"


def _row(name: str, value: str) -> str:
    return f"{click.style(f'{name:<12}', dim=True)}{value}".rstrip()


def _heading(text: str) -> str:
    return click.style(shown(text), bold=True)


def _note(text: str) -> str:
    return f"  {text}"


def _mark(holds: bool) -> str:
    return click.style("✓", fg="green") if holds else click.style("✗", fg="red")


def _warned(text: str) -> str:
    return click.style(text, fg="yellow")


def _dim(text: Any) -> str:
    return click.style(str(text), dim=True) if text else ""
