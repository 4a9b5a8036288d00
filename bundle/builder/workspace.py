"""A folder for a build's half-made files; what a killed build left behind goes with the next."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PREFIX = ".build-"


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Make a folder beside the results, so that a rename brings them there; remove it at the end.

    A build holds a lock on its folder for as long as it lives, so those of other builds that run
    at the same time are left alone.
    """
    with ExitStack() as held:
        # Nobody sweeps between the making of a folder and its lock.
        with _locked(out, fcntl.LOCK_EX):
            for left in sorted(out.glob(f"{PREFIX}*")):
                with _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB) as abandoned:
                    if abandoned:
                        shutil.rmtree(left, ignore_errors=True)
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX, dir=out))
            held.enter_context(_locked(Path(folder), fcntl.LOCK_EX))
        yield Path(folder)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[bool]:
    """Take the lock of a folder, if it is free; it dies with its process."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        free = True
        try:
            fcntl.flock(fd, how)
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(fd)
