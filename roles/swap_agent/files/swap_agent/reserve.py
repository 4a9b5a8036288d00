"""Disk space reserved for restoring a release: a full disk must not keep a bad release active."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from swap_agent.nginx import Edge

#: A reserve is many files, not one: a disk can run out of inodes, too.
FILES = 32
SIZE = 32 * 1024
#: How many times its size must be free before a reserve is made.
SPARE = 4


def places(edge: Edge) -> tuple[Path, Path]:
    """Return where reserves are: beside the record, and beside the trees."""
    return edge.settings.state_file.with_name("reserve"), edge.settings.root / "reserve"


def keep(edge: Edge) -> None:
    """Make each missing reserve where there is enough space for it and for other uses."""
    for place in places(edge):
        # Without one the agent works as well as it can.
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = {path.name for path in place.iterdir()}
            disk = os.statvfs(place)
            names = disk.f_favail if disk.f_files else SPARE * FILES
            if disk.f_bavail * disk.f_frsize < SPARE * FILES * SIZE or names < SPARE * FILES:
                continue
            for number in range(FILES):
                if f"{number:02d}" not in there:
                    _fill(place / f"{number:02d}")


def _fill(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(handle, 0, SIZE)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(handle)


def free(edge: Edge) -> bool:
    """Remove the reserves; return whether there were any."""
    there = [place for place in places(edge) if place.is_dir() and any(place.iterdir())]
    for place in there:
        shutil.rmtree(place, ignore_errors=True)
    return bool(there)
