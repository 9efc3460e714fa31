"""The jars of the local Kafka broker: fetched once, by Maven, as deploy/kafka/pom.xml names them.

`python -m cli.local_jars` is what `make setup` runs; `kizuna local up` does the same where they are missing.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

KAFKA_VERSION = "4.3.1"

ROOT = Path(__file__).resolve().parent.parent
POM = ROOT / "deploy" / "kafka" / "pom.xml"
LIB = ROOT / ".local" / f"kafka-{KAFKA_VERSION}" / "lib"

_SOURCE = "pom.sha256"  # in LIB: the hash of the pom that its jars were fetched for


class LocalStackError(Exception):
    """The local stack cannot start or go on. The text says why, for a person."""


def ensure_jars() -> Path:
    """Return the directory of the broker's jars; fetch them first where they are missing or out of date.

    Raises LocalStackError where they cannot be fetched.
    """
    if not POM.exists():
        raise LocalStackError(f"the local Kafka is part of a checkout of the project: there is no {POM}")
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()
    source = LIB / _SOURCE
    if source.exists() and source.read_text() == wanted:
        return LIB
    maven = shutil.which("mvn")
    if maven is None:
        raise LocalStackError(
            "the local Kafka's jars are missing and so is Maven, which fetches them: "
            "install it (Debian, Ubuntu: apt-get install maven) and run `make setup`"
        )
    print(f"fetching Kafka {KAFKA_VERSION} by Maven", file=sys.stderr, flush=True)
    LIB.parent.mkdir(parents=True, exist_ok=True)
    # Into a directory of its own first: an interrupted run leaves nothing that looks complete.
    fetched = Path(tempfile.mkdtemp(prefix="fetching-", dir=LIB.parent))
    try:
        _run_maven(maven, fetched)
        (fetched / _SOURCE).write_text(wanted)
        _put_in_place(fetched)
    finally:
        shutil.rmtree(fetched, ignore_errors=True)
    return LIB


def _run_maven(maven: str, directory: Path) -> None:
    done = subprocess.run(
        [
            *(maven, "--batch-mode", "--quiet", "--file", str(POM)),
            *("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={directory}"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        errors = [line for line in done.stdout.splitlines() if line.startswith("[ERROR]")]
        raise LocalStackError(f"Maven could not fetch Kafka: {errors[0] if errors else done.stdout.strip()}")


def _put_in_place(fetched: Path) -> None:
    old = Path(tempfile.mkdtemp(prefix="fetching-", dir=LIB.parent))
    try:
        if LIB.exists():
            LIB.rename(old / "lib")
        fetched.chmod(0o755)
        fetched.rename(LIB)
    except OSError as error:
        if not (LIB / _SOURCE).exists():  # else another run was quicker, with the same jars
            raise LocalStackError(f"cannot write {LIB}: {error.strerror}") from error
    finally:
        shutil.rmtree(old, ignore_errors=True)


def main() -> int:
    """Fetch what is missing; say in one line what went wrong, if anything did."""
    try:
        ensure_jars()
    except LocalStackError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
