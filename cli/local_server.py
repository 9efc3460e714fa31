"""One server process on loopback: started, waited for, stopped or killed, and never left behind."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path

from cli.local_jars import LocalStackError

HOST = "127.0.0.1"

STOP_SECONDS = 10.0
"""How long a server may take to stop before it is killed."""

# What the server's process runs first: it asks the kernel to kill it when its parent is gone, in whatever
# way (PR_SET_PDEATHSIG stays set across exec), and looks whether that has happened already. It is a program
# of its own, no preexec_fn, which may deadlock where the parent has threads. Python ignores SIGPIPE; servers
# should not.
_TIED_TO_PARENT = """
import ctypes, os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


@cache
def _launcher() -> ThreadPoolExecutor:
    """The thread that starts all servers.

    For the kernel the parent is a thread: a server started by a short-lived one would be killed with it.
    This one lives as long as the program.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="local-servers")


class Server(ABC):
    """A server that listens on one loopback port and keeps its data in one directory.

    It can be started again after `stop` or `kill`, on the same port and data.
    """

    name: str

    def __init__(self, directory: Path, port: int = 0) -> None:
        self.directory = directory
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._starting: Future[None] | None = None

    @property
    def address(self) -> str:
        """Host and port, as clients write them."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process id, or None where it does not run."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def logs(self) -> list[Path]:
        """Its log files, the most telling one last."""
        return [self._output]

    @property
    def _output(self) -> Path:
        return self.directory.with_suffix(".out")

    @abstractmethod
    def _command(self) -> list[str]:
        """The program with its full path, and its arguments; may prepare the data directory first."""

    def _environment(self) -> dict[str, str]:
        """What its environment has besides this program's."""
        return {}

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it serves clients by now."""

    def start(self, timeout: float = 60.0) -> None:
        """Start it and return when it answers. `timeout` is in seconds.

        Raises LocalStackError where it does not come up; it does not run then.
        """
        self.launch()
        self.wait_until_ready(timeout)

    def launch(self) -> None:
        """Start the process, and do not wait for its answers."""
        if self.running:
            raise LocalStackError(f"{self.name} runs already")
        if not port_is_free(self.port):
            raise LocalStackError(
                f"port {self.port} for {self.name} is in use: choose another, or 0 for a free one"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        command = self._command()
        self._starting = _launcher().submit(self._spawn, command)
        self._starting.result()

    def _spawn(self, command: list[str]) -> None:
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self._environment(),
                # A Ctrl-C in the terminal is for this program alone, which then stops its servers in order.
                start_new_session=True,
            )

    def wait_until_ready(self, timeout: float = 60.0) -> None:
        """Return when it answers; end it and raise LocalStackError where it does not within `timeout` s."""
        give_up_at = time.monotonic() + timeout
        try:
            while not (accepts_connections(self.port) and self._answers()):
                self.check()
                if time.monotonic() > give_up_at:
                    raise LocalStackError(
                        f"{self.name} does not answer after {timeout:g} s{self._last_words()}"
                    )
                time.sleep(0.05)
            self.check()
        except BaseException:
            self.kill()
            raise

    def check(self) -> None:
        """Raise LocalStackError, with the end of its log, where the process has ended."""
        if self._process is None:
            raise LocalStackError(f"{self.name} was not started")
        code = self._process.poll()
        if code is not None:
            how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
            raise LocalStackError(f"{self.name} ended {how}{self._last_words()}")

    def request_stop(self) -> None:
        """Ask it to stop, and do not wait."""
        if self._starting is not None:
            wait([self._starting])  # an interrupted launch may still be under way
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop it in order; kill it where that takes longer than `timeout` s. Does nothing when stopped."""
        self.request_stop()
        if self._process is None:
            return
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._starting is not None:
            wait([self._starting])
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _last_words(self, lines: int = 8) -> str:
        said: list[str] = []
        for log in self.logs:
            if log.exists():
                said += log.read_text(errors="replace").splitlines()
        return "".join(f"\n  {line}" for line in said[-lines:])


PORTS = range(20_000, 32_000)
"""Where `free_port` chooses. Below the range that the kernel hands to outgoing connections: there, while the server is
down, a client that tries to reach it could be given the very port, and so hold it or even talk to itself."""

_handed_out: set[int] = set()  # a port is named before its server listens on it


def accepts_connections(port: int) -> bool:
    """Whether anything listens on that loopback port."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def port_is_free(port: int) -> bool:
    """Whether a server could listen on that loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A loopback port that nothing uses now, and that was not given before.

    Raises LocalStackError where none is found.
    """
    for _ in range(1000):
        port = random.choice(PORTS)
        if port not in _handed_out and port_is_free(port):
            _handed_out.add(port)
            return port
    raise LocalStackError(f"no free port was found between {PORTS[0]} and {PORTS[-1]}")
