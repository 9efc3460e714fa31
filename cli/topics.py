"""`kizuna topics`: the topics of the contract."""

import click
from kafka import KafkaAdminClient

from cli.options import Duration, counted, json_option, print_json, settings_options
from streams.protocols import FatalError
from streams.settings import Settings
from streams.topics import (
    BOND_TOPICS,
    COPARTITIONED,
    DEFAULT_PARTITIONS,
    administration,
    describe,
    faults,
    members,
)
from streams.topics import create as create_topics

#: Topics of as many partitions as each other, where they are there.
_TOGETHER = (*COPARTITIONED, *BOND_TOPICS)


@click.group()
def topics() -> None:
    """The topics that the pipeline reads and writes."""


@topics.command(short_help="Create what is missing, and check what is there.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help=f"Partitions of each topic, by which the work is shared; more of them later take a rebuild. "
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
    help="How long inputs, tier-changes and what is told of bonds are kept, such as 500d; "
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
        count = partitions or max(present.get(name, 0) for name in _TOGETHER) or DEFAULT_PARTITIONS
        made = create_topics(admin, settings, count, replication, retention)
        cluster = describe(admin, settings)
    found = faults(cluster, settings, None)
    found += (
        f"topic {settings.topic(name)} has {cluster.partitions[name]} partitions, not {partitions}"
        for name in _TOGETHER
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


@topics.command("add-partitions", short_help="Give the topics more partitions; a rebuild must follow.")
@click.argument("partitions", type=click.IntRange(2, 10_000), metavar="N")
@click.option("--yes", is_flag=True, help="Although workers are at work.")
@settings_options("brokers", "topic_prefix", "group")
@json_option
def add_partitions(settings: Settings, partitions: int, yes: bool, as_json: bool) -> None:
    """Give the inputs and the outputs N partitions each, more than they have.

    Customers then belong to other partitions, and no worker starts before `kizuna rebuild` has made the state anew
    for them. There is no way back to fewer.
    """
    with administration(settings) as admin:
        at_work = members(admin, settings.group)
        if at_work and not yes:
            raise click.ClickException(
                f"group {settings.group} has {counted(at_work, 'member')}: stop the workers first, then run "
                "`kizuna rebuild`; --yes goes on all the same"
            )
        grown, together = _grow(admin, settings, partitions)
    if as_json:
        print_json({"partitions": partitions, "grown": [settings.topic(name) for name in grown]})
        return
    for name in together:
        state = click.style("grown", fg="green") if name in grown else "there"
        click.echo(f"{settings.topic(name):32} {partitions:4} partitions  {state}")
    click.secho("run `kizuna rebuild` before any worker", fg="yellow", err=True)


def _grow(admin: KafkaAdminClient, settings: Settings, partitions: int) -> tuple[list[str], list[str]]:
    """Give the topics that belong together so many partitions; the contract's names of those that had fewer, and of
    all. Those of bonds are left out where they are not there: not every program writes them.

    Raises FatalError where one is missing or has more.
    """
    present = describe(admin, settings).partitions
    missing = [settings.topic(name) for name in COPARTITIONED if name not in present]
    if missing:
        raise FatalError(f"topics are missing: {', '.join(missing)} (kizuna topics create)")
    together = [name for name in _TOGETHER if name in present]
    for name in together:
        if present[name] > partitions:
            raise FatalError(
                f"topic {settings.topic(name)} has {present[name]} partitions: there is no way to fewer"
            )
    grown = [name for name in together if present[name] < partitions]
    if grown:
        admin.create_partitions({settings.topic(name): partitions for name in grown})
    return grown, together
