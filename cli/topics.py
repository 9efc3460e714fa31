"""`kizuna topics`: the topics of the contract."""

import click

from cli.options import Duration, json_option, print_json, settings_options
from streams.settings import Settings
from streams.topics import COPARTITIONED, DEFAULT_PARTITIONS, administration, describe, faults
from streams.topics import create as create_topics


@click.group()
def topics() -> None:
    """The topics that the pipeline reads and writes."""


@topics.command(short_help="Create what is missing, and check what is there.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help=f"Partitions of each topic, by which the work is shared; cannot be changed later. "
    f"Default: as the topics that are there, else {DEFAULT_PARTITIONS}.",
)
@click.option(
    "--replication",
    type=click.IntRange(1, 32),
    metavar="N",
    default=1,
    show_default=True,
    help="Brokers that keep a copy; 3 is usual in production.",
)
@click.option(
    "--retention",
    type=Duration(),
    metavar="DURATION",
    default=-1,
    help="How long inputs and tier-changes are kept, such as 500d; "
    "not shorter than the program's ledger. Default: for ever.",
)
@settings_options("brokers", "topic_prefix")
@json_option
def create(
    settings: Settings, partitions: int | None, replication: int, retention: int, as_json: bool
) -> None:
    """Create the topics that are missing, and check those that are there.

    Topics that are there are left as they are; what the worker would refuse is told.
    """
    with administration(settings) as admin:
        present = describe(admin, settings).partitions
        count = partitions or max(present.get(name, 0) for name in COPARTITIONED) or DEFAULT_PARTITIONS
        made = create_topics(admin, settings, count, replication, retention)
        cluster = describe(admin, settings)
    found = faults(cluster, settings, None)
    found += (
        f"topic {settings.topic(name)} has {cluster.partitions[name]} partitions, not {partitions}"
        for name in COPARTITIONED
        if partitions and cluster.partitions.get(name, partitions) != partitions
    )
    if as_json:
        print_json(
            {
                "created": [settings.topic(name) for name in made],
                "partitions": {settings.topic(name): n for name, n in sorted(cluster.partitions.items())},
                "faults": found,
            }
        )
    else:
        for name, number in sorted(cluster.partitions.items()):
            state = click.style("created", fg="green") if name in made else "there"
            click.echo(f"{settings.topic(name):32} {number:4} partitions  {state}")
    if found:
        raise click.ClickException("; ".join(found))
