"""A connection that is gone is no error of the worker's own, however the event loop says it.

To write to a closed transport is a RuntimeError in uvloop. aiokafka and redis-py expect an OSError: the task that keeps
the metadata of an aiokafka client would die of it, and the client never hear of a broker that comes back.
"""

from typing import Any

from aiokafka import conn
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError


def is_closed(error: RuntimeError) -> bool:
    """Whether this is what uvloop raises where a transport was closed before."""
    return "the handler is closed" in str(error)


class Connection(AIOKafkaConnection):  # type: ignore[misc]  # it has no types
    """aiokafka's connection to a broker, which says that it is gone as any other is said to be."""

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Write a request; an awaitable of the answer. Raises KafkaConnectionError where it cannot be written."""
        try:
            return super().send(request, expect_response)
        except RuntimeError as error:
            if not is_closed(error):
                raise
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


def tell_closed_connections() -> None:
    """Let all of aiokafka's clients in this process use such connections."""
    conn.AIOKafkaConnection = Connection
