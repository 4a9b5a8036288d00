"""Writing large results: check space and permission, and explain failures in one sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bundle.core.failures import os_failure
from bundle.core.files import free_bytes, open_regular
from bundle.core.text import size
from bundle.errors import AirliftError, Kind

#: Bytes that a file system needs for itself, such as names and tables.
MARGIN = 1 << 20
MOUNTS = Path("/proc/self/mountinfo")


def check_space(needed: int, out: Path, what: str) -> None:
    """Refuse a result that does not fit, before anything is written."""
    free = free_bytes(out)
    if free < needed + MARGIN:
        raise AirliftError(
            Kind.NO_SPACE,
            f"{what} needs {size(needed + MARGIN)}, but only {size(free)} are free",
            where=str(out),
            fix=f"free {size(needed + MARGIN - free)} there, or name a directory on a larger "
            "disk: -o DIR",
        )


def check_replaces(path: Path, beginning: bytes, what: str) -> None:
    """Refuse to replace any file but an older result, for example a bundle.

    `beginning` is how every file of the result's kind begins.
    """
    try:
        with open_regular(path, None, links=True) as stream:
            found = stream.read(len(beginning))
    except FileNotFoundError:
        return
    except OSError as error:
        raise os_failure(error, path, Kind.OUTPUT, does="read") from error
    if found != beginning:
        raise AirliftError(
            Kind.OUTPUT,
            f"there is a file already, and it is no {what}; it was not changed",
            where=str(path),
            fix="name a new file: -o FILE",
        )


@contextmanager
def writes_to(out: Path, *, continues: bool = True) -> Iterator[None]:
    """Turn an error of the operating system during a write into the product's own."""
    try:
        yield
    except OSError as error:
        again = "run the same command again" + ("; it continues" if continues else "")
        raise os_failure(error, out, Kind.OUTPUT, does="write", again=again) from error


def flush(stream: BinaryIO) -> None:
    """Flush everything that was written so far to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def filesystem(path: Path, mounts: Path = MOUNTS) -> str:
    """Return the file system type of a path or its nearest parent, such as `vfat`, or ''."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            return after.split()[0]
    return ""
