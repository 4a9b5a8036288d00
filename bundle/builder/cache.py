"""The builder's cache: named by what it was made from, so it may be deleted at any time."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bundle.core.files import sha256

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
    """Return a short name for a JSON value: the same value, the same name."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path to write; it takes the target's place in one step, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def write_json(target: Path, value: Any) -> None:
    """Write a JSON file in one step."""
    with replacing(target) as part:
        part.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Return a cached JSON value, or None when it is not there or was cut short."""
    try:
        value = json.loads(path.read_text())
        os.utime(path)
    except (FileNotFoundError, ValueError):
        return None
    return value


def folder(kind: str, name: str, fill: Callable[[Path], None]) -> Path:
    """Return the cached folder `kind/name`; make it with `fill` when it is not there yet.

    A list of its files with their hashes is kept beside it: a damaged folder is made again.
    """
    place = root() / kind / name
    listing = place.with_name(f"{name}.json")
    if place.is_dir() and read_json(listing) == _fingerprints(place):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=place.parent, prefix=".part-"))
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


def copy_folder(source: Path, dest: Path) -> None:
    """Copy a folder's files; their modes and times are not kept."""
    shutil.copytree(source, dest, copy_function=shutil.copyfile, dirs_exist_ok=True)


def forget_unused(directory: Path) -> None:
    """Remove files that no build has used for weeks."""
    limit = time.time() - _UNUSED_DAYS * 86400
    for path in directory.rglob("*"):
        try:
            if path.is_file() and path.stat().st_mtime < limit:
                path.unlink()
        except FileNotFoundError:  # another build was quicker
            continue


def _fingerprints(place: Path) -> dict[str, str]:
    files = (path for path in sorted(place.rglob("*")) if path.is_file())
    return {path.relative_to(place).as_posix(): sha256(path) for path in files}
