"""`verify DIR` checks what really runs: the environment's files, compiled ones included."""

from __future__ import annotations

import importlib.util
import json
import marshal
import os
import py_compile
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bundle.builder import build
from bundle.cli.main import main
from bundle.errors import Kind
from bundle.jumphost import importer, venv
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import Keys

pytestmark = pytest.mark.slow

EVIL = "raise SystemExit('planted code ran')\n"


@pytest.fixture(scope="module")
def made(full: build.Built, keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Return a jump host with a real environment; tests work on copies in its place."""
    home = Home(tmp_path_factory.mktemp("made") / "airlift")
    importer.run(
        full.path, trust=keys.trust(), home=home, log=lambda _: None, progress=lambda _: None
    )
    shutil.copytree(home.root, home.root.with_name("copy"), symlinks=True)
    return home


@pytest.fixture
def home(made: Home) -> Home:
    """Return it as after the import, at the same path, because an environment contains its path."""
    shutil.rmtree(made.root)
    shutil.copytree(made.root.with_name("copy"), made.root, symlinks=True)
    return made


def verify(home: Home) -> int:
    return main(["verify", str(home.current), "--home", str(home.root), "--json"])


def packages(home: Home) -> Path:
    return next((home.current / "venv" / "lib").glob("python3.*/site-packages"))


def test_a_release_as_it_was_imported_is_good(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(home) == 0
    found = json.loads(capsys.readouterr().out)["environment"]
    assert found["files"] == 4
    assert found["compiled"] > 5
    assert any("system's Python" in one for one in found["not_checked"])


def test_what_newer_pythons_put_into_an_environment_is_good(home: Home) -> None:
    """Python 3.13 writes a file for git."""
    (home.current / "venv" / ".gitignore").write_text("# Created by venv\n*\n")
    assert verify(home) == 0


def test_compiled_files_of_use_are_good(home: Home) -> None:
    """The release's own programs leave these files when they run."""
    python = home.current / "venv" / "bin" / "python"
    words = ["-m", "bundle", "verify", str(home.current), "--home", str(home.root)]
    # Run elsewhere: a `bundle` in the current directory would take precedence.
    subprocess.run([python, *words], capture_output=True, check=True, cwd=home.root)
    subprocess.run([python, "-O", *words], capture_output=True, check=True, cwd=home.root)
    assert list((home.current / "bundle/__pycache__").glob("*.opt-1.pyc"))
    assert verify(home) == 0


def planted_compiled(home: Home) -> Path:
    """Plant a compiled file with the source's time and size, but other code."""
    source = home.current / "bundle" / "__init__.py"
    compiled = Path(importlib.util.cache_from_source(str(source)))
    raw = compiled.read_bytes()
    code = compile(EVIL, str(source), "exec")
    compiled.write_bytes(raw[:16] + marshal.dumps(code))
    return compiled


def planted_in_package(home: Home) -> Path:
    source = packages(home) / "airlifttiny.py"
    compiled = Path(importlib.util.cache_from_source(str(source)))
    compiled.write_bytes(compiled.read_bytes()[:16] + marshal.dumps(compile(EVIL, "x", "exec")))
    return compiled


def without_source(home: Home) -> Path:
    folder = home.current / "roles" / "__pycache__"
    folder.mkdir()
    compiled = folder / f"gone.{sys.implementation.cache_tag}.pyc"
    evil = home.root / "evil.py"
    evil.write_text(EVIL)
    py_compile.compile(str(evil), str(compiled))
    return compiled


def no_compiled_file(home: Home) -> Path:
    compiled = Path(importlib.util.cache_from_source(str(home.current / "bundle" / "__init__.py")))
    compiled.write_bytes(b"\0" * 40)
    return compiled


def altered_package(home: Home) -> Path:
    path = packages(home) / "airlifttiny.py"
    path.write_text(path.read_text() + "# another\n")
    return path


def missing_file(home: Home) -> Path:
    path = packages(home) / "airlifttiny.py"
    path.unlink()
    return path


def foreign_module(home: Home) -> Path:
    path = packages(home) / "sitecustomize.py"
    path.write_text(EVIL)
    return path


def foreign_distribution(home: Home) -> Path:
    path = packages(home) / "evil-1.0.dist-info"
    path.mkdir()
    (path / "RECORD").write_text("evil.py,,\n")
    return path


def altered_path_file(home: Home) -> Path:
    path = packages(home) / "airlift.pth"
    path.write_text(f"import os; os.environ\n{home.current.resolve()}\n")
    return path


def packages_of_the_system(home: Home) -> Path:
    path = home.current / "venv" / "pyvenv.cfg"
    path.write_text(path.read_text().replace("packages = false", "packages = true"))
    return path


def foreign_program(home: Home) -> Path:
    path = home.current / "venv" / "bin" / "ansible-evil"
    path.write_text("#!/bin/sh\n")
    return path


def link_for_a_package(home: Home) -> Path:
    path = packages(home) / "airlifttiny.py"
    path.rename(home.root / "elsewhere.py")
    path.symlink_to(home.root / "elsewhere.py")
    return path


def as_it_was_made(release: Path, _: str) -> None:
    """Restore what pip made at the same path."""
    saved = release.parents[1].with_name("copy") / "releases" / release.name / "venv"
    shutil.copytree(saved, release / "venv", symlinks=True)


PLANTED: list[Callable[[Home], Path]] = [
    planted_compiled,
    planted_in_package,
    without_source,
    no_compiled_file,
]
ALTERED: list[Callable[[Home], Path]] = [
    altered_package,
    missing_file,
    foreign_module,
    foreign_distribution,
    altered_path_file,
    packages_of_the_system,
    foreign_program,
    link_for_a_package,
]


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_compiled_file_is_named_and_what_is_printed_helps(
    home: Home, plant: Callable[[Home], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = plant(home).resolve()
    assert verify(home) == Kind.RELEASE_ALTERED.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["where"] == str(path)
    subprocess.run(shlex.split(error["fix"].split("then: ")[1]), check=True)
    assert verify(home) == 0


@pytest.mark.parametrize("alter", ALTERED)
def test_an_altered_environment_is_named_and_what_is_printed_helps(
    home: Home,
    full: build.Built,
    alter: Callable[[Home], Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same import repairs each case; pip makes the environment only in the first."""
    if alter is not ALTERED[0]:
        monkeypatch.setattr(venv, "make", as_it_was_made)
    path = alter(home)
    place = path.parent.resolve() / path.name
    assert verify(home) == Kind.RELEASE_ALTERED.exit_code
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["where"] == str(place)
    first, _, command = error["fix"].partition(", after this: ")
    subprocess.run(shlex.split(command), check=True, cwd=home.root)
    assert first.endswith("import the same bundle again")
    assert main(["import", str(full.path), "--home", str(home.root)]) == 0
    capsys.readouterr()
    assert verify(home) == 0


def test_a_release_that_has_no_environment_yet_says_so(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(home.current / "venv")
    assert verify(home) == 0
    found = json.loads(capsys.readouterr().out)["environment"]
    assert "the environment, which was not made yet" in found["not_checked"]


def test_files_of_another_python_are_said_not_to_be_checked(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home.current / "bundle" / "__pycache__"
    mine = folder / f"__init__.{sys.implementation.cache_tag}.pyc"
    os.link(mine, folder / "__init__.cpython-399.pyc")
    assert verify(home) == 0
    found = json.loads(capsys.readouterr().out)["environment"]
    assert "1 files compiled for another Python" in found["not_checked"]


def damaged(home: Home, what: str) -> Path:
    """Remove a file that the release needs, and return its path."""
    if what == "blob":
        path = next(iter(sorted(home.blobs.iterdir())))
    else:
        path = home.current / "playbooks" / "install.yml"
    path.unlink()
    return path


@pytest.mark.parametrize("what", ["blob", "file"])
def test_a_release_repairs_itself(
    home: Home, full: build.Built, what: str, keys: Keys, tmp_path: Path
) -> None:
    """The printed command works with the release's own Python."""
    lost = damaged(home, what)
    marker = home.current / "venv" / ".airlift-complete"
    before = marker.stat().st_mtime_ns
    python = home.current / "venv" / "bin" / "python"
    words = ["-m", "bundle", "import", str(full.path), "--home", str(home.root)]
    done = subprocess.run(
        [python, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert lost.is_file()
    assert verify(home) == 0
    # An intact environment is left alone: it may be in use.
    assert (marker.stat().st_mtime_ns == before) is (what == "blob")
