"""`kizuna`, the one program."""

import importlib

import click

# Commands are imported when they are asked for: `kizuna --help` is quick, and needs no more than their names.
_COMMANDS = {
    "topics": ("cli.topics:topics", "Create and check the topics."),
    "worker": ("cli.worker:worker", "Run the pipeline."),
    "local": ("cli.local:local", "A Kafka and a Redis of your own, on this machine."),
}


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


@click.command(cls=_LazyGroup)
@click.version_option(package_name="kizuna")
def main() -> None:
    """Kizuna: customers' loyalty tiers from a stream of purchases and touchpoints."""
