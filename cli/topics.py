"""`kizuna topics`: the topics of the contract."""

import click

from cli.options import Duration, json_option, print_json, settings_options
from streams.settings import Settings
from streams.topics import DEFAULT_PARTITIONS, administration, describe, faults
from streams.topics import create as create_topics


@click.group()
def topics() -> None:
    """The topics that the pipeline reads and writes."""


@topics.command()
@click.option("--partitions", type=click.IntRange(1, 10_000), default=DEFAULT_PARTITIONS, show_default=True)
@click.option("--replication", type=click.IntRange(1, 32), default=1, show_default=True)
@click.option(
    "--retention",
    type=Duration(),
    default=-1,
    help="How long inputs and tier-changes are kept, such as 500d; "
    "not shorter than the program's ledger. Default: for ever.",
)
@settings_options("brokers", "topic_prefix")
@json_option
def create(settings: Settings, partitions: int, replication: int, retention: int, as_json: bool) -> None:
    """Create the topics that are missing, and check those that are there."""
    with administration(settings) as admin:
        made = create_topics(admin, settings, partitions, replication, retention)
        cluster = describe(admin, settings)
    found = faults(cluster, settings, None)
    if as_json:
        print_json(
            {
                "created": [settings.topic(name) for name in made],
                "partitions": cluster.partitions,
                "faults": found,
            }
        )
    else:
        for name, count in sorted(cluster.partitions.items()):
            state = click.style("created", fg="green") if name in made else "there"
            click.echo(f"{settings.topic(name):32} {count:4} partitions  {state}")
    if found:
        raise click.ClickException("; ".join(found))
