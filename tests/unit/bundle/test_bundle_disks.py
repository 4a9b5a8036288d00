"""Full or read-only disks are detected before work starts, or reported in one sentence."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bundle.carry import join, split
from bundle.cli.main import main
from bundle.errors import AirliftError, Kind
from bundle.jumphost import importer
from bundle.jumphost.store import Home
from tests.unit.bundle.bundlekit import (
    Keys,
    arguments,
    assert_finished,
    disk_of,
    everything,
    run_import,
)

NAME = "airlift-1.0.0-amd64.tar"
SIZE = 400_000


def nothing(_: object) -> None:
    """Discard log and progress messages."""


def fill(folder: Path) -> None:
    """Fill the remaining space."""
    filler = folder / "filler"
    if not filler.exists():
        filler.touch()
        status = os.statvfs(folder)
        with filler.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, status.f_bavail * status.f_frsize)


def test_too_little_room_is_known_before_anything_is_written(
    big: Path, stick: Path, keys: Keys, tmp_path: Path
) -> None:
    with disk_of(tmp_path / "disk", "size=2m") as small:
        home = Home(small / "airlift")
        for action in (
            lambda: join.join([stick], out=small, trust=None, log=nothing, progress=nothing),
            lambda: split.split(big, size=SIZE, out=small, key=None, log=nothing, progress=nothing),
            lambda: run_import(stick, keys.trust(), home),
        ):
            with pytest.raises(AirliftError) as caught:
                action()
            assert caught.value.kind is Kind.NO_SPACE
            assert " free" in caught.value.what
            assert list(everything(small)) in ([], ["airlift/store/lock"])


@pytest.mark.usefixtures("quick")
def test_a_disk_that_fills_up_meanwhile(big: Path, stick: Path, keys: Keys, tmp_path: Path) -> None:
    with disk_of(tmp_path / "disk", "size=80m") as small:
        home = Home(small / "airlift")

        def progress(_: int) -> None:
            fill(small)

        for action in (
            lambda p: join.join([stick], out=small, trust=None, log=nothing, progress=p),
            lambda p: split.split(
                big, size=SIZE, out=small / "parts", key=None, log=nothing, progress=p
            ),
            lambda p: importer.run(stick, trust=keys.trust(), home=home, log=nothing, progress=p),
        ):
            with pytest.raises(AirliftError) as caught:
                action(progress)
            assert (caught.value.kind, "ran full" in caught.value.what) == (Kind.NO_SPACE, True)
            assert not home.current.exists()
            (small / "filler").unlink()
            action(nothing)
        assert (small / NAME).read_bytes() == big.read_bytes()
        # All parts and their index.
        assert len(list((small / "parts").iterdir())) == -(-big.stat().st_size // SIZE) + 1
        assert_finished(home, big, keys.trust())


def test_a_read_only_disk(
    big: Path, stick: Path, keys: Keys, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with disk_of(tmp_path / "disk", "size=1m") as small:
        home = Home(small / "airlift")
        home.create()
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        log = ["--who", "Ann", "--custody", str(small / "log")]
        for command, code in (
            (["join", str(stick), "-o", str(small)], Kind.OUTPUT),
            (["split", str(big), "-o", str(small / "new")], Kind.OUTPUT),
            (arguments("import", stick, keys, home), Kind.HOME),
            ([*arguments("verify", stick, keys, home), *log], Kind.OUTPUT),
        ):
            assert main(command) == code.exit_code
            error = capsys.readouterr().err
            assert "Traceback" not in error
            assert "mount it writable" in error or "mount the drive writable" in error
