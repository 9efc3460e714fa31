"""`kizuna worker`: runs the pipeline."""

import asyncio
import gc
import logging
import sys
from typing import Any

import click
import faust

import agents
from streams import logs
from streams.app import Pipeline, build
from streams.preflight import prepare
from streams.protocols import FatalError
from streams.settings import Settings, SettingsError

log = logging.getLogger(__name__)


@click.command()
@click.option("--program", metavar="FILE", help="The program file (KIZUNA_PROGRAM).")
@click.option(
    "--web-port", type=int, help="Port of /metrics, /healthz, /readyz and /customers/<id> (KIZUNA_WEB_PORT)."
)
@click.option("--web-host", help="Address to bind them to (KIZUNA_WEB_HOST, default 127.0.0.1).")
@click.option(
    "--clock", type=click.Choice(["wall", "event"]), help="By which clock time falls due (KIZUNA_CLOCK)."
)
@click.option("--log-level", default="INFO", show_default=True, help="DEBUG, INFO, WARNING or ERROR.")
def worker(log_level: str, **flags: Any) -> None:
    """Run the pipeline until Ctrl-C or SIGTERM."""
    logs.configure(log_level)
    try:
        settings = Settings.read(**flags)
        pipeline = build(settings, *prepare(settings))
    except (FatalError, SettingsError) as error:
        raise click.ClickException(str(error)) from error
    agents.join(pipeline)
    # Decoded customers live long: the collector need not walk through them again and again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.exit(run(pipeline))


def run(pipeline: Pipeline) -> int:
    """Run until stopped; the exit status: 0 stopped, 1 something had to stop it."""
    process = faust.Worker(pipeline.app, override_logging=False, redirect_stdouts=False, quiet=True)
    try:
        process.execute_from_commandline()
    except SystemExit as ended:
        status = ended.code
    except (Exception, asyncio.CancelledError) as error:
        pipeline.failure = pipeline.failure or error
        status = 1
    if pipeline.failure is not None:
        return _told(pipeline.failure)
    return status if isinstance(status, int) else 0


def _told(failure: BaseException) -> int:
    if isinstance(failure, FatalError):
        click.secho(f"kizuna worker stops: {failure}", fg="red", err=True)
    else:
        log.critical("the worker stops on an error of its own", exc_info=failure)
    return 1
