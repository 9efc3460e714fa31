"""One `kizuna worker` process, and how a test waits for what it does."""

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

KIZUNA = Path(sys.executable).with_name("kizuna")


def wait_until(condition: Callable[[], Any], seconds: float = 40, what: str = "the condition") -> Any:
    """What `condition` gives, as soon as that is true; fails after so many seconds.

    A condition that is dear, such as what a whole topic says, is asked for a quarter of the time at most: the tests
    beside this one have work to do.
    """
    give_up_at = time.monotonic() + seconds
    while True:
        asked = time.monotonic()
        if found := condition():
            return found
        now = time.monotonic()
        assert now < give_up_at, f"{what}: not within {seconds} s"
        time.sleep(max(0.03, 3 * (now - asked)))


class Worker:
    """One `kizuna worker` process."""

    def __init__(
        self, env: dict[str, str], port: int, log: Path, command: Sequence[str | Path] = (KIZUNA, "worker")
    ) -> None:
        self.port, self.log = port, log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )

    def get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def wait_ready(self) -> Self:
        wait_until(self._ready, 120, "a ready worker")
        return self

    def stop(self) -> float:
        """SIGTERM; how many seconds it took. Fails where it did not end well."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not stop it:\n{self.log.read_text()}") from None
        assert code == 0, self.log.read_text()
        return time.monotonic() - started

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
