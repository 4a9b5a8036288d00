"""The builder's cache. Names follow from inputs, so it can be deleted while no build runs.

Builds share it: one build at a time makes an entry, and no entry is removed while a build runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from bundle.builder.problems import Problem
from bundle.core import locks
from bundle.core.files import remove, sha256, write_atomic

_CHUNK = 1 << 20
_UNUSED_DAYS = 45


def root() -> Path:
    """Return the cache directory: AIRLIFT_CACHE, or the user's."""
    chosen = os.environ.get("AIRLIFT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(chosen) if chosen else Path(base) / "airlift"
    path.mkdir(parents=True, exist_ok=True)
    return path


def key(value: Any) -> str:
    """Return a short name for a JSON value; the same value has the same name."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def write(target: Path, data: bytes) -> None:
    """Write a file in one step; a cache need not survive a power cut."""
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, data, durable=False, mode=0o644)


def write_json(target: Path, value: Any) -> None:
    """Write a JSON file in one step."""
    write(target, (json.dumps(value, sort_keys=True, indent=1) + "\n").encode())


def read_json(path: Path) -> Any:
    """Return a cached JSON value, or None if it is missing or cut short."""
    try:
        value = json.loads(path.read_text())
        os.utime(path)
    except (FileNotFoundError, ValueError):
        return None
    return value


@contextmanager
def one_at_a_time(kind: str, name: str) -> Iterator[None]:
    """Lock an entry while one build checks, makes and uses it; others wait."""
    with locks.file(_locks() / f"{kind}-{name}"):
        yield


def folder(kind: str, name: str, fill: Callable[[Path], None]) -> Path:
    """Return the cached folder `kind/name`; make it with `fill` if it is missing.

    A list of hashes is kept beside it, so that a damaged folder is made again.
    """
    with one_at_a_time(kind, name):
        return _made(kind, name, fill)


def take(kind: str, name: str, fill: Callable[[Path], None], dest: Path) -> None:
    """Copy the cached folder `kind/name`, made if it is missing; modes and times are not kept.

    It is locked meanwhile, because another build that finds it damaged would remove it.
    """
    with one_at_a_time(kind, name):
        source = _made(kind, name, fill)
        shutil.copytree(source, dest, copy_function=shutil.copyfile, dirs_exist_ok=True)


def _made(kind: str, name: str, fill: Callable[[Path], None]) -> Path:
    place = root() / kind / name
    listing = place.with_name(f"{name}.json")
    if place.is_dir() and read_json(listing) == _fingerprints(place):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    for left in place.parent.glob(f".part-{name}-*"):  # of an interrupted build
        remove(left)
    staged = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".part-{name}-"))
    try:
        fill(staged)
        staged.chmod(0o755)
        if place.exists():
            shutil.rmtree(place)
        staged.rename(place)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    write_json(listing, _fingerprints(place))
    return place


class _Users:
    """Counts the builds of this process, and removes things when no build runs anywhere."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._running = 0
        self._held = ExitStack()
        self._later: list[Callable[[], None]] = []

    def enter(self) -> None:
        with self._turn:
            if self._running == 0:
                self._held.enter_context(locks.file(_locks() / "in-use", locks.SHARED))
            self._running += 1

    def leave(self) -> None:
        with self._turn:
            self._running -= 1
            if self._running == 0:
                self._held.close()
                self._tidy()

    def later(self, job: Callable[[], None]) -> None:
        with self._turn:
            self._later.append(job)
            if self._running == 0:
                self._tidy()

    def _tidy(self) -> None:
        jobs, self._later = self._later, []
        with locks.file(_locks() / "in-use", locks.AT_ONCE) as alone:
            for job in jobs if alone else ():
                with suppress(Problem):  # a later build tries again
                    job()


_USERS = _Users()


@contextmanager
def in_use() -> Iterator[None]:
    """Keep the cache and the engine's images while a build depends on them."""
    _USERS.enter()
    try:
        yield
    finally:
        _USERS.leave()


def when_unused(job: Callable[[], None]) -> None:
    """Remove something when no build runs that may need it; otherwise a later build does."""
    _USERS.later(job)


def _locks() -> Path:
    folder = root() / "locks"
    folder.mkdir(exist_ok=True)
    return folder


def forget_unused(directory: Path) -> None:
    """Remove files that no build has used for weeks."""
    limit = time.time() - _UNUSED_DAYS * 86400
    for path in directory.rglob("*"):
        try:
            if path.is_file() and path.stat().st_mtime < limit:
                path.unlink()
        except FileNotFoundError:  # another build has removed it
            continue


def _fingerprints(place: Path) -> dict[str, str]:
    files = (path for path in sorted(place.rglob("*")) if path.is_file())
    return {path.relative_to(place).as_posix(): sha256(path) for path in files}
