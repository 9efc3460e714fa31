"""A TCP proxy between a worker and a server, which does to connections what networks do."""

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self

from cli.local_server import HOST, free_port

_PART = 64 * 1024
#: How long a thread sleeps before it looks again, seconds.
_TICK = 0.02


class Proxy:
    """Forwards a loopback port of its own to `target`; a context manager.

    Any thread may stall it, cut its connections, point it elsewhere, or have the next reply to a certain request
    dropped.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        #: How many replies were dropped.
        self.dropped = 0
        self._flows = threading.Event()
        self._flows.set()
        self._needle: bytes | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False
        self._listener = socket.create_server((HOST, self.port))
        self._listener.settimeout(_TICK)
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @property
    def address(self) -> str:
        """Host and port, as clients write them."""
        return f"{HOST}:{self.port}"

    def stall(self) -> None:
        """Forward nothing, and keep all connections open."""
        self._flows.clear()

    def resume(self) -> None:
        """Forward again, what was held back first."""
        self._flows.set()

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def point(self, target: int) -> None:
        """Forward to another port from now on: all connections are closed."""
        self.target = target
        self.cut()

    def drop_reply(self, request: bytes) -> None:
        """The next request that holds these bytes reaches the server; its reply is dropped with the connection."""
        self._needle = request

    def close(self) -> None:
        """End it, and all its connections."""
        self._closed = True
        self._flows.set()
        self._listener.close()
        self.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), name="proxied", daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((HOST, self.target), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        client.settimeout(None)
        with self._lock:
            self._open |= {client, server}
        try:
            self._pump(client, server)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open -= {client, server}
            client.close()
            server.close()

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        drops = False
        with selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ)
            ready.register(server, selectors.EVENT_READ)
            while not self._closed:
                events = ready.select(_TICK)
                self._flows.wait()
                for key, _ in events:
                    data = key.fileobj.recv(_PART)  # type: ignore[union-attr]
                    if not data:
                        return
                    if key.fileobj is client:
                        needle = self._needle
                        if needle is not None and needle in data:
                            self._needle, drops = None, True
                        server.sendall(data)
                    elif drops:
                        self.dropped += 1
                        return
                    else:
                        client.sendall(data)
