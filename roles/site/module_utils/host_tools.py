"""Functions that modules on a host share: run a program, replace a file, find the login."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from pathlib import Path

PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROC = Path("/proc")
#: A shell's exit code for a missing program.
ABSENT = 127


class RefusedError(Exception):
    """The reason for a refusal, for the operator."""


def run(
    *command: str, seconds: float | None = 60, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program; a missing program or one that hangs counts as failed."""
    # The login's PATH may lack sbin, where the engine's program looks for others.
    places = f"{os.environ.get('PATH', '')}:{PLACES}"
    try:
        return subprocess.run(
            command,
            env={**os.environ, "PATH": places, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        code = ABSENT if isinstance(error, FileNotFoundError) else 1
        return subprocess.CompletedProcess(command, code, "", str(error))


def replace(
    path: Path, content: str | bytes, mode: int = 0o644, owner: tuple[int, int] | None = None
) -> None:
    """Replace a file atomically and flush it; it never exists with another mode or owner.

    Without an owner, the current user owns it. Its mode does not depend on the umask.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def ids(owner: str) -> tuple[int, int]:
    """Return the numbers in `uid:gid`, or in a uid alone."""
    uid, _, gid = owner.partition(":")
    return int(uid), int(gid or uid)


def rights_differ(path: Path, owner: tuple[int, int], mode: int) -> bool:
    """Say whether a path has another owner or mode than wanted."""
    status = path.lstat()
    return (status.st_uid, status.st_gid, status.st_mode & 0o7777) != (*owner, mode)


def own(path: Path, owner: tuple[int, int], mode: int) -> None:
    """Give a path its owner and mode."""
    os.chown(path, *owner)
    path.chmod(mode)


def flush_directory(directory: Path) -> None:
    """Make renames in a directory survive a power cut."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def existing(path: str) -> Path:
    """Return a path, or the nearest one above it that exists."""
    place = Path(path)
    while not place.exists():
        place = place.parent
    return place


def login_address(pid: int = 0) -> str:
    """Return the address from which this login came over SSH; empty without SSH.

    sudo does not pass it to root, but sshd set it for the login process above this one.
    """
    pid = pid or os.getpid()
    while pid > 1:
        process, given = PROC / str(pid), b""
        with contextlib.suppress(OSError):
            given = (process / "environ").read_bytes()
        for one in given.split(b"\0"):
            if one.startswith(b"SSH_CONNECTION="):
                return one.partition(b"=")[2].split(b" ")[0].decode()
        try:
            # The name, in parentheses, may contain blanks and parentheses itself.
            pid = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return ""
    return ""
