"""A directory from which a release could not run is refused before anything is accepted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.builder import build
from bundle.cli.main import main
from bundle.errors import Kind
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import Keys, arguments, disk_of
from tests.unit.bundle.printed import Typed, runs


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a real file system without permission to run programs."""
    with disk_of(tmp_path / "disk", "size=200m,noexec") as path:
        yield path


def stub_of_sudo(typed: Typed) -> None:
    tools = typed.desk / "bin"
    tools.mkdir()
    (tools / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (tools / "sudo").chmod(0o755)


@runs("sudo mount -o remount,exec {}, or use --home DIR on another file system")
@pytest.mark.usefixtures("quick")
def test_a_disk_on_which_nothing_may_run(typed: Typed, small: Path, disk: Path) -> None:
    command = "import", small, *typed.trusting[:2], "--home"
    fix = typed.fails(*command, disk / "opt" / "airlift")
    assert list(disk.iterdir()) == []
    typed.works(*command, typed.desk / "DIR")
    stub_of_sudo(typed)
    typed.shell(fix.partition(", or use --home")[0])
    typed.works(*command, disk / "opt" / "airlift")


@pytest.mark.slow
def test_programs_of_a_release_do_not_run_there(
    full: build.Built, keys: Keys, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: without the check, the import succeeds but its programs cannot run."""
    home = Home(disk / "airlift")
    monkeypatch.setattr(Home, "check_can_run", lambda _: None)
    assert main(arguments("import", full.path, keys, home)) == 0
    script = home.current / "venv" / "bin" / "program"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    with pytest.raises(PermissionError):
        subprocess.run([script], check=True)


@runs("use letters, digits and /._-+@=,~ only, such as --home /opt/airlift")
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "name", ["a b", "tab\there", "a:b", "it's", "${x}", "new\nline", "{{ x }}"]
)
def test_a_path_that_programs_would_cut(
    typed: Typed, name: str, small: Path, tmp_path: Path
) -> None:
    place = tmp_path / name / "airlift"
    command = "import", small, *typed.trusting[:2], "--home"
    typed.fails(*command, place)
    assert not place.parent.exists()
    # A link does not help: Ansible resolves it.
    place.mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(place)
    typed.fails(*command, link)
    assert list(place.iterdir()) == []
    typed.works(*command, tmp_path / "opt" / "airlift")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["Büro-2", "client@site", "v1.2+3", "a_b=c,d~"])
def test_other_paths_are_as_good_as_ever(
    name: str, small: Path, keys: Keys, tmp_path: Path
) -> None:
    assert main(arguments("import", small, keys, Home(tmp_path / name))) == 0


@pytest.mark.usefixtures("quick")
def test_the_error_names_the_path_and_the_reason(
    small: Path,
    keys: Keys,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home = Home(tmp_path / "a b")
    assert main(arguments("import", small, keys, home)) == Kind.HOME.exit_code
    error = capsys.readouterr().err
    assert f"where: {home.root}" in error
    assert "' ' in its path" in error
    mounted = os.statvfs(tmp_path)

    def noexec(_: Path) -> os.statvfs_result:
        return os.statvfs_result((*mounted[:8], os.ST_NOEXEC, mounted[9]))

    monkeypatch.setattr(os, "statvfs", noexec)
    home = Home(tmp_path / "ab")
    assert main(arguments("import", small, keys, home)) == Kind.HOME.exit_code
    error = capsys.readouterr().err
    assert f"where: {home.root}" in error
    assert "mounted noexec" in error
    assert not home.root.exists()
