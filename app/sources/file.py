"""Files below a registered root.

The path is walked from the handle of the root directory, one component at a time, and symbolic
links are never followed. There is no separate check before the opening, so a link that appears in
between has no effect.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from app.sources.base import (
    Access,
    Batch,
    Collection,
    Limits,
    PermanentSourceError,
    Refusal,
    RefusedSourceError,
    SourceError,
    TransientSourceError,
)
from app.sources.intake import Intake
from app.sources.parse import Format, parse
from app.sources.schemas import FileConfig
from app.threads import alone

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


# Seconds; a root that takes longer to answer is not usable.
_LOOK_SECONDS = 1.0


class FileSource:
    """Reads one file below a root."""

    def __init__(
        self, roots: Mapping[str, Path], limits: Limits, access: Access | None = None
    ) -> None:
        self._roots = dict(roots)
        self._limits = limits
        self._access = access or Access()
        self._looks: dict[str, asyncio.Task[bool]] = {}

    def check(self, config: FileConfig, client: str) -> Refusal | None:
        """Return why a configuration is not accepted, before any file is opened."""
        mine = [name for name in sorted(self._roots) if self._access.allows(f"root:{name}", client)]
        if config.root not in mine:
            known = ", ".join(mine) or "none"
            return Refusal("root", f"no such root is registered on this site (known: {known})")
        try:
            _components(config.path)
        except PermanentSourceError as error:
            return Refusal("path", str(error))
        if _format(config) is None:
            return Refusal("format", "the file's name does not tell it: csv, json or jsonl")
        return None

    def needs(self, config: FileConfig) -> str:
        """Return the root's need: only workers on hosts that mount the root can run the job."""
        return f"root:{config.root}"

    async def available(self) -> list[str]:
        """Return the needs that this host can meet now.

        A root that does not answer in time (a network mount without its server) counts as absent.
        It is checked again only after that check ended, so a hanging mount costs one thread.
        """
        looks = {name: self._look(name, path) for name, path in self._roots.items()}
        if looks:
            await asyncio.wait(looks.values(), timeout=_LOOK_SECONDS)
        return [f"root:{name}" for name, look in looks.items() if look.done() and look.result()]

    def _look(self, name: str, path: Path) -> asyncio.Task[bool]:
        look = self._looks.get(name)
        if look is None:
            look = self._looks[name] = asyncio.create_task(
                alone(f"root-{name}", lambda: _is_dir(path))
            )
            look.add_done_callback(lambda _look: self._looks.pop(name, None))
        return look

    async def collect(self, config: FileConfig, client: str) -> Collection:
        """Open the file in a thread, because disks may be slow; raise `SourceError`."""
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                return await alone("file-open", lambda: self._collect(config, client))
        except TimeoutError:
            seconds = self._limits.timeout_seconds
            raise TransientSourceError(
                "timeout", f"the root {config.root} did not answer within {seconds:g} s"
            ) from None

    def _collect(self, config: FileConfig, client: str) -> Collection:
        root = self._roots.get(config.root)
        if root is None or not self._access.allows(f"root:{config.root}", client):
            raise PermanentSourceError(
                "root-not-registered", f"no root {config.root} is registered on this site"
            )
        form = _format(config)
        if form is None:
            raise PermanentSourceError("unknown-format", "the file's name does not tell its format")
        where = f"{config.path} under the root {config.root}"
        stream = _open(root, config.path, where, self._limits.max_bytes)
        origin = {"type": "file", "root": config.root, "path": config.path, "format": form}
        intake = Intake(stream, self._limits.max_bytes, origin)
        batches = parse(
            intake,
            form,
            self._limits,
            delimiter=config.delimiter,
            records_path=config.records_path,
        )
        return Collection(_unchanged(stream, batches, where), origin, intake.foreign)


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False  # a mount whose server is gone raises this


def _unchanged(stream: BinaryIO, batches: Iterator[Batch], where: str) -> Iterator[Batch]:
    """Yield the batches of an unchanged file; raise a transient error if it changed meanwhile."""
    with stream:
        before = os.fstat(stream.fileno())
        try:
            yield from batches
        except SourceError:
            _same(stream, before, where)
            raise
        except OSError as error:
            raise TransientSourceError(
                "read-failed", f"{where} cannot be read: {error.strerror}"
            ) from error
        _same(stream, before, where)


def _same(stream: BinaryIO, before: os.stat_result, where: str) -> None:
    now = os.fstat(stream.fileno())
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise TransientSourceError("file-changed", f"{where} changed while it was read")


def _open(root: Path, path: str, where: str, limit: int) -> BinaryIO:
    """Open a regular file below a root; raise the error that fits if it is not one."""
    try:
        descriptor = _open_beneath(root, _components(path))
    except OSError as error:
        # For the client, a link, a part that is not a directory and an absent file are the same.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise _not_found(where) from None
        if isinstance(error, PermissionError):
            raise PermanentSourceError(
                "file-not-readable", f"{where} may not be read by uid {os.getuid()}"
            ) from None
        raise TransientSourceError(
            "read-failed", f"{where} cannot be read: {error.strerror}"
        ) from error
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_size <= limit:
        return os.fdopen(descriptor, "rb", buffering=0)
    os.close(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _not_found(where)
    raise RefusedSourceError(
        "source-too-large", f"{where} has {status.st_size} bytes, {limit} are allowed"
    )


def _not_found(where: str) -> PermanentSourceError:
    return PermanentSourceError("file-not-found", f"there is no file {where}")


def _format(config: FileConfig) -> Format | None:
    return config.format or _FORMATS.get(PurePosixPath(config.path).suffix.lower())


def _components(path: str) -> list[str]:
    if path.startswith("/") or "\\" in path or "\x00" in path:
        raise PermanentSourceError("path-refused", "must be relative to the root")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise PermanentSourceError("path-refused", "must stay inside the root")
    if any(len(part.encode()) > 255 for part in parts):
        raise PermanentSourceError("path-refused", "a part of the path is too long")
    return parts


def _open_beneath(root: Path, parts: list[str]) -> int:
    """Open a file without following links below `root`; the caller closes the descriptor."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    folder = os.open(root, flags | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = deeper
        # Open without blocking: a named pipe must not hang the worker before its type is known.
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
