"""`kizuna local`: what a developer needs around the pipeline, on this machine."""

import json
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Never

import click


@click.group()
def local() -> None:
    """A Kafka and a Redis of your own, on this machine."""


@local.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the data here, and go on from them at the next start. [default: a temporary directory]",
)
@click.option(
    "--kafka-port",
    type=click.IntRange(0, 65535),
    default=9092,
    show_default=True,
    help="Kafka's port; 0 takes a free one.",
)
@click.option(
    "--redis-port",
    type=click.IntRange(0, 65535),
    default=6379,
    show_default=True,
    help="Redis' port; 0 takes a free one.",
)
@click.option(
    "--cluster",
    is_flag=True,
    help="A Redis Cluster of three primaries, on that port and the two that follow.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line when both are ready.")
def up(data_dir: Path | None, kafka_port: int, redis_port: int, cluster: bool, as_json: bool) -> None:
    """Start a real Kafka and a real Valkey on loopback, until Ctrl-C or SIGTERM.

    Prints their addresses, and `ready` when both answer.
    """
    from cli.local_stack import LocalStack, LocalStackError

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with LocalStack(data_dir, kafka_port, redis_port, cluster=cluster) as stack:
            if as_json:
                found = {
                    "brokers": stack.brokers,
                    "redis_url": stack.redis_url,
                    "data_dir": str(stack.data_dir),
                }
                click.echo(json.dumps(found))
            else:
                click.echo(f"KIZUNA_BROKERS={stack.brokers}\nKIZUNA_REDIS_URL={stack.redis_url}\nready")
            while True:
                stack.check()
                time.sleep(0.2)
    except LocalStackError as error:
        raise click.ClickException(str(error)) from error
    except _StopRequested:
        return


class _StopRequested(BaseException):
    """Ctrl-C or SIGTERM, at whatever point: on its way out it stops what was started."""


def _stop(signal_number: int, frame: FrameType | None) -> Never:
    # From here on everything is being stopped; a second signal must not break that off.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise _StopRequested
