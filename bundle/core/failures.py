"""Turns an error of the operating system into the product's own: problem, place, fix."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundle.errors import AirliftError, Kind

#: The start of a note on an error; the action and its path come next.
_NOTE = "airlift: "
_FULL = {
    errno.ENOSPC: "the disk ran full",
    errno.EDQUOT: "the disk quota is used up",
}
_OWNER = "run it as the owner of that path, or correct owner and mode (ls -ld shows them)"
_DEVICE = "connect the device again, and check `dmesg`: it is failing or was removed"
_NAME = "name another path"
#: The fix of an error, whatever the action was.
REMEDIES = {
    errno.EROFS: "mount it writable, or choose another directory",
    errno.EFBIG: "choose a directory on another file system (FAT32 holds files below 4.29 GB)",
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.EIO: _DEVICE,
    errno.ENODEV: _DEVICE,
    errno.ENXIO: _DEVICE,
    errno.ENOMEDIUM: _DEVICE,
    errno.ESTALE: _DEVICE,
    errno.ENOENT: "check the path, and that its file system is mounted",
    errno.ENOTDIR: _NAME,
    errno.EISDIR: _NAME,
    errno.ELOOP: _NAME,
    errno.ENAMETOOLONG: _NAME,
    errno.EEXIST: "check what is there, and move it away or name another path",
    errno.ENOTEMPTY: "check what is in it, and move that away or name another path",
    errno.EXDEV: "name a directory on the same file system",
    errno.EBUSY: "end the program that uses it (fuser -v shows it)",
    errno.ETXTBSY: "end the program that uses it (fuser -v shows it)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "end other programs: the system has too many open files",
    errno.ENOMEM: "free some memory",
}
# When a file is read, these errors mean something else.
_READING = {errno.EFBIG: "name the right file", errno.EINVAL: "name a regular file"}
# The action of each function of the standard library that raises.
_DOES = {
    **dict.fromkeys(("mkdir", "makedirs", "mkdtemp", "mkstemp", "touch"), "make"),
    **dict.fromkeys(("unlink", "rmdir", "rmtree", "_rmtree_safe_fd"), "remove"),
    **dict.fromkeys(("rename", "replace", "move"), "rename"),
    **dict.fromkeys(("symlink_to", "hardlink_to", "link_to"), "link"),
    **dict.fromkeys(("iterdir", "scandir", "walk", "glob", "_iterate_directories"), "list"),
    **dict.fromkeys(("stat", "lstat", "is_file", "is_dir", "exists"), "check"),
    "open": "open",
    "chmod": "change the mode of",
    "readlink": "read the link",
}
_LIBRARY = {"pathlib", "_local", "os", "shutil", "tempfile", "posixpath", "genericpath"}


@contextmanager
def doing(what: str, path: Path) -> Iterator[None]:
    """Note the action and the path on an error of the operating system: `read`, `write`.

    If several are nested, the innermost counts. The error itself is not changed.
    """
    try:
        yield
    except OSError as error:
        if not _noted(error):
            error.add_note(f"{_NOTE}{what} {path}")
        raise


def os_failure(
    error: OSError,
    where: Path | None,
    kind: Kind = Kind.FILE,
    *,
    does: str = "use",
    again: str = "run the same command again",
) -> AirliftError:
    """Return the problem and the fix for an error of the operating system.

    Args:
        error: of the operating system.
        where: the path, if known, for an error that names no file, such as one of an open file.
        kind: of the returned error, unless a disk is full.
        does: the action, for an error that does not show it.
        again: what to do after the fix.
    """
    done = _noted(error) or _by_itself(error, does) or (f"{does} {where}" if where else "")
    message = error.strerror or str(error) or type(error).__name__
    place = str(error.filename or where or "")
    what = f"cannot {done}: {message}" if done else f"operating system error: {message}"
    if full := _FULL.get(error.errno or 0):
        return AirliftError(
            Kind.NO_SPACE,
            f"{full}: {what}",
            where=place,
            fix=f"free some space there (df -h, df -i), then {again}",
        )
    remedies = {**REMEDIES, **_READING} if done.startswith(("read ", "open ")) else REMEDIES
    remedy = remedies.get(error.errno or 0)
    fix = f"{remedy}, then {again}" if remedy else again
    return AirliftError(kind, what, where=place, fix=fix)


def _noted(error: OSError) -> str:
    """Return the note that `doing` made."""
    notes = getattr(error, "__notes__", ())
    return next((one.removeprefix(_NOTE) for one in notes if one.startswith(_NOTE)), "")


def _by_itself(error: OSError, does: str) -> str:
    """Return the action of an error that names files; two are named only by a rename or link."""
    if error.filename is None:
        return ""
    codes = []
    step = error.__traceback__
    while step is not None:
        codes.append(step.tb_frame.f_code)
        step = step.tb_next
    for code in reversed(codes):
        if Path(code.co_filename).stem not in _LIBRARY and "pathlib" not in code.co_filename:
            break
        does = _DOES.get(code.co_name, does)
    if error.filename2 is not None:
        return f"{'link' if does == 'link' else 'rename'} {error.filename} to {error.filename2}"
    return f"{does} {error.filename}"
