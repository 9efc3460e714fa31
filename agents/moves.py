"""A changed program: the customers of every shard are moved to it, bit by bit, beside what is read."""

from streams.app import Pipeline


def join(pipeline: Pipeline) -> None:
    """Move customers for as long as some are left."""

    @pipeline.app.task
    async def move() -> None:
        await pipeline.sweeper.move()
