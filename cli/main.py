"""`kizuna`, the one program."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

# Commands are imported when they are asked for: `kizuna --help` is quick, and needs no more than their names.
_COMMANDS = {
    "local": ("cli.local:local", "A Kafka and a Redis of your own, on this machine."),
    "topics": ("cli.topics:topics", "Create and check the topics."),
    "program": ("cli.program:program", "Check a program file, and move a store to it."),
    "worker": ("cli.worker:worker", "Run the pipeline."),
    "rebuild": ("cli.rebuild:rebuild", "Make the state anew from the log."),
    "publish": ("cli.publish:publish", "Send events from a file of JSON lines."),
    "tail": ("cli.tail:tail", "Follow a topic, such as tier-changes."),
    "customer": ("cli.customer:customer", "Show one customer, and why; decide its tier by hand."),
    "state": ("cli.state:state", "Show every customer."),
    "outbox": ("cli.outbox:outbox", "See what waits to be published, and decide about it."),
    "dead-letters": ("cli.dead_letters:dead_letters", "Look at what could not be used, and send it back."),
}

_FIRST_STEPS = (
    ("kizuna local up", "Kafka and Redis"),
    ("kizuna topics create", "in another terminal"),
    ("kizuna worker --program examples/grocery.toml", "in that terminal"),
    ("kizuna publish events.jsonl", "in a third one"),
    ("kizuna tail tier-changes --from-beginning", "what came of them"),
)

_INTERRUPTED = 130


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("First steps"):
            formatter.write_dl(_FIRST_STEPS, col_max=48)
        formatter.write_paragraph()
        formatter.write_text(
            "Settings come from flags, then from variables such as KIZUNA_BROKERS, KIZUNA_REDIS_URL and "
            "KIZUNA_PROGRAM, then from defaults. Each command's --help names its own."
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with _one_line():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            with _one_line():
                return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            # As a shell says that a program was ended by SIGINT.
            ctx.exit(_INTERRUPTED)


class _OneLineUsageError(click.ClickException):
    exit_code = click.UsageError.exit_code


@contextmanager
def _one_line() -> Iterator[None]:
    """A wrong use is told in one line too; no arguments at all still show the help."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        help_ = f" ({error.ctx.command_path} --help)" if error.ctx else ""
        raise _OneLineUsageError(f"{error.format_message().rstrip('.')}{help_}") from error


@click.command(cls=_LazyGroup)
@click.version_option(package_name="kizuna")
def main() -> None:
    """Kizuna: customers' loyalty tiers from a stream of purchases and touchpoints."""
