"""Files: opened and read with care, written as a whole, hashed.

Only this module opens files that another person may have put in place.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TextIO

from bundle.core.failures import doing

#: How the name of a file ends while it is being written.
UNFINISHED = ".part"


def open_regular(path: Path, limit: int | None, *, links: bool = False) -> BufferedReader:
    """Open an untrusted file for reading.

    Args:
        path: of a regular file. A pipe or a device is refused without opening it.
        limit: the most bytes that the file may have; None if the caller counts what it reads.
        links: whether it may be a symbolic link. Allow that only for paths that a person names, not
            for files beside or below them.

    Raises:
        OSError: it cannot be opened, is something else, or is too long.
    """
    # Check before opening: opening a device alone can rewind a tape.
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
    """Read a small untrusted file, as `open_regular` opens it.

    Raises:
        OSError: it cannot be read, is no regular file, or has more bytes than the limit.
    """
    with open_regular(path, limit, links=links) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise _too_long(path, limit)
    return data


def create(path: Path, mode: int = 0o666) -> BinaryIO:
    """Make a new file in place of any other; a link on an untrusted drive is not followed."""
    path.unlink(missing_ok=True)
    return _create(path, mode)


def _create(path: Path, mode: int = 0o666) -> BinaryIO:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    return os.fdopen(fd, "wb")


def open_own(path: Path) -> BinaryIO:
    """Open a file that later runs continue, unbuffered; make it if it does not exist."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
    stream = os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0)
    try:
        _check_regular(path, os.fstat(stream.fileno()), None)
    except OSError:
        stream.close()
        raise
    return stream


def write_atomic(path: Path, data: bytes, *, durable: bool = True, mode: int | None = None) -> None:
    """Replace a file as a whole: after a power cut it is the old one or the new one.

    Args:
        path: of the file.
        data: its new content.
        durable: whether the new content must reach the disk, and what killed writers left is
            removed. A cache can do without.
        mode: of the file; without it, the umask decides.
    """
    if durable:
        _remove_abandoned(path)
    with doing("write", path), _unfinished(path) as (temporary, out):
        if mode is not None:
            os.fchmod(out.fileno(), mode)
        out.write(data)
        out.flush()
        if durable:
            os.fsync(out.fileno())
        temporary.replace(path)
        if durable:
            fsync_directory(path.parent)


@contextmanager
def _unfinished(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new file beside the target, which no other writer uses or removes; remove it after.

    The name is as unique as that of `mkstemp`, but the mode follows the umask: a drive that another
    user mounted allows no change of mode. The lock tells other writers that this one is running, so
    that they remove only what a killed one left.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}{UNFINISHED}")
        out = _create(temporary)
        with suppress(OSError):  # not every file system has locks
            fcntl.flock(out.fileno(), fcntl.LOCK_EX)
        # Before it was locked, another writer may have removed it as abandoned.
        if temporary.exists():
            break
        out.close()
    try:
        yield temporary, out
    finally:
        with suppress(OSError):
            temporary.unlink()
        # Closing writes what is still in memory, which may fail on a full disk.
        with suppress(OSError):
            out.close()


def _remove_abandoned(path: Path) -> None:
    """Remove what killed writers of this file left; a running one holds its lock."""
    with suppress(OSError):
        for left in path.parent.iterdir():
            if not (left.name.startswith(f".{path.name}.") and left.suffix == UNFINISHED):
                continue
            with suppress(OSError), open_regular(left, None) as stream:
                fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()


def link_atomic(target: str, link: Path) -> None:
    """Point a symbolic link elsewhere in one step."""
    temporary = link.with_name(link.name + UNFINISHED)
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
    """Flush only this file system: fast for many small files, and no other one can block it."""
    import ctypes  # noqa: PLC0415 - not needed to verify

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


def exchange(one: Path, other: Path) -> None:
    """Exchange two directories or files in one step: at no time is one of them missing.

    Raises:
        OSError: the file system cannot do that.
    """
    import ctypes  # noqa: PLC0415 - not needed to verify

    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(other))
    if rename(here, os.fsencode(one), here, os.fsencode(other), ctypes.c_uint(flag)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(other))
    for folder in {one.parent, other.parent}:
        fsync_directory(folder)


def discard(stream: TextIO) -> None:
    """Redirect a stream to /dev/null, so that Python's last flush of it does not fail again."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def remove(path: Path) -> None:
    """Remove a directory with its content, or a file or link; never the target of a link."""
    if path.is_dir() and not path.is_symlink():
        import shutil  # noqa: PLC0415 - not needed to verify

        shutil.rmtree(path)
    else:
        path.unlink()


def is_file_of(path: Path, size: int) -> bool:
    """Return whether a path is a regular file, not a link, of this size.

    Raises:
        FileNotFoundError: it does not exist.
    """
    status = path.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def free_bytes(path: Path) -> int:
    """Return the bytes that this user may still write there."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def sha256(path: Path) -> str:
    """Return the hash of a whole file."""
    with doing("read", path), open_regular(path, None, links=True) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Return the hash of some bytes."""
    return hashlib.sha256(data).hexdigest()
