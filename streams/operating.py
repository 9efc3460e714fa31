"""What an operator sees and decides of shards whose publishing is paused; their workers carry it out."""

from dataclasses import dataclass
from typing import Any, Self, cast

from redis.exceptions import RedisError

from streams.inspection import InspectionError
from streams.keys import ShardKeys
from streams.protocols import FatalError
from streams.redis_nodes import RedisNodes, connect, script_of
from streams.redis_store import answers, read_binding, script, shard_state
from streams.settings import Settings


@dataclass(frozen=True, slots=True)
class ShardOutbox:
    """One shard's outbox. `held`: publishing is paused behind this entry; None where it is not.

    `unpublished` are all entries that wait, `waiting` those of them behind `held`. `falls` were counted in the last
    hour that saw any, where a share of the shard's `customers` would pause publishing. `decision` is what an operator
    decided and no worker has carried out.
    """

    partition: int
    unpublished: int
    held: int | None
    waiting: int
    falls: int
    customers: int
    decision: str


class Operating:
    """The outboxes of one store. Open it with `open`, close it with `close`."""

    def __init__(self, settings: Settings, nodes: RedisNodes, partitions: int) -> None:
        self.partitions = partitions
        self._settings = settings
        self._nodes = nodes
        self._decide = script_of(script("decide"))

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Connect.

        Raises InspectionError where the store was never begun, FatalError where no Redis answers.
        """
        nodes = connect(settings.redis_url)
        try:
            redis = await nodes.of(0)
            held = await cast(Any, redis.hgetall(ShardKeys(settings.redis_prefix, 0).shard))
            if not held:
                raise InspectionError(
                    f"no worker has begun a store at {settings.redis_shown()} under prefix "
                    f"{settings.redis_prefix!r}"
                )
            return cls(settings, nodes, read_binding(held).partitions)
        except BaseException as error:
            await nodes.aclose()
            if isinstance(error, (RedisError, OSError)):
                raise FatalError(f"no Redis answers at {settings.redis_shown()}: {error}") from error
            raise

    async def close(self) -> None:
        """Close the connections."""
        await self._nodes.aclose()

    async def shards(self) -> list[ShardOutbox]:
        """Every shard's outbox, as it is now."""
        found: list[ShardOutbox] = []
        for partition in range(self.partitions):
            keys = self._keys(partition)
            with answers(self._nodes):
                # Together: an entry must not be counted that was published in between.
                redis = await self._nodes.of(partition)
                async with redis.pipeline(transaction=True) as pipeline:
                    pipe = cast(Any, pipeline)
                    pipe.hgetall(keys.shard)
                    pipe.llen(keys.outbox)
                    held, unpublished = await pipe.execute()
            state = shard_state(held)
            waiting = 0 if state.held is None else min(unpublished, state.outbox_last - state.held)
            decision = held.get(b"decision", b"").decode()
            falls = sum(state.falls.values())
            found.append(
                ShardOutbox(partition, unpublished, state.held, waiting, falls, state.customers, decision)
            )
        return found

    async def decide(self, partition: int, decision: str) -> bool:
        """Leave a decision (`release`, or `drop <epoch ms>`) for the shard's worker; False where nothing is paused."""
        with answers(self._nodes):
            keys = [self._keys(partition).shard]
            return bool(await self._nodes.run(self._decide, partition, keys, [decision]))

    def _keys(self, partition: int) -> ShardKeys:
        return ShardKeys(self._settings.redis_prefix, partition)
