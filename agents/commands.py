"""Customer commands, such as overrides: each message is a batch of one partition; its shard's lane does the work."""

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
