"""Backup files: check space, write them durably and completely; for C(postgres_backup)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.host_tools import RefusedError, flush_directory

FINISHED = re.compile(r".+-(?P<stamp>\d{8}T\d{6}Z)\.(dump|json)")
# Space beside dump and copy: the scratch server's own catalogues and its write-ahead log.
MARGIN = 512 * 1024 * 1024
CHUNK = 1024 * 1024


def human(count: int) -> str:
    """Return a number of bytes in a readable unit."""
    size, units = float(count), iter(("kB", "MB", "GB", "TB"))
    unit = "bytes"
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.1f} {unit}" if unit != "bytes" else f"{count} bytes"


def require_space(directory: Path, size: int) -> None:
    """Refuse if there is no space for the largest possible dump and a copy of the database."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    need, free = 2 * size + MARGIN, shutil.disk_usage(existing).free
    if free < need:
        message = (
            f"it needs {human(need)} in {directory} (twice the database's {human(size)}, and "
            f"{human(MARGIN)}) and {human(free)} are free on that file system: free or add "
            f"{human(need - free)} there, then run the same command again"
        )
        raise RefusedError(message)


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Lock the directory; the kernel releases the lock when this process ends."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another backup is being taken in {directory}: wait until it has ended"
            raise RefusedError(message) from None
        yield
    finally:
        os.close(handle)


def create(path: Path) -> IO[bytes]:
    """Create a new file that only root can read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def flush(stream: IO[bytes]) -> None:
    """Flush a file to the disk and drop it from the cache, so that the next read uses the disk."""
    stream.flush()
    os.fsync(stream.fileno())
    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reread(path: Path, expected: str) -> None:
    """Refuse a file whose content on the disk is not what was written."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != expected:
        message = (
            f"{path} reads back from disk with another sha256 than it was written with: that disk "
            "cannot be trusted, see dmesg --level=err"
        )
        raise RefusedError(message)


def halves(directory: Path) -> list[Path]:
    """Return the leftovers of a killed run: unfinished files, and incomplete pairs."""
    other = {".dump": ".json", ".json": ".dump"}
    return [
        path
        for path in sorted(directory.iterdir())
        if path.name.endswith((".dump.part", ".json.part"))
        or (FINISHED.fullmatch(path.name) and not path.with_suffix(other[path.suffix]).exists())
    ]


def prune(directory: Path, keep: int, current: Path) -> list[str]:
    """Remove all but the newest backups; keep the current one even if the clock was set back."""
    others = sorted(
        (path for path in directory.glob("*.dump") if path != current and stamp(path)),
        key=stamp,
        reverse=True,
    )
    old = others[keep - 1 :]
    for path in old:
        # Remove the record first: a record must never exist without its dump.
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink()
    return [path.name for path in old]


def stamp(path: Path) -> str:
    """Return the time of a backup from its file name; an empty string for another file."""
    found = FINISHED.fullmatch(path.name)
    return found["stamp"] if found else ""


def finish(part: Path, path: Path, record: dict[str, Any]) -> None:
    """Rename the dump, then write its record: a record exists only for a tested dump."""
    record_part = path.with_suffix(".json.part")
    with create(record_part) as stream:
        stream.write(json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")
        flush(stream)
    part.rename(path)
    flush_directory(path.parent)
    record_part.rename(path.with_suffix(".json"))
    flush_directory(path.parent)
