"""Customer commands: none is known yet, so that every record becomes a dead letter with its reason."""

from typing import Any

from streams.app import Pipeline
from streams.protocols import COMMANDS


def join(pipeline: Pipeline) -> None:
    """Read the customer-commands topic."""

    @pipeline.app.agent(pipeline.topic(COMMANDS), name=COMMANDS)
    async def commands(stream: Any) -> None:
        # noack: a batch is acknowledged when it is committed, not when the next one is asked for.
        async for event in stream.noack().events():
            pipeline.shards.hand(event.value, event.ack)
