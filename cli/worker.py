"""`kizuna worker`: runs the pipeline."""

import asyncio
import gc
import logging
import sys

import click
import faust
from mode.loop import use as use_event_loop

import agents
from cli.options import settings_options
from schemas import compiled
from streams import logs
from streams.app import Pipeline, build
from streams.preflight import prepare
from streams.protocols import FatalError, MovedOnError
from streams.settings import Settings

log = logging.getLogger(__name__)

#: Seconds for which a thread may run while another waits; Python's own 5 ms are half of what a question may take.
_SWITCH_SECONDS = 0.0005


@click.command()
@settings_options(
    *("program", "brokers", "topic_prefix", "redis_url", "redis_prefix"),
    *("clock", "group", "web_host", "web_port"),
)
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
    help="From which level on this project's own lines are logged, on standard error.",
)
def worker(settings: Settings, log_level: str) -> None:
    """Run the pipeline until Ctrl-C or SIGTERM."""
    logs.configure(log_level)
    use_event_loop("uvloop")
    log.info(
        "the rules are %s", "compiled" if compiled.is_at_work() else "plain Python, some two times slower"
    )
    pipeline = build(settings, *prepare(settings))
    agents.join(pipeline)
    # Decoded customers live long: the collector need not walk through them again and again. What only it can free are
    # some hundred objects in a hundred thousand events.
    gc.freeze()
    gc.set_threshold(1_000_000, 20, 100)
    # The thread that reads gives way sooner to the one that works and answers, which waits for it at every turn.
    sys.setswitchinterval(_SWITCH_SECONDS)
    sys.exit(run(pipeline))


def run(pipeline: Pipeline) -> int:
    """Run until stopped; the exit status.

    0: it was stopped, or gave way as the store went over to another version of the program. 1: something had to
    stop it.
    """
    process = faust.Worker(pipeline.app, override_logging=False, redirect_stdouts=False, quiet=True)
    process.spinner = None  # it would write control characters into a log
    try:
        process.execute_from_commandline()
    except SystemExit as ended:
        status = ended.code
    except (Exception, asyncio.CancelledError) as error:
        pipeline.failure = pipeline.failure or error
        status = 1
    if isinstance(pipeline.failure, MovedOnError) and pipeline.shards.epoch:
        click.secho(f"kizuna worker gives way: {pipeline.failure}", fg="yellow", err=True)
        return 0
    if pipeline.failure is not None:
        return _told(pipeline.failure)
    return status if isinstance(status, int) else 0


def _told(failure: BaseException) -> int:
    if isinstance(failure, FatalError):
        click.secho(f"kizuna worker stops: {failure}", fg="red", err=True)
    else:
        log.critical("the worker stops on an error of its own", exc_info=failure)
    return 1
