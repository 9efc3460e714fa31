"""In which partition a customer lives: Kafka's own default, so that shops' and our records meet."""

from schemas.murmur2 import home
from schemas.placing import Place, place_of

__all__ = ["Placement", "home"]


class Placement:
    """Which key and partition a customer's records must have."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def of(self, customer_id: str) -> Place:
        """The key, and the partition."""
        return place_of(customer_id, self.partitions)
