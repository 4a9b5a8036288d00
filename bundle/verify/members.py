"""Single members of a bundle: given out only after their hash was compared."""

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

# Larger members wait on the disk until the last byte has been hashed.
_IN_MEMORY = 8 << 20


class _Spool:
    """Keeps a member's bytes until it is known that they are good."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target

    def write(self, data: memoryview) -> None:
        self._target.write(data)

    def commit(self) -> None:
        """Nothing more to do: the caller goes on only without an error."""

    def abort(self) -> None:
        """The caller gets an error, and drops what is here."""


def spool(bundle: Opened, path: str, target: IO[bytes]) -> Member:
    """Copy a member into `target` while it is hashed; an error means that it must not be used."""
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
    """Write what is known to be good to standard output."""
    try:
        shutil.copyfileobj(source, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # `| head` has seen enough. Nothing is left for the interpreter to flush.
        discard(sys.stdout)


def find(bundle: Opened, path: str) -> Member:
    """Return what the manifest says of a member."""
    for absent in bundle.manifest.left_out:
        if absent.path == path:
            raise AirliftError(
                Kind.USAGE,
                f"this delta does not carry {path}: release {absent.base} has it",
                where=str(bundle.source.path),
                fix=f"name the bundle of release {absent.base}, or look below "
                f"/opt/airlift/releases/{absent.base}/ on a jump host",
            )
    return named(bundle.manifest.members, path, where=bundle.source.path)


def named(members: Sequence[Member], path: str, *, where: Path) -> Member:
    """Return a member by its path, or name those that it may be meant for."""
    for member in members:
        if member.path == path:
            return member
    near = difflib.get_close_matches(path, [member.path for member in members], n=3, cutoff=0.5)
    raise AirliftError(
        Kind.USAGE,
        f"there is no member {path}",
        where=str(where),
        fix=f"such as: {', '.join(near)}" if near else "the manifest lists all of them",
    )
