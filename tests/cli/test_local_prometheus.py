"""Prometheus for the tests: those on the PATH, else the distribution's package, without root and without installing."""

import os
from pathlib import Path

import pytest

from cli import local_prometheus
from cli.local_prometheus import Prometheus, ensure_prometheus

#: An apt-get that knows no package before its own lists were made, and a dpkg-deb that unpacks two programs.
APT_GET = """#!/bin/bash
echo "$*" >> {log}
case "$*" in
  *Dir::State=*update) touch {lists} ;;
  *Dir::State=*download*) [ -e {lists} ] && touch prometheus_2.42.0_amd64.deb ;;
  *) echo "E: Unable to locate package prometheus"; exit 100 ;;
esac
"""
DPKG_DEB = """#!/bin/bash
mkdir -p "$3/usr/bin"
for program in prometheus promtool; do
  printf '#!/bin/bash\\n' > "$3/usr/bin/$program"; chmod +x "$3/usr/bin/$program"
done
"""


def program(path: Path, text: str = "#!/bin/bash\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is unpacked; nothing of this machine's own is on the PATH but what every machine has."""
    monkeypatch.setattr(local_prometheus, "PLACE", tmp_path / ".local" / "prometheus")
    own = tmp_path / "bin"
    for name in ("bash", "mkdir", "touch", "chmod"):
        own.mkdir(exist_ok=True)
        (own / name).symlink_to(Path("/bin", name))
    monkeypatch.setenv("PATH", str(own))
    return tmp_path / ".local" / "prometheus"


def test_those_on_the_path_are_taken(place: Path, tmp_path: Path) -> None:
    own = [program(tmp_path / "bin" / name) for name in ("prometheus", "promtool")]
    assert ensure_prometheus() == Prometheus(*own)
    assert not place.exists()


def test_where_the_machines_lists_are_empty_lists_are_made_for_this_once(place: Path, tmp_path: Path) -> None:
    log = tmp_path / "asked"
    program(tmp_path / "bin" / "apt-get", APT_GET.format(log=log, lists=tmp_path / "made"))
    program(tmp_path / "bin" / "dpkg-deb", DPKG_DEB)
    found = ensure_prometheus()
    assert found == Prometheus(place / "usr/bin/prometheus", place / "usr/bin/promtool")
    assert all(os.access(path, os.X_OK) for path in found)
    first, update, download = log.read_text().splitlines()
    assert first == "download prometheus"
    # Its own places: who is not root may write nowhere else.
    for line, ends in ((update, "update"), (download, "download prometheus")):
        assert line.count(str(place.parent)) == 2
        assert line.endswith(ends)
    # What is there is not fetched again, and nothing else is left.
    assert ensure_prometheus() == found
    assert len(log.read_text().splitlines()) == 3
    assert [entry.name for entry in place.parent.iterdir()] == ["prometheus"]


@pytest.mark.parametrize("apt_get", [None, "#!/bin/bash\necho 'E: no network'\nexit 100\n"])
def test_where_none_of_it_works_it_says_in_one_line_what_to_install(
    place: Path, tmp_path: Path, apt_get: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if apt_get is not None:
        program(tmp_path / "bin" / "apt-get", apt_get)
        program(tmp_path / "bin" / "dpkg-deb", DPKG_DEB)
    assert local_prometheus.main() == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1
    assert "apt-get install prometheus" in said[0]
    assert not place.exists()


def test_a_package_for_another_kind_of_machine_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "asked"
    program(tmp_path / "bin" / "apt-get", APT_GET.format(log=log, lists=tmp_path / "made"))
    program(tmp_path / "bin" / "dpkg-deb", DPKG_DEB.replace("#!/bin/bash\\n' >", "not for here' >"))
    assert local_prometheus.main() == 1
    assert "does not run here" in capsys.readouterr().err
    assert not place.exists()
