"""`kizuna dead-letters`: what could not be used, and why."""

from collections import Counter

import click

from cli.letters import Choice, choice_options, chosen, letter_line, letter_text
from cli.options import counted, json_option, print_lines, settings_options
from cli.records import reading
from cli.replay import replay
from streams.settings import Settings
from streams.topics import DEAD_LETTERS


@click.group()
def dead_letters() -> None:
    """Look at the records that could not be used, and send them back after repair."""


dead_letters.add_command(replay)


@dead_letters.command("list")
@choice_options
@click.option("--limit", type=click.IntRange(1), metavar="N", help="End after so many.")
@settings_options("brokers", "topic_prefix")
@json_option
def list_(
    settings: Settings,
    choice: Choice,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show the dead letters that there are now: when, why, and where the original stands.

    Those of one partition come in order, the oldest first.
    """
    reasons: Counter[str] = Counter()
    text = letter_line if as_json else letter_text
    with reading(settings, DEAD_LETTERS) as reader:
        for letters in chosen(reader, reader.ends(), settings, choice):
            some = letters if limit is None else letters[: limit - reasons.total()]
            lines = [text(letter) for letter in some]
            reasons.update(letter.reason for letter in some)
            if as_json:
                print_lines(lines)
            elif lines:
                click.echo("\n".join(lines))
            if reasons.total() == limit:
                break
    if not as_json:
        told = ", ".join(f"{count:,} {name or 'without a reason'}" for name, count in reasons.most_common())
        found = counted(reasons.total(), "dead letter")
        click.secho(f"{found}{': ' if told else ''}{told}", dim=True, err=True)
