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

    @cached_property
    def unmoved(self) -> str:
        """Set: customers who may still be on the program before, while a change of program is under way."""
        return self._tag + "unmoved"

    @cached_property
    def switching(self) -> str:
        """String: there while `kizuna rebuild` puts another store in the place of this one; how far it is."""
        return self._tag + "switching"

    def state(self, customer_id: str) -> str:
        """String: the packed customer, with its open page."""
        return f"{self._tag}state:{customer_id}"

    def pages(self, customer_id: str) -> str:
        """Hash: the sealed pages of a customer with many orders, by number."""
        return f"{self._tag}pages:{customer_id}"

    def customer(self, customer_id: str) -> str:
        """Hash: what any client may read (contract, section 7)."""
        return f"{self._tag}customer:{customer_id}"


def state_pattern(prefix: str) -> str:
    """The pattern of SCAN for the `state` keys of all shards under a prefix."""
    return pattern(prefix, "state:*")


def pattern(prefix: str, name: str) -> str:
    """The pattern of SCAN for the keys of this name, of all shards under a prefix; `name` may be one itself."""
    plain = "".join(f"\\{c}" if c in "*?[]\\^" else c for c in prefix)
    return f"{plain}:{{*}}:{name}"


def partition_of(prefix: str, key: bytes) -> int:
    """The shard to which a key under a prefix belongs."""
    return int(key.decode()[len(prefix) + 2 :].partition("}")[0])


def partition_and_customer(prefix: str, state_key: bytes) -> tuple[int, str]:
    """Whose `state` key this is: the shard and the customer."""
    partition, _, customer_id = state_key.decode()[len(prefix) + 2 :].partition("}:state:")
    return int(partition), customer_id
