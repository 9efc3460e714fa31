"""How a command sends records of its own: one producer, and what is asked before."""

from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError

from streams.protocols import FatalError
from streams.settings import Settings
from streams.topics import BOOTSTRAP_MS, administration, describe

#: Above what the topics take, so that the broker judges a record's size; a longer one is not read whole.
REQUEST_BYTES = 4 * 1024 * 1024


def check_topic(settings: Settings, name: str) -> None:
    """Raises FatalError where a topic of the contract is missing, or no broker answers."""
    with administration(settings) as admin:
        if name not in describe(admin, settings).partitions:
            raise FatalError(f"topic {settings.topic(name)} is missing (kizuna topics create)")


def producer_of(settings: Settings, compression: str = "none") -> KafkaProducer:
    """A producer that is told of a record only when all replicas in sync have it."""
    return KafkaProducer(
        bootstrap_servers=settings.broker_list(),
        client_id="kizuna-publish",
        bootstrap_timeout_ms=BOOTSTRAP_MS,
        acks="all",
        enable_idempotence=True,
        compression_type=None if compression == "none" else compression,
        # A broker that is gone is told of within these times.
        request_timeout_ms=10_000,
        delivery_timeout_ms=30_000,
        max_block_ms=10_000,
        linger_ms=10,
        batch_size=128 * 1024,
        max_request_size=REQUEST_BYTES,
    )


def abandon(producer: KafkaProducer) -> None:
    """Close it with records under way; its `close` alone waits for them, fails, and tries again at exit."""
    producer._sender.force_close()
    with suppress(KafkaError):
        producer.close(timeout=1)
