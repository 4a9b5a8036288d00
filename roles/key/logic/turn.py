"""Serialise runs of `keys.yml` on a jump host: two would start the same container on the app host.

A run needs the lock for several tasks, so a file names the run that holds it. The lock of an ended
run is void.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from roles.site.logic.folder import is_shared


def take(path: Path, run: str, is_dead: Callable[[str], bool], *, seconds: float) -> str:
    """Take the lock within so many seconds and return ''; else return the run that holds it."""
    deadline = time.monotonic() + seconds
    while True:
        with _opened(path) as file:
            holder = file.read().strip()
            if holder in ("", run) or is_dead(holder):
                _fill(file, run)
                return ""
        if time.monotonic() >= deadline:
            return holder
        time.sleep(0.3)


def give_back(path: Path, run: str) -> None:
    """Release the lock if this run holds it."""
    with _opened(path) as file:
        if file.read().strip() == run:
            _fill(file, "")


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    # All operators of a group take turns; who did not make the file cannot change its mode.
    if is_shared(path.parent):
        with suppress(PermissionError):
            os.fchmod(handle, 0o660)
    with os.fdopen(handle, "r+") as file:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield file


def _fill(file: TextIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()
