"""Backups as files: room for them, made durably, complete or not there; for C(postgres_backup)."""

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
# Beside dump and copy: the throw-away server's own catalogs and its write-ahead log.
MARGIN = 512 * 1024 * 1024
CHUNK = 1024 * 1024


def human(count: int) -> str:
    """Return bytes for people."""
    size, units = float(count), iter(("kB", "MB", "GB", "TB"))
    unit = "bytes"
    while size >= 1000 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.1f} {unit}" if unit != "bytes" else f"{count} bytes"


def require_space(directory: Path, size: int) -> None:
    """Refuse when the dump at its worst and a copy of the database do not fit."""
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
    """Hold the directory; the kernel lets go of it however this process ends."""
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
    """Open a file that is not there yet, readable by root only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def flush(stream: IO[bytes]) -> None:
    """Bring a file to disk, and out of the cache, so that reading it asks the disk."""
    stream.flush()
    os.fsync(stream.fileno())
    os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def reread(path: Path, expected: str) -> None:
    """Refuse a file that is not on disk what was written."""
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
    """Return what a killed run left: unfinished files, and one of a pair without the other."""
    other = {".dump": ".json", ".json": ".dump"}
    return [
        path
        for path in sorted(directory.iterdir())
        if path.name.endswith((".dump.part", ".json.part"))
        or (FINISHED.fullmatch(path.name) and not path.with_suffix(other[path.suffix]).exists())
    ]


def prune(directory: Path, keep: int, current: Path) -> list[str]:
    """Remove all but the newest backups; the present one stays even if the clock was set back."""
    others = sorted(
        (path for path in directory.glob("*.dump") if path != current and stamp(path)),
        key=stamp,
        reverse=True,
    )
    old = others[keep - 1 :]
    for path in old:
        # The record first: there is none without its dump at any moment.
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink()
    return [path.name for path in old]


def stamp(path: Path) -> str:
    """Return when a backup was taken, as its name says; nothing for another file."""
    found = FINISHED.fullmatch(path.name)
    return found["stamp"] if found else ""


def finish(part: Path, path: Path, record: dict[str, Any]) -> None:
    """Give the dump its name, then its record: a record exists only for a tested dump."""
    record_part = path.with_suffix(".json.part")
    with create(record_part) as stream:
        stream.write(json.dumps(record, indent=2, ensure_ascii=False).encode() + b"\n")
        flush(stream)
    part.rename(path)
    flush_directory(path.parent)
    record_part.rename(path.with_suffix(".json"))
    flush_directory(path.parent)
