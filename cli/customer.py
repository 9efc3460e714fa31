"""`kizuna customer`: one customer's state, why it is so, and deciding it by hand."""

from typing import Any

import click

from cli.inspecting import inspecting
from cli.options import as_of_option, json_option, print_json, settings_options
from cli.override import override
from cli.records import lasting, shown
from cli.running import run
from cli.why import why
from loyalty.views import CustomerView
from streams.settings import Settings


class _CustomerGroup(click.Group):
    """`ID`, and after it perhaps a command. Options may stand anywhere; those before the command are its own.

    What stands where the ID is expected is the ID, also the name of a command.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        leading, rest = self._options(ctx, args)
        if rest:
            between, more = self._options(ctx, rest[1:])
            if not more and between == ["--help"] and rest[0] in self.commands:
                return super().parse_args(ctx, ["--", "ID", rest[0], *between])
            if more and more[0] in self.commands:
                return super().parse_args(ctx, ["--", rest[0], more[0], *leading, *between, *more[1:]])
        ctx.allow_interspersed_args = True
        return super().parse_args(ctx, args)

    def _options(self, ctx: click.Context, args: list[str]) -> tuple[list[str], list[str]]:
        """The options at the beginning, with their values, and the rest from the first argument on."""
        options: list[click.Parameter] = [o for o in self.get_params(ctx) if isinstance(o, click.Option)]
        parser = click.Command(None, params=options, add_help_option=False).make_parser(ctx)
        _, rest, _ = parser.parse_args(list(args))
        found = args[: len(args) - len(rest)]
        return (found[:-1] if found[-1:] == ["--"] else found), rest

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "ID", "[COMMAND]"]


@click.group(cls=_CustomerGroup, invoke_without_command=True)
@click.argument("customer_id", metavar="ID")
@as_of_option
@settings_options("program", "redis_url", "redis_prefix", "clock")
@json_option
@click.pass_context
def customer(
    ctx: click.Context, settings: Settings, customer_id: str, as_of: int | None, as_json: bool
) -> None:
    """Show one customer: tier, what counts towards it, scores and contacts. Or ask why, or decide by hand."""
    if ctx.invoked_subcommand is not None:
        ctx.obj = customer_id
        return

    async def ask() -> tuple[CustomerView, dict[str, Any], str]:
        async with inspecting(settings) as inspection:
            view = await inspection.customer(customer_id, as_of)
            return view, inspection.line(view), inspection.program.currency

    view, line, currency = run(ask())
    if as_json:
        print_json(line)
    else:
        _print(view, line, currency)


customer.add_command(why)
customer.add_command(override)


def _segment(view: CustomerView) -> str:
    if view.segment is None:
        return "none yet"
    return f"{click.style(view.segment, bold=True)} (value {view.f + view.m} of 10, attachment {view.attachment:,})"


def _print(view: CustomerView, line: dict[str, Any], currency: str) -> None:
    last = "none counts"
    if view.last_purchase_at is not None:
        last = f"{line['last_purchase_at']}, {lasting(view.as_of - view.last_purchase_at)} before"
    changes = "no change yet" if not view.tier_seq else f"change {view.tier_seq}"
    for name, value in (
        ("customer", shown(view.customer_id)),
        ("as of", line["as_of"]),
        ("tier", f"{click.style(view.tier, bold=True, fg='green')} ({changes})"),
        ("orders", f"{view.frequency:,} in the window, {view.lifetime_orders:,} in all"),
        ("spent", f"{line['monetary']} {currency} in the window, {line['lifetime_monetary']} in all"),
        ("last order", last),
        ("scores", f"recency {view.r}, frequency {view.f}, monetary {view.m}"),
        *([("segment", _segment(view))] if view.has_segments else []),
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
