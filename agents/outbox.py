"""The way out: changes, dead letters and records to send on are published, shard by shard, as they are committed."""

from streams.app import Pipeline


def join(pipeline: Pipeline) -> None:
    """Publish the outbox of every shard of this worker, and take lost shards over again."""

    @pipeline.app.task
    async def outbox() -> None:
        await pipeline.shards.publish()

    @pipeline.app.task
    async def recover() -> None:
        await pipeline.shards.recover(pipeline.app.consumer)
