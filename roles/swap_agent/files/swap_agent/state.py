"""Settings of the agent, the record of what the edge serves, and durable writes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

SETTINGS = Path("/etc/airlift/swap.json")
COLOURS = ("blue", "green")
_Record = TypeVar("_Record")
#: What a field of a record may be, by its annotation.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
}


class SwapError(Exception):
    """What went wrong, in a sentence for the operator."""


class NoRoomError(SwapError):
    """A file system is full, or has no inodes left."""


def _cure(error: OSError, path: Path) -> str:
    """Return the fix for a file that cannot be used."""
    host, again = socket.gethostname(), "then run the same command again"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        folder = path.parent
        return f"free space on {host} (df -h {folder}; df -i {folder}), {again}"
    if error.errno == errno.EROFS:
        return f"on {host}, find the cause with dmesg, mount it for writing, {again}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"run it as root on {host}: sudo airlift-swap …"
    return f"find the cause on {host} with dmesg, {again}"


def parsed(text: str) -> dict[str, Any]:
    """Return the object in a JSON text; ValueError for anything else."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def made(kind: type[_Record], raw: dict[str, Any]) -> _Record:
    """Return a record from saved data; TypeError where a field is missing or has a wrong type.

    Without this check a damaged file would be a traceback wherever the field is used first.
    """
    found = kind(**raw)
    for field in dataclasses.fields(found):  # type: ignore[arg-type]
        value = getattr(found, field.name)
        if isinstance(value, bool) or not isinstance(value, _KINDS[str(field.type)]):
            raise TypeError(f"{field.name} is of another type")
    return found


@contextlib.contextmanager
def in_words(path: Path | None = None) -> Iterator[None]:
    """Turn the system's error about a file into a sentence; without a path, the error names it."""
    try:
        yield
    except OSError as error:
        named = path or Path(os.fsdecode(error.filename or "a file"))
        kind = NoRoomError if error.errno in (errno.ENOSPC, errno.EDQUOT) else SwapError
        why = os.strerror(error.errno) if error.errno else str(error)
        what = "write" if path or kind is NoRoomError else "use"
        raise kind(f"cannot {what} {named}: {why}; {_cure(error, named)}") from error


class BusyError(SwapError):
    """Another agent process is running on this host."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of the agent for this host, written by the role."""

    root: Path
    state_file: Path
    files: tuple[str, ...]
    container: str
    image: str
    user: str
    probe_address: str
    probe_port: int
    reload_timeout: float = 15.0
    drain_timeout: float = 130.0
    #: How long one agent waits for another; above drain_timeout.
    agent_timeout: float = 180.0
    keep_trees: int = 3
    #: The last results of the watch, for others to read; a reboot removes them.
    watch_dir: Path = Path("/run/airlift")
    #: On a site with several edges: this one's name, the one that holds the site's record, and the
    #: others as name: address and port of their status listener.
    name: str = ""
    lead: str = ""
    edges: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read the settings file that the role writes."""
        try:
            raw = parsed(path.read_text())
            for name in {"root", "state_file", "watch_dir"} & set(raw):
                raw[name] = Path(raw[name])
            raw["files"] = tuple(raw["files"])
            return cls(**raw)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SwapError(f"cannot read the agent's settings {path}: {error}") from error


@dataclasses.dataclass(frozen=True)
class State:
    """What the edge serves; the only record of it on the site."""

    active: str
    standby: str | None
    release: str
    serial: int
    generation: int
    since: str
    #: The rollback target, served from the standby or from the pinned images.
    previous_release: str | None = None
    previous_serial: int | None = None
    #: End of the rollback window. Without a standby: one is to be created again.
    warm_until: str | None = None

    @classmethod
    def load(cls, path: Path) -> State | None:
        """Read the state; None before the first installation."""
        try:
            return cls.read(parsed(path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise SwapError(f"the state {path} cannot be read: {error}") from error

    @classmethod
    def read(cls, raw: dict[str, Any]) -> State:
        """Return the state saved in a file or in the journal; TypeError if it is none."""
        return made(cls, {key: value for key, value in raw.items() if key != "format"})

    def save(self, path: Path) -> None:
        """Write the state, completely or not at all."""
        body = json.dumps({"format": 1, **dataclasses.asdict(self)}, indent=1, sort_keys=True)
        replace_synced(path, (body + "\n").encode())


def now(later: float = 0.0) -> str:
    """Return the time in UTC, to the second; `later` seconds from now."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + later))


def sync_directory(path: Path) -> None:
    """Make renames in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, body: bytes, mode: int) -> None:
    """Write a file with its final mode and flush it to disk; never leave an incomplete file."""
    with in_words(path):
        _write(path, body, mode)


def _write(path: Path, body: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)
    try:
        handle = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")
        with handle:
            os.fchmod(handle.fileno(), mode)
            handle.write(body)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def replace_synced(path: Path, body: bytes, suffix: str = ".new") -> None:
    """Replace a file so that a power cut leaves the old or the new one, never an incomplete one."""
    staged = path.with_suffix(suffix)
    with in_words(path):
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write(staged, body, 0o644)
        staged.rename(path)
        sync_directory(path.parent)


@contextlib.contextmanager
def exclusive(settings: Settings, patience: float | None = None) -> Iterator[None]:
    """Let one agent process work at a time; its lock ends with the process, however that ends.

    A killed controller leaves its agent running: the next run waits for it to finish.
    `patience` is how long it waits, in seconds.
    """
    lock = settings.state_file.with_name("agent.lock")
    with in_words(lock):
        lock.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle = lock.open("w")
    with handle:
        patience = settings.agent_timeout if patience is None else patience
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise BusyError(
                        "another airlift-swap is running on this host; see: ps -C airlift-swap -f"
                    ) from error
                time.sleep(0.5)
        yield
