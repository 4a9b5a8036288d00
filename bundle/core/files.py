"""Files: opened and read with care, written as a whole, hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from bundle.core.failures import doing


def open_regular(path: Path) -> BinaryIO:
    """Open a file; a pipe or a device, which may never end, is not waited for.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(fd, "rb")
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_file(path: Path, limit: int) -> bytes:
    """Read a small file of which nothing is known yet.

    Raises:
        OSError: it cannot be read, is no regular file, or has more bytes than the limit.
    """
    with open_regular(path) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"more than the {limit} bytes allowed", str(path))
    return data


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file as a whole: after a power cut it is the old one or the new one."""
    with doing("write", path):
        _write_atomic(path, data)


def _write_atomic(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    try:
        # Never through a link that somebody put there: a stick is anybody's.
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(fd, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise
    fsync_directory(path.parent)


def link_atomic(target: str, link: Path) -> None:
    """Point a symbolic link elsewhere in one step."""
    temporary = link.with_name(link.name + ".part")
    with doing("change the link", link):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
        fsync_directory(link.parent)


def fsync_directory(path: Path) -> None:
    """Make renames inside a directory durable."""
    with doing("bring to the disk", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_filesystem(path: Path) -> None:
    """Flush this file system only: a thousand small files at once, and no hanging NFS."""
    import ctypes  # noqa: PLC0415 - verifying needs nothing of it

    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
        if syncfs is None:
            os.sync()
        elif syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """Remove a directory with what is in it, or whatever else it is; never what a link names."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def is_file_of(path: Path, size: int) -> bool:
    """Whether it is a regular file, no link to one, with so many bytes.

    Raises:
        FileNotFoundError: it is not there.
    """
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def free_bytes(path: Path) -> int:
    """What this user may still write there."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def sha256(path: Path) -> str:
    """The hash of a whole file."""
    with doing("read", path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """The hash of some bytes."""
    return hashlib.sha256(data).hexdigest()
