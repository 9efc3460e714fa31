"""The names of a shard's keys. All of shard p stand under the hash tag {p}, so that one script may touch them all."""

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class ShardKeys:
    """The keys of one shard under one prefix."""

    prefix: str
    partition: int

    @cached_property
    def _tag(self) -> str:
        return f"{self.prefix}:{{{self.partition}}}:"

    @cached_property
    def shard(self) -> str:
        """Hash: owner, version, watermarks, binding."""
        return self._tag + "shard"

    @cached_property
    def due(self) -> str:
        """Sorted set: customer id by the instant when time alone next changes its tier."""
        return self._tag + "due"

    @cached_property
    def outbox(self) -> str:
        """List: what is committed and not yet known to be published, oldest first."""
        return self._tag + "outbox"

    def state(self, customer_id: str) -> str:
        """String: the packed customer, with its open page."""
        return f"{self._tag}state:{customer_id}"

    def pages(self, customer_id: str) -> str:
        """Hash: the sealed pages of a customer with many orders, by number."""
        return f"{self._tag}pages:{customer_id}"

    def customer(self, customer_id: str) -> str:
        """Hash: what any client may read (contract, section 7)."""
        return f"{self._tag}customer:{customer_id}"

    def customer_id(self, state_key: bytes) -> str:
        """The customer whose `state` key this is."""
        return state_key.decode().removeprefix(self._tag + "state:")
