"""A lock between readers of the store's blobs and prune: either reads or removes, never both.

The lock is on the blobs' directory itself. Every user who can read the store can take it, it leaves
no file behind, and the kernel frees it when the process ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundle.core.files import open_directory, read_file
from bundle.errors import AirliftError, Kind

_LOCKS = Path("/proc/locks")
_MOST = 1 << 20


@contextmanager
def reading(store: Path) -> Iterator[None]:
    """Prevent that blobs of the store are removed.

    Raises:
        AirliftError: a prune is removing some.
    """
    fd = begin(store)
    try:
        yield
    finally:
        os.close(fd)


def begin(store: Path) -> int:
    """Do the same until the returned file descriptor, and every duplicate of it, is closed."""
    blobs = store / "blobs" / "sha256"
    return _locked(
        *(blobs, fcntl.LOCK_SH, "a prune is removing blobs of this store", "WRITE"),
        fix="wait for it and run this command again",
    )


@contextmanager
def nobody(store: Path) -> Iterator[None]:
    """Lock the store exclusively, to remove blobs.

    Raises:
        AirliftError: another process reads it; the message names that process.
    """
    blobs = store / "blobs" / "sha256"
    fd = _locked(
        *(blobs, fcntl.LOCK_EX, "nothing was pruned: hosts are served from this store", "READ"),
        fix="wait until the playbook ends, or stop `bundle serve`, and run this command again",
    )
    try:
        yield
    finally:
        os.close(fd)


def _locked(blobs: Path, how: int, what: str, mode: str, *, fix: str) -> int:
    try:
        fd = open_directory(blobs)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AirliftError(
            Kind.HOME,
            "there is no store",
            where=str(blobs),
            fix="import a bundle on this jump host first",
        ) from error
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError as error:
        by = _holder(os.fstat(fd), mode)
        os.close(fd)
        raise AirliftError(
            Kind.LOCKED, f"{what}{f' by {by}' if by else ''}", where=str(blobs), fix=fix
        ) from error
    except BaseException:
        os.close(fd)
        raise
    return fd


def _holder(status: os.stat_result, mode: str) -> str:
    """Return the process that has the lock, as the kernel lists it; '' if it is unknown.

    It is named by its program only, because arguments may hold secrets.
    """
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = [line.split() for line in read_file(_LOCKS, _MOST).decode().splitlines()]
    except OSError:
        return ""
    for words in lines:
        # 7: FLOCK  ADVISORY  READ 4711 fe:00:131090 0 EOF
        if words[1:2] == ["FLOCK"] and words[3:4] == [mode] and words[5:6] == [place]:
            pid = words[4]
            try:
                name = read_file(Path("/proc", pid, "comm"), _MOST).decode(errors="replace")
            except OSError:  # of another container, or just gone
                continue
            return f"process {pid} ({name.strip()})"
    return ""
