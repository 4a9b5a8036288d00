"""Writing large results: is there room, may it be written, and one sentence when it fails."""

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

#: What a file system needs beside the bytes: names, tables.
MARGIN = 1 << 20
MOUNTS = Path("/proc/self/mountinfo")


def check_space(needed: int, out: Path, what: str) -> None:
    """Refuse before anything is written what cannot be finished."""
    free = free_bytes(out)
    if free < needed + MARGIN:
        raise AirliftError(
            Kind.NO_SPACE,
            f"{what} needs {size(needed + MARGIN)}, {size(free)} are free",
            where=str(out),
            fix=f"free {size(needed + MARGIN - free)} there, or name a directory on a larger "
            "disk: -o DIR",
        )


def check_replaces(path: Path, beginning: bytes, what: str) -> None:
    """Refuse to put a result where anything else than an older one lies, such as a bundle.

    `beginning` is what every file of the kind begins with.
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
            f"a file is there already, and it is no {what}; it is left as it is",
            where=str(path),
            fix="name a new file: -o FILE",
        )


@contextmanager
def writes_to(out: Path, *, continues: bool = True) -> Iterator[None]:
    """Turn what the operating system says of a failed write into the product's sentence."""
    try:
        yield
    except OSError as error:
        again = "run the same command again" + ("; it continues" if continues else "")
        raise os_failure(error, out, Kind.OUTPUT, does="write", again=again) from error


def flush(stream: BinaryIO) -> None:
    """Bring everything written so far to the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def filesystem(path: Path, mounts: Path = MOUNTS) -> str:
    """The type of the file system of a path or of its nearest parent, such as `vfat`, or ''."""
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
