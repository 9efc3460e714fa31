"""uvloop's own error for a closed transport is a lost connection, to Kafka's clients and to the store."""

import asyncio
import socket
from typing import Any

import pytest
import uvloop
from aiokafka import conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from streams.closed_connections import Connection, is_closed, tell_closed_connections
from streams.protocols import UnavailableError
from streams.redis_nodes import connect
from streams.redis_store import answers


@pytest.fixture(scope="module")
def closed() -> RuntimeError:
    """What uvloop says, by itself."""

    async def write() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        with listener:
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.close()
            await writer.wait_closed()
            writer.transport.write(b"too late")

    with pytest.raises(RuntimeError) as raised:
        uvloop.run(write())
    return raised.value


class ClosedWriter:
    def __init__(self, error: RuntimeError) -> None:
        self.error = error

    def write(self, data: bytes) -> None:
        raise self.error

    def close(self) -> None:
        pass


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(conn, "AIOKafkaConnection", conn.AIOKafkaConnection)
    tell_closed_connections()

    async def connected() -> Any:
        made = conn.AIOKafkaConnection("127.0.0.1", 1, client_id="c", request_timeout_ms=1_000)
        made._versions = {3: (0, 1)}  # of metadata requests
        made._reader = asyncio.StreamReader()
        made._read_task = asyncio.get_running_loop().create_future()
        return made

    return connected


async def test_a_request_on_a_connection_that_uvloop_has_closed_finds_no_connection(
    connection: Any, closed: RuntimeError
) -> None:
    made = await connection()
    assert isinstance(made, Connection)
    made._writer = ClosedWriter(closed)
    with pytest.raises(KafkaConnectionError):
        made.send(MetadataRequest([]))
    assert not made.connected()


async def test_another_error_of_the_loops_is_not_taken_for_it(connection: Any) -> None:
    made = await connection()
    made._writer = ClosedWriter(RuntimeError("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        made.send(MetadataRequest([]))
    made.close()


def test_the_store_did_not_answer_on_a_connection_that_uvloop_has_closed(
    closed: RuntimeError,
) -> None:
    assert is_closed(closed)
    with pytest.raises(UnavailableError), answers(connect("redis://127.0.0.1:1/0")):
        raise closed
    with pytest.raises(RuntimeError, match="something else"), answers(connect("redis://127.0.0.1:1/0")):
        raise RuntimeError("something else")
