"""Full disks, concurrent imports and oversized layers lose no data."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bundle.errors import AirliftError, Kind
from bundle.jumphost import installed
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import (
    TREE,
    Keys,
    Recipe,
    arguments,
    assert_finished,
    disk_of,
    everything,
    run_import,
)

Craft = Callable[[Recipe], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a real file system of 120 MB."""
    with disk_of(tmp_path / "disk", "size=120m") as path:
        yield path


def _remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def _refused(path: Path, keys: Keys, home: Home) -> AirliftError:
    with pytest.raises(AirliftError) as caught:
        run_import(path, keys.trust(), home)
    assert "\n" not in caught.value.what
    assert caught.value.fix
    return caught.value


@pytest.mark.usefixtures("quick")
def test_a_disk_that_fills_during_an_import(craft: Craft, keys: Keys, disk: Path) -> None:
    """Another file takes the free space; the old release stays, and the import can be completed."""
    home = Home(disk / "airlift")
    run_import(craft(Recipe()), keys.trust(), home)
    newer = craft(Recipe("1.1.0", 2, files={"packages/x.deb": os.urandom(20 << 20)}))
    filler = disk / "filler"

    def fill(_: int) -> None:
        if not filler.exists():
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as out:
                while out.write(bytes(1 << 20)):
                    pass

    from bundle.jumphost import importer  # noqa: PLC0415 - beside its only use

    with pytest.raises(AirliftError) as caught:
        importer.run(newer, trust=keys.trust(), home=home, log=print, progress=fill)
    assert caught.value.kind is Kind.NO_SPACE
    assert "the disk ran full" in caught.value.what
    assert "run the same command again" in caught.value.fix
    assert str(home.current.readlink()) == "releases/1.0.0"
    installed.check(home.current, trust=keys.trust(), home=home)
    # While the disk is full, this is reported before any write.
    assert "import needs" in _refused(newer, keys, home).what
    filler.unlink()
    run_import(newer, keys.trust(), home)
    assert_finished(home, newer, keys.trust(), craft(Recipe()))


@pytest.mark.usefixtures("quick")
def test_a_disk_that_cannot_be_written(craft: Craft, keys: Keys, disk: Path) -> None:
    home, first = Home(disk / "airlift"), craft(Recipe())
    _remount(disk, "ro")
    error = _refused(first, keys, home)
    assert (error.kind, "Read-only file system" in error.what) == (Kind.HOME, True)
    assert str(home.root) in error.where
    _remount(disk, "rw")
    run_import(first, keys.trust(), home)
    newer = craft(Recipe("1.1.0", 2))
    before = everything(home.root)
    _remount(disk, "ro")
    error = _refused(newer, keys, home)
    assert (error.kind, "Read-only file system" in error.what) == (Kind.HOME, True)
    installed.check(home.current, trust=keys.trust(), home=home)
    assert everything(home.root) == before
    _remount(disk, "rw")
    run_import(newer, keys.trust(), home)
    assert_finished(home, newer, keys.trust(), first)


HELD_IMPORT = """
import sys, time
from pathlib import Path
from bundle.jumphost import venv
from bundle.cli.main import main
from tests.unit.bundle.bundlekit import fake_venv

def held(release, manifest_sha256):
    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    fake_venv(release, manifest_sha256)

venv.make = held
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_imports_that_begin_at_the_same_moment(
    craft: Craft, keys: Keys, home: Home, tmp_path: Path
) -> None:
    """One of five processes imports; each of the others says that it is in progress."""
    bundle, go = craft(Recipe()), tmp_path / "go"
    command = [
        *(sys.executable, "-c", HELD_IMPORT, str(go)),
        *arguments("import", bundle, keys, home),
    ]
    running = [subprocess.Popen(command, cwd=TREE, stderr=subprocess.PIPE) for _ in range(5)]
    # The first one waits in the middle of its work until the others have ended.
    while sum(process.poll() is None for process in running) > 1:
        time.sleep(0.05)
    go.touch()
    said = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    assert sorted(codes) == sorted([0, *[Kind.LOCKED.exit_code] * 4]), said
    for code, errors in zip(codes, said, strict=True):
        assert code == 0 or b"another import or prune is in progress: " in errors
    assert_finished(home, bundle, keys.trust())
    assert subprocess.run(command, cwd=TREE, capture_output=True, check=False).returncode == 0
