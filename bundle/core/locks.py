"""Locks between the processes of one machine; the kernel releases them when a process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundle.core.files import open_directory, open_own

#: A lock without waiting, and a lock that several processes can hold.
AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB
SHARED = fcntl.LOCK_SH


@contextmanager
def folder(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Hold the lock of a folder; with `AT_ONCE`, yield whether it was free."""
    fd = open_directory(path)
    try:
        yield _taken(fd, how)
    finally:
        os.close(fd)


@contextmanager
def file(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Hold the lock of a file that exists only for this and is never removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_own(path) as stream:
        yield _taken(stream.fileno(), how)


def _taken(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        return False
    return True
