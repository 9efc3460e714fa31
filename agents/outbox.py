"""The way out: changes, dead letters and records to send on are published, shard by shard, as they are committed."""

from typing import cast

from streams.app import Pipeline
from streams.shards import Reader


def join(pipeline: Pipeline) -> None:
    """Publish the outbox of every shard of this worker, and take lost shards over again."""

    @pipeline.app.task
    async def outbox() -> None:
        await pipeline.shards.publish()

    @pipeline.app.task
    async def recover() -> None:
        await pipeline.shards.recover(cast(Reader, pipeline.app.consumer))
