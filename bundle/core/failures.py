"""What the operating system refused, as the product's own error: what failed, where, what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bundle.errors import AirliftError, Kind

#: How a note on an error begins; what was done, and to what, comes next.
_NOTE = "airlift: "
_FULL = {
    errno.ENOSPC: "the disk ran full",
    errno.EDQUOT: "the disk quota is used up",
}
_OWNER = "run it as the user who owns that, or correct owner and mode (ls -ld shows them)"
_DEVICE = "the device fails or was taken out: connect it again, and look at `dmesg`"
_NAME = "name another path"
#: What helps against an error, whatever was done.
REMEDIES = {
    errno.EROFS: "mount it writable, or choose another directory",
    errno.EFBIG: "FAT32 holds files below 4 GiB only: choose a directory on another file system",
    errno.EACCES: _OWNER,
    errno.EPERM: _OWNER,
    errno.EIO: _DEVICE,
    errno.ENODEV: _DEVICE,
    errno.ENXIO: _DEVICE,
    errno.ENOMEDIUM: _DEVICE,
    errno.ESTALE: _DEVICE,
    errno.ENOENT: "check the path, and whether what it is on is mounted",
    errno.ENOTDIR: _NAME,
    errno.EISDIR: _NAME,
    errno.ELOOP: _NAME,
    errno.ENAMETOOLONG: _NAME,
    errno.EEXIST: "look at what is there, and move it away or name another path",
    errno.ENOTEMPTY: "look at what is in there, and move it away or name another path",
    errno.EXDEV: "name a directory on the same file system",
    errno.EBUSY: "end what uses it (fuser -v shows that)",
    errno.ETXTBSY: "end what uses it (fuser -v shows that)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "end other programs: the system has too many open files",
    errno.ENOMEM: "free some memory",
}
# Of a file that is read, these mean something else.
_READING = {errno.EFBIG: "name the file that is meant", errno.EINVAL: "name a regular file"}
# By the functions of the standard library that raise: what they do.
_DOES = {
    **dict.fromkeys(("mkdir", "makedirs", "mkdtemp", "mkstemp", "touch"), "make"),
    **dict.fromkeys(("unlink", "rmdir", "rmtree", "_rmtree_safe_fd"), "remove"),
    **dict.fromkeys(("rename", "replace", "move"), "rename"),
    **dict.fromkeys(("symlink_to", "hardlink_to", "link_to"), "link"),
    **dict.fromkeys(("iterdir", "scandir", "walk", "glob", "_iterate_directories"), "list"),
    **dict.fromkeys(("stat", "lstat", "is_file", "is_dir", "exists"), "look at"),
    "open": "open",
    "chmod": "change the mode of",
    "readlink": "read the link",
}
_LIBRARY = {"pathlib", "_local", "os", "shutil", "tempfile", "posixpath", "genericpath"}


@contextmanager
def doing(what: str, path: Path) -> Iterator[None]:
    """Let an error of the operating system say what was done to which file: `read`, `write`.

    Of several around each other the innermost counts. The error stays what it is.
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
    """Return the sentence and the remedy for what the operating system refused.

    Args:
        error: its error.
        where: what was worked on, if that is known; for an error that names no file, as those of
            open files do.
        kind: of the error, unless a disk is full.
        does: what was done, for an error that does not show it.
        again: what to do after the remedy.
    """
    done = _noted(error) or _by_itself(error, does) or (f"{does} {where}" if where else "")
    said = error.strerror or str(error) or type(error).__name__
    place = str(error.filename or where or "")
    what = f"cannot {done}: {said}" if done else f"the operating system says: {said}"
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
    """What `doing` wrote on it."""
    notes = getattr(error, "__notes__", ())
    return next((one.removeprefix(_NOTE) for one in notes if one.startswith(_NOTE)), "")


def _by_itself(error: OSError, does: str) -> str:
    """What an error says that names files: two of them only where something gets another name."""
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
