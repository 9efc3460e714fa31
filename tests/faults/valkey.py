"""A Valkey of a test's own: to be stopped, killed, filled, robbed of its last writes, or followed by a replica."""

import re
import signal
from pathlib import Path

import redis

from cli.local_stack import ValkeyServer
from tests.space import wait_until

#: What stands in the append-only file before what was written in the next second.
_TIME = re.compile(rb"^#TS:([0-9]+)\r\n", re.MULTILINE)


class OwnValkey(ValkeyServer):
    """With the local stack's settings and, in the append-only file, times."""

    #: Further settings, or other values: `appendfsync`, `replicaof`, …
    options: dict[str, str]

    def __init__(self, directory: Path, **options: str) -> None:
        super().__init__(directory)
        self.options = options

    def _command(self) -> list[str]:
        command = [*super()._command(), "--aof-timestamp-enabled", "yes", "--aof-load-truncated", "yes"]
        command += ["--enable-debug-command", "local", "--repl-diskless-sync-delay", "0"]
        for name, value in self.options.items():
            command += [f"--{name.replace('_', '-')}", *value.split()]
        return command

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def client(self) -> "redis.Redis":
        """A plain client, with the pool that each call of the server's own tests would want."""
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=10)

    def suspend(self) -> None:
        """It runs, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    # -- the append-only file; cut only while the server does not run ----------------------------------

    @property
    def _file(self) -> Path:
        (file,) = (self.directory / "appendonlydir").glob("*.incr.aof")
        return file

    def size(self) -> int:
        """Bytes of the file."""
        return self._file.stat().st_size

    def cut_to(self, size: int) -> int:
        """Take off the file what was written since it had this size; how many bytes."""
        return self._cut(self._file.read_bytes(), size)

    def commands(self) -> int:
        """How many commands the file holds."""
        return len(command_starts(self._file.read_bytes()))

    def cut_seconds(self, seconds: float) -> int:
        """Take what was written in the last seconds (whole ones) off the file; how many bytes."""
        content = self._file.read_bytes()
        times = list(_TIME.finditer(content))
        assert times, "no times in the append-only file"
        until = int(times[-1][1]) - seconds
        at = next((time.start() for time in times if int(time[1]) > until), len(content))
        return self._cut(content, at)

    def cut_commands(self, commands: int) -> int:
        """Take the last commands off the file, at a boundary; how many bytes."""
        content = self._file.read_bytes()
        return self._cut(content, command_starts(content)[-commands])

    def cut_bytes(self, count: int) -> int:
        """Take the last bytes off the file, wherever that is; how many bytes."""
        content = self._file.read_bytes()
        return self._cut(content, max(0, len(content) - count))

    def _cut(self, content: bytes, at: int) -> int:
        assert not self.running
        self._file.write_bytes(content[:at])
        return len(content) - at


def command_starts(content: bytes) -> list[int]:
    """Where each command of an append-only file begins. A script's writes stand between MULTI and EXEC."""
    starts, at = [], 0
    while at < len(content):
        line_end = content.index(b"\r\n", at)
        if content[at : at + 1] == b"*":
            starts.append(at)
            count, at = int(content[at + 1 : line_end]), line_end + 2
            for _ in range(count):
                line_end = content.index(b"\r\n", at)
                at = line_end + 2 + int(content[at + 1 : line_end]) + 2
        else:
            at = line_end + 2
    return starts


def wait_replicated(primary: OwnValkey, replica: OwnValkey) -> None:
    """Until the replica has all that the primary wrote."""
    with primary.client() as one, replica.client() as other:

        def same() -> bool:
            there = other.info("replication")
            offset = one.info("replication")["master_repl_offset"]
            return there.get("master_link_status") == "up" and there["slave_repl_offset"] == offset

        wait_until(same, 20, "a replica that has all")
