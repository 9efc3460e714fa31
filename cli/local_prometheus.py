"""Prometheus and promtool for the tests: those on the PATH, else taken once out of the distribution's package.

`python -m cli.local_prometheus` is what `make test` runs first. Nothing is installed and nobody needs to be root: the
package is only downloaded and unpacked under .local.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from cli.local_jars import ROOT, LocalStackError

PLACE = ROOT / ".local" / "prometheus"

_PROGRAMS = ("prometheus", "promtool")
_INSTALL = "install Prometheus (Debian, Ubuntu: apt-get install prometheus)"


class Prometheus(NamedTuple):
    """Where the two programs are."""

    prometheus: Path
    promtool: Path


def ensure_prometheus() -> Prometheus:
    """Return both programs; fetch them first where they are missing.

    Raises LocalStackError where they cannot be fetched.
    """
    found = _on_the_path() or _unpacked(PLACE)
    if found is not None:
        return found
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise LocalStackError(
            f"the tests need prometheus and promtool, and there is no apt-get here: {_INSTALL}"
        )
    print("fetching Prometheus as apt has it", file=sys.stderr, flush=True)
    PLACE.parent.mkdir(parents=True, exist_ok=True)
    # Into a directory of its own first: an interrupted run leaves nothing that looks complete.
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=PLACE.parent) as directory:
        files = Path(directory) / "files"
        _run("dpkg-deb", "-x", str(_download(Path(directory))), str(files))
        unpacked = _unpacked(files)
        if unpacked is None:
            raise LocalStackError(f"the package of Prometheus holds no prometheus and promtool: {_INSTALL}")
        # Does it run here? A package for another kind of machine is better told now.
        _run(str(unpacked.promtool), "--version")
        shutil.rmtree(PLACE, ignore_errors=True)
        try:
            files.rename(PLACE)
        except OSError as error:
            if _unpacked(PLACE) is None:  # else another run was quicker, with the same package
                raise LocalStackError(f"cannot write {PLACE}: {error.strerror}") from error
    return _programs(PLACE / "usr" / "bin")


def _on_the_path() -> Prometheus | None:
    found = [shutil.which(program) for program in _PROGRAMS]
    paths = [Path(program) for program in found if program is not None]
    return Prometheus(*paths) if len(paths) == len(_PROGRAMS) else None


def _unpacked(place: Path) -> Prometheus | None:
    programs = _programs(place / "usr" / "bin")
    return programs if all(os.access(program, os.X_OK) for program in programs) else None


def _programs(directory: Path) -> Prometheus:
    return Prometheus(*(directory / program for program in _PROGRAMS))


def _download(directory: Path) -> Path:
    """The package, by the machine's own lists of packages; where those are empty, by lists made for this once."""
    try:
        _run("apt-get", "download", "prometheus", directory=directory)
    except LocalStackError:
        lists = directory / "lists"
        for part in ("state/lists/partial", "cache/archives/partial"):
            (lists / part).mkdir(parents=True)
        own = ("-o", f"Dir::State={lists / 'state'}", "-o", f"Dir::Cache={lists / 'cache'}")
        _run("apt-get", *own, "update", directory=directory)
        _run("apt-get", *own, "download", "prometheus", directory=directory)
    packages = list(directory.glob("prometheus_*.deb"))
    if not packages:
        raise LocalStackError(f"apt-get downloaded no package of Prometheus: {_INSTALL}")
    return packages[0]


def _run(*command: str, directory: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:  # for example: a program of another kind of machine
        raise LocalStackError(f"{command[0]} does not run here ({error.strerror}): {_INSTALL}") from error
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()
        errors = [line for line in lines if line.startswith("E: ")] or lines[-1:] or ["nothing was said"]
        raise LocalStackError(f"{Path(command[0]).name} could not fetch Prometheus ({errors[0]}): {_INSTALL}")


def main() -> int:
    """Fetch what is missing; say in one line what went wrong, if anything did."""
    try:
        ensure_prometheus()
    except LocalStackError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
