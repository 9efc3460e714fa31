"""The way out: changes, dead letters and records to send on are published, shard by shard, as they are committed."""

from typing import cast

from streams.app import Pipeline
from streams.take_over import Reader


def join(pipeline: Pipeline) -> None:
    """Publish the outbox of every shard of this worker, take lost shards over again, and see that the inputs stay."""

    @pipeline.app.task
    async def outbox() -> None:
        await pipeline.shards.publish()

    @pipeline.app.task
    async def watch() -> None:
        await pipeline.shards.watch_inputs()

    @pipeline.app.task
    async def recover() -> None:
        await pipeline.shards.recover(cast(Reader, pipeline.app.consumer))
