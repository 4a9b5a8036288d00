"""Files under a registered root.

The path is walked from the root's directory handle, one component at a time and never through a
symbolic link, so a link that appears between a check and the opening changes nothing: there is no
check to race against.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from app.sources.base import (
    Collection,
    Limits,
    PermanentSourceError,
    Refusal,
    TransientSourceError,
)
from app.sources.parse import Format, parse
from app.sources.schemas import FileConfig

_FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}


class FileSource:
    """Reads one file of a root."""

    def __init__(self, roots: Mapping[str, Path], limits: Limits) -> None:
        self._roots = dict(roots)
        self._limits = limits

    def check(self, config: FileConfig) -> Refusal | None:
        """What is wrong with a configuration before any file is looked at."""
        if config.root not in self._roots:
            known = ", ".join(sorted(self._roots)) or "none"
            return Refusal("root", f"no such root is registered on this site (known: {known})")
        try:
            _components(config.path)
        except PermanentSourceError as error:
            return Refusal("path", str(error))
        if _format(config) is None:
            return Refusal("format", "the file's name does not tell it: csv, json or jsonl")
        return None

    def needs(self, config: FileConfig) -> str:
        """A root belongs to the hosts that have it mounted; only their workers run the job."""
        return f"root:{config.root}"

    def available(self) -> list[str]:
        """The needs that this host can meet now."""
        return [f"root:{name}" for name, path in self._roots.items() if path.is_dir()]

    async def collect(self, config: FileConfig) -> Collection:
        """Read and parse the file; off the event loop, disks may be slow."""
        return await asyncio.to_thread(self._collect, config)

    def _collect(self, config: FileConfig) -> Collection:
        root = self._roots.get(config.root)
        if root is None:
            raise PermanentSourceError(
                "root-not-registered", f"no root {config.root} is registered on this site"
            )
        form = _format(config)
        if form is None:
            raise PermanentSourceError("unknown-format", "the file's name does not tell its format")
        data = self._read(root, config)
        records, rejected = parse(
            data,
            form,
            self._limits,
            delimiter=config.delimiter,
            records_path=config.records_path,
        )
        origin = {
            "type": "file",
            "root": config.root,
            "path": config.path,
            "format": form,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        return Collection(records, origin, rejected)

    def _read(self, root: Path, config: FileConfig) -> bytes:
        where = f"{config.path} under the root {config.root}"
        descriptor = -1
        try:
            descriptor = _open_beneath(root, _components(config.path))
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise PermanentSourceError("not-a-file", f"{where} is not a regular file")
            limit = self._limits.max_bytes
            if status.st_size > limit:
                raise PermanentSourceError(
                    "file-too-large", f"{where} has {status.st_size} bytes, {limit} are allowed"
                )
            with os.fdopen(descriptor, "rb") as stream:
                descriptor = -1
                data = stream.read(limit + 1)
            if len(data) > limit:
                raise PermanentSourceError("file-too-large", f"{where} grew beyond {limit} bytes")
            return data
        except FileNotFoundError:
            raise PermanentSourceError("file-not-found", f"there is no file {where}") from None
        except NotADirectoryError:
            raise PermanentSourceError(
                "path-refused", f"{where}: a part of the path is no folder, or a symbolic link"
            ) from None
        except PermissionError:
            raise PermanentSourceError(
                "file-not-readable", f"{where} may not be read by uid {os.getuid()}"
            ) from None
        except OSError as error:
            if error.errno == errno.ELOOP:  # the last component is a symbolic link
                raise PermanentSourceError(
                    "path-refused", f"{where} is a symbolic link, those are not followed"
                ) from None
            raise TransientSourceError(
                "read-failed", f"{where} cannot be read: {error.strerror}"
            ) from error
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _format(config: FileConfig) -> Format | None:
    return config.format or _FORMATS.get(PurePosixPath(config.path).suffix.lower())


def _components(path: str) -> list[str]:
    if path.startswith("/") or "\\" in path or "\x00" in path:
        raise PermanentSourceError("path-refused", "must be relative to the root")
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise PermanentSourceError("path-refused", "must not climb out of the root")
    if any(len(part.encode()) > 255 for part in parts):
        raise PermanentSourceError("path-refused", "a part of the path is too long")
    return parts


def _open_beneath(root: Path, parts: list[str]) -> int:
    """Open a file without ever following a link below `root`; the caller closes it."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    folder = os.open(root, flags | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            deeper = os.open(part, flags | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = deeper
        # Not blocking: a named pipe must not hang the worker before it is seen to be one.
        return os.open(parts[-1], flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
