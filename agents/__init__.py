"""The Faust agents: they join what Faust brings to the plumbing, and decide nothing."""

from agents import commands, moves, outbox, pages, purchases, sweep, touchpoints
from streams.app import Pipeline

#: Named here one by one: autodiscovery would turn an import error into a warning.
ALL = (purchases, touchpoints, commands, sweep, moves, outbox, pages)


def join(pipeline: Pipeline) -> None:
    """Join every agent, timer, task and page to the pipeline's app."""
    for module in ALL:
        module.join(pipeline)
