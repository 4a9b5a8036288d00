"""Files: opened and read with care, written as a whole, hashed.

Nothing else in `bundle/` opens a file that somebody else may have put where it lies.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TextIO

from bundle.core.failures import doing


def open_regular(path: Path, limit: int | None, *, links: bool = False) -> BufferedReader:
    """Open a file of which nothing is known yet, for reading.

    Args:
        path: what is not a regular file, such as a pipe or a device, is neither opened nor waited
            for.
        limit: the most bytes that it may have; nothing for whoever counts what is read.
        links: whether it may be a symbolic link. That is for paths that a person names: what lies
            beside or below them leads nowhere else.

    Raises:
        OSError: it cannot be opened, is something else, or is too long.
    """
    # A device is not even opened: that alone can rewind a tape.
    _check_regular(path, path.stat(follow_symlinks=links), limit)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    stream = os.fdopen(os.open(path, flags | (0 if links else os.O_NOFOLLOW)), "rb")
    try:
        _check_regular(path, os.fstat(stream.fileno()), limit)
    except OSError:
        stream.close()
        raise
    return stream


def _check_regular(path: Path, status: os.stat_result, limit: int | None) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "it is a symbolic link", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if limit is not None and status.st_size > limit:
        raise _too_long(path, limit)


def _too_long(path: Path, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"more than the {limit} bytes allowed", str(path))


def read_file(path: Path, limit: int, *, links: bool = False) -> bytes:
    """Read a small file of which nothing is known yet, as `open_regular` opens it.

    Raises:
        OSError: it cannot be read, is no regular file, or has more bytes than the limit.
    """
    with open_regular(path, limit, links=links) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise _too_long(path, limit)
    return data


def create(path: Path, mode: int = 0o666) -> BinaryIO:
    """Make a new file in place of whatever is there, never through a link: a stick is anybody's."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    return os.fdopen(fd, "wb")


def open_own(path: Path) -> BinaryIO:
    """Open a file that goes on from run to run, unbuffered; it is made if it is not there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
    stream = os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0)
    try:
        _check_regular(path, os.fstat(stream.fileno()), None)
    except OSError:
        stream.close()
        raise
    return stream


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file as a whole: after a power cut it is the old one or the new one."""
    with doing("write", path):
        _write_atomic(path, data)


def _write_atomic(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    try:
        with create(temporary) as out:
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


def open_directory(path: Path) -> int:
    """Return a descriptor of a directory, to flush or to lock it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def fsync_directory(path: Path) -> None:
    """Make renames inside a directory durable."""
    with doing("bring to the disk", path):
        fd = open_directory(path)
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


def discard(stream: TextIO) -> None:
    """Let a stream lead nowhere: Python flushes once more at its end, which must not fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


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
    with doing("read", path), open_regular(path, None, links=True) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """The hash of some bytes."""
    return hashlib.sha256(data).hexdigest()
