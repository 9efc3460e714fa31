"""Time: at each interval every shard lets fall due what time alone brings, and asks whether it is still ours."""

from streams.app import Pipeline


def join(pipeline: Pipeline) -> None:
    """Sweep all shards of this worker."""

    @pipeline.app.timer(interval=pipeline.settings.sweep_interval, name="sweep")
    async def sweep() -> None:
        await pipeline.sweeper.sweep()
