"""Single members of a bundle: returned only after their hash was compared."""

from __future__ import annotations

import difflib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from bundle.core.files import discard
from bundle.errors import AirliftError, Kind
from bundle.format.manifest import Member
from bundle.verify.checks import Opened, check_members

# Larger members are kept on disk until the last byte is hashed.
_IN_MEMORY = 8 << 20


class _Spool:
    """Keeps a member's bytes until their hash is compared."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target

    def write(self, data: memoryview) -> None:
        self._target.write(data)

    def commit(self) -> None:
        """Do nothing: the caller continues only without an error."""

    def abort(self) -> None:
        """Do nothing: the caller gets an error and discards the bytes."""


def spool(bundle: Opened, path: str, target: IO[bytes]) -> Member:
    """Copy a member into `target` while hashing it; after an error it must not be used."""
    member = find(bundle, path)
    check_members(bundle, only=path, sink=lambda _: _Spool(target))
    target.seek(0)
    return member


def read(bundle: Opened, path: str) -> bytes:
    """Return a small member's bytes."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as target:
        spool(bundle, path, target)
        return target.read()


def cat(bundle: Opened, path: str) -> None:
    """Write a member to standard output: all of it, or nothing."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as target:
        spool(bundle, path, target)
        pour(target)


def pour(source: IO[bytes]) -> None:
    """Write checked bytes to standard output."""
    try:
        shutil.copyfileobj(source, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has ended. Leave nothing for the interpreter to flush.
        discard(sys.stdout)


def find(bundle: Opened, path: str) -> Member:
    """Return a member as the manifest lists it."""
    for absent in bundle.manifest.left_out:
        if absent.path == path:
            raise AirliftError(
                Kind.USAGE,
                f"this delta does not carry {path}: release {absent.base} has it",
                where=str(bundle.source.path),
                fix=f"name the bundle of release {absent.base}, or find it on a jump host in "
                f"/opt/airlift/releases/{absent.base}/",
            )
    return named(bundle.manifest.members, path, where=bundle.source.path)


def named(members: Sequence[Member], path: str, *, where: Path) -> Member:
    """Return a member by its path; an error suggests similar paths."""
    for member in members:
        if member.path == path:
            return member
    near = difflib.get_close_matches(path, [member.path for member in members], n=3, cutoff=0.5)
    raise AirliftError(
        Kind.USAGE,
        f"there is no member {path}",
        where=str(where),
        fix=f"name a member such as: {', '.join(near)}" if near else "see manifest.json for all",
    )
