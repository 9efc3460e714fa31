"""A peer as a process of its own, never left behind."""

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.worker import BenchmarkError
from cli.local_jars import ROOT
from cli.local_server import Server

#: Seconds until its first record, within which a peer must also have joined its group; and between two looks.
_BEGIN_WITHIN = 120.0
_LOOK = 0.002


class PeerProcess(Server):
    """The process of one round. `log` takes stdout, with the lines for the harness, and stderr."""

    def __init__(
        self, name: str, directory: Path, command: list[str], variables: Mapping[str, str], log: Path
    ) -> None:
        super().__init__(directory)
        self.name = name
        self._run, self._variables, self._file = command, variables, log
        self._read = 0
        self._told: list[dict[str, Any]] = []
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)

    @property
    def _output(self) -> Path:
        return self._file

    def _command(self) -> list[str]:
        env = shutil.which("env")
        if env is None:
            raise BenchmarkError("there is no env")
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        variables = {f"PEER_{name}": value for name, value in self._variables.items()}
        variables |= {"PYTHONPATH": path, "TMPDIR": str(self.directory)}
        return [
            env,
            "-C",
            str(self.directory),
            *(f"{n}={value}" for n, value in variables.items()),
            *self._run,
        ]

    def _answers(self) -> bool:
        return True  # It serves nobody.

    def last_words(self) -> str:
        """The end of its log, a line each, after a newline."""
        return self._last_words()

    def wait_for_start(self) -> float:
        """Return the instant (monotonic) of its first record. Raises BenchmarkError where none comes."""
        give_up = time.monotonic() + _BEGIN_WITHIN
        while not any(line["event"] == "started" for line in self.told()):
            self.check()
            if time.monotonic() > give_up:
                raise BenchmarkError(
                    f"{self.name} has not begun after {_BEGIN_WITHIN:g} s{self.last_words()}"
                )
            time.sleep(_LOOK)
        return time.monotonic()

    def told(self) -> list[dict[str, Any]]:
        """What it has told the harness so far."""
        with self._file.open("rb") as log:
            log.seek(self._read)
            news, _, _ = log.read().rpartition(b"\n")
        if news:
            self._read += len(news) + 1
            self._told += [json.loads(line) for line in news.split(b"\n") if line.startswith(b'{"event":')]
        return self._told
