"""`kill -9` at any point of an import: the same command completes the work."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bundle.builder import build
from bundle.jumphost import importer, installed, venv
from bundle.jumphost.store import Home
from bundle.trust import sshsig
from bundle.trust.sshsig import Trust
from bundle.verify import checks
from tests.unit.bundle.bundlekit import (
    SOAK,
    TREE,
    Keys,
    Recipe,
    arguments,
    assert_finished,
    everything,
    fake_venv,
    run_import,
)

Craft = Callable[[Recipe], Path]


# Calls that change the disk; an import can be killed before each.
STEPS: list[tuple[Any, str]] = [
    *((os, name) for name in ("fsync", "mkdir", "rename", "replace", "write", "symlink")),
    *((os, name) for name in ("unlink", "rmdir", "close", "link")),
    *((Path, name) for name in ("rename", "replace", "write_bytes", "symlink_to")),
    (importer, "sync_filesystem"),
    (venv, "make"),
]


class Dying:
    """A function's stand-in that calls it, or kills the process at its turn."""

    left = 0

    @classmethod
    def wrap(cls, function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            cls.left -= 1
            if cls.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return step


def in_dying_child(
    step: int,
    act: Callable[[], object],
    *,
    steps: Sequence[tuple[Any, str]],
    prepare: Callable[[], None],
) -> int | None:
    """Run in a child killed at its n-th step; return None, or the steps left if it survived."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        prepare()
        Dying.left = step
        for owner, name in steps:
            setattr(owner, name, Dying.wrap(getattr(owner, name)))
        code = 1
        with contextlib.suppress(BaseException):
            act()
            left, Dying.left = Dying.left, 0
            os.write(writer, str(left).encode())
            code = 0
        os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as stream:
        text = stream.read()
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return None
    assert status == 0
    return int(text)


def killed_at(step: int, path: Path, trust: Trust, home: Home) -> int | None:
    """Import in a child that is killed at this step."""

    def prepare() -> None:
        venv.make = fake_venv
        # Skip ssh-keygen: its pipes and temporary files would be most of the steps.
        with checks.opened(path, trust=trust, home=None) as bundle:
            known = bundle.verdict
        sshsig.verify = lambda *_: known  # type: ignore[assignment]

    return in_dying_child(step, lambda: run_import(path, trust, home), steps=STEPS, prepare=prepare)


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_killed_anywhere_the_same_command_finishes(small: Path, keys: Keys, tmp_path: Path) -> None:
    trust = keys.trust()
    left = killed_at(1_000_000, small, trust, Home(tmp_path / "whole"))
    assert left is not None
    steps = 1_000_000 - left
    assert steps > 60
    seen = set()
    for step in sorted({*range(1, steps, 1 if SOAK else 5), steps - 1, steps}):
        home = Home(tmp_path / f"home-{step}")
        # The order of two threads' steps varies a little, so a late step may never come.
        assert killed_at(step, small, trust, home) is None or step > steps - 5
        seen.add((home.current.exists(), bool(everything(home.root) if home.root.exists() else 0)))
        if home.current.is_symlink():
            # A current release is always complete.
            installed.check(home.current, trust=trust, home=home)
            assert (home.current / "venv" / venv.MARKER).is_file()
        elif home.accepted.exists() and not list(home.accepted.iterdir()):
            assert not home.releases.exists() or not list(home.releases.iterdir())
        run_import(small, trust, home)
        assert_finished(home, small, trust)
        shutil.rmtree(home.root)
    # Kills came before the first write, on the way, and after the last rename.
    assert {(False, False), (False, True), (True, True)} <= seen


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_a_killed_delta_is_finished_too(craft: Craft, keys: Keys, tmp_path: Path) -> None:
    """Its base stays complete and current until the delta is."""
    trust = keys.trust()
    # These omitted files are linked from the base's directory.
    files = {"wheels/a.whl": b"a", "packages/b.deb": b"b"}
    first = Recipe(files=files)
    base = craft(first)
    delta = craft(Recipe("1.1.0", 2, app_layer=b"new", since=first, files=files))
    before = Home(tmp_path / "before")
    run_import(base, trust, before)

    def prepared(name: str) -> Home:
        shutil.copytree(before.root, tmp_path / name, symlinks=True)
        return Home(tmp_path / name)

    left = killed_at(1_000_000, delta, trust, prepared("whole"))
    assert left is not None
    steps = 1_000_000 - left
    assert steps > 60
    seen = set()
    for step in sorted({*range(1, steps, 1 if SOAK else 5), steps - 1, steps}):
        home = prepared(f"home-{step}")
        assert killed_at(step, delta, trust, home) is None or step > steps - 5
        seen.add(str(home.current.readlink()))
        installed.check(home.current, trust=trust, home=home)
        run_import(delta, trust, home)
        assert_finished(home, delta, trust, base)
        shutil.rmtree(home.root)
    assert seen == {"releases/1.0.0", "releases/1.1.0"}


@pytest.mark.usefixtures("quick")
def test_a_rerun_does_not_write_what_is_staged(small: Path, keys: Keys, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    step = 30
    with checks.opened(small, trust=keys.trust(), home=None) as bundle:
        staged = home.incoming / bundle.sha256 / "blobs"
    while not staged.is_dir() or not any(path.suffix != ".part" for path in staged.iterdir()):
        step += 3
        assert killed_at(step, small, keys.trust(), home) is None
    done = [path for path in staged.iterdir() if path.suffix != ".part"]
    inode = done[0].stat().st_ino
    run_import(small, keys.trust(), home)
    assert home.blob(done[0].name).stat().st_ino == inode


def test_a_killed_import_takes_its_pip_along(tmp_path: Path) -> None:
    """Otherwise pip would write into the environment that the next import makes."""
    note = tmp_path / "pid"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = (
        "import sys; from pathlib import Path; from bundle.jumphost import venv;"
        f"venv._run([sys.executable, '-c', {child!r}], Path({str(tmp_path)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=TREE)
    while not (note.exists() and note.read_text()):
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while _is_running(int(note.read_text())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _is_running(int(note.read_text()))


def _is_running(pid: int) -> bool:
    """Return whether it runs: without an init, an orphan stays as a zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_an_import_killed_while_pip_runs_is_finished(
    full: build.Built, keys: Keys, home: Home
) -> None:
    command = [sys.executable, "-m", "bundle", *arguments("import", full.path, keys, home)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=TREE)
    assert process.stderr is not None
    assert any("virtual environment" in line for line in process.stderr)
    process.kill()
    process.wait()
    assert not home.current.exists()
    assert subprocess.run(command, cwd=TREE, capture_output=True, check=False).returncode == 0
    assert_finished(home, full.path, keys.trust())


@pytest.mark.usefixtures("quick")
def test_an_abandoned_import_leaves_nothing_to_the_next(
    craft: Craft, small: Path, keys: Keys, home: Home
) -> None:
    assert killed_at(60, small, keys.trust(), home) is None
    assert list(home.incoming.iterdir())
    newer = craft(Recipe("1.1.0", 2))
    run_import(newer, keys.trust(), home)
    assert_finished(home, newer, keys.trust())
