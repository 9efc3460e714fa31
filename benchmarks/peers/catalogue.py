"""The peers there are, by their folders, and how each is built: a Python with its own packages, or a jar."""

import hashlib
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import RESULTS
from benchmarks.worker import BenchmarkError

FOLDER = Path(__file__).parent

_STAMP = "built-of"


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer, as its peer.toml has it; README.md says what the keys mean."""

    name: str
    folder: Path
    title: str
    guarantees: str
    order: int
    python: str | None = None
    jar: str | None = None
    java: tuple[str, ...] = ()
    events: int | None = None
    publishes: bool = True

    def command(self) -> list[str]:
        """What starts it. Builds it first, where that is not done. Raises BenchmarkError."""
        if self.python is not None:
            return [str(self._interpreter()), str(self.folder / self.python)]
        java = shutil.which("java")
        if java is None:
            raise BenchmarkError(f"{self.name} needs Java")
        return [java, *self.java, "-jar", str(self._built_jar())]

    def _interpreter(self) -> Path:
        requirements = self.folder / "requirements.txt"
        if not requirements.exists():
            return Path(sys.executable)
        place = RESULTS / "venvs" / self.name
        if not _is_fresh(place, [requirements]):
            shutil.rmtree(place, ignore_errors=True)
            self._run([sys.executable, "-m", "venv", str(place)])
            pip = [
                str(place / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]
            self._run([*pip, "-r", str(requirements)])
            _stamp(place, [requirements])
        return place / "bin" / "python"

    def _built_jar(self) -> Path:
        place = RESULTS / "java" / self.name
        # What the peers in Java share is a folder beside them.
        folders = (self.folder, self.folder.parent / "java")
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        sources = sorted(path for path in files if "target" not in path.parts)
        assert self.jar is not None
        if not _is_fresh(place, sources):
            maven = shutil.which("mvn")
            if maven is None:
                raise BenchmarkError(f"{self.name} is built by Maven, and there is none")
            shutil.rmtree(place, ignore_errors=True)
            pom = str(self.folder / "pom.xml")
            self._run([maven, "--batch-mode", "--quiet", "-f", pom, f"-Dpeer.target={place}", "package"])
            _stamp(place, sources)
        return place / self.jar

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError(f"{self.name} cannot be built: {done.stdout.strip()[-2000:]}")


def peers(folder: Path = FOLDER) -> dict[str, Peer]:
    """All there are, by name, in the order of the table."""
    found = [read(path) for path in folder.glob("*/peer.toml")]
    return {peer.name: peer for peer in sorted(found, key=lambda peer: peer.order)}


def read(path: Path) -> Peer:
    """A peer of its file. Raises BenchmarkError where that is not as README.md says."""
    told: dict[str, Any] = tomllib.loads(path.read_text())
    told["java"] = tuple(told.get("java", ()))
    try:
        peer = Peer(name=path.parent.name, folder=path.parent, **told)
    except TypeError as error:
        raise BenchmarkError(f"{path}: {error}") from error
    if (peer.python is None) == (peer.jar is None):
        raise BenchmarkError(f"{path}: expected one of python and jar")
    return peer


def _is_fresh(place: Path, sources: list[Path]) -> bool:
    stamp = place / _STAMP
    return stamp.exists() and stamp.read_text() == _digest(sources)


def _stamp(place: Path, sources: list[Path]) -> None:
    (place / _STAMP).write_text(_digest(sources))


def _digest(sources: list[Path]) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for source in sources:
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()
