"""Locks between the builds of one machine; the kernel frees them when their process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: For a lock that is not waited for.
AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB


@contextmanager
def folder(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Hold the lock of a folder; with `AT_ONCE`, yield whether it was free."""
    with _held(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), how) as free:
        yield free


@contextmanager
def file(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Hold the lock that is a file of its own; nobody removes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), how) as free:
        yield free


@contextmanager
def _held(fd: int, how: int) -> Iterator[bool]:
    try:
        free = True
        try:
            fcntl.flock(fd, how)
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(fd)
