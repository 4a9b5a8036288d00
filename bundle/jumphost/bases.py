"""Deltas on the jump host: what one leaves out, whether it is here, and how it gets into place."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from bundle.core.events import Progress
from bundle.core.text import size
from bundle.errors import AirliftError, Kind
from bundle.format.delta import names_of
from bundle.format.manifest import Base, Manifest, Member, bundle_name
from bundle.jumphost.store import Home


def source(home: Home, member: Member) -> Path:
    """Where this jump host has it: a blob in the store, a file in the base's own directory."""
    from bundle.jumphost import installed  # noqa: PLC0415 - verifying a bundle needs nothing of it

    return installed.place(home, home.release(member.base), member)


def check_present(parsed: Manifest, home: Home) -> None:
    """Refuse a delta if something that it leaves out is not here, or only a part of it."""
    lacking = [member for member in parsed.left_out if not _is_present(home, member)]
    if not lacking:
        return
    bases = _bases_of(parsed, lacking)
    raise AirliftError(
        Kind.NEEDS_BASE,
        f"this is a delta, and {len(lacking)} of the {len(parsed.left_out)} members that it leaves "
        f"out ({size(sum(member.size for member in lacking))}) are not here; "
        f"they are in the bundle of release {names_of(bases)}{_pruned(bases, home)}",
        where=str(source(home, lacking[0])),
        fix=_repair(parsed, bases, home),
    )


def check_contents(parsed: Manifest, home: Home, progress: Progress | None) -> None:
    """Hash what a delta leaves out: what was damaged on this disk is not relied upon."""
    from bundle.jumphost import installed  # noqa: PLC0415 - verifying a bundle needs nothing of it

    for base in parsed.bases:
        files = [(source(home, m), m) for m in parsed.left_out if m.base == base.version]
        installed.compare(files, progress=progress, restore=_repair(parsed, [base], home))


def link_left_out(parsed: Manifest, home: Home, release: Path) -> None:
    """Put the files that a delta leaves out into a new release directory.

    By hard links: they cost no disk, and pruning the base takes nothing from the new release. Who
    writes into one damages both, as with the blobs, which releases share as well: `verify` finds
    it, and an import repairs without harm to the other, for it replaces files and writes into none.
    """
    for member in parsed.left_out:
        if not member.is_blob:
            os.link(source(home, member), release / member.release_path, follow_symlinks=False)


def _is_present(home: Home, member: Member) -> bool:
    try:
        return source(home, member).stat().st_size == member.size
    except (FileNotFoundError, NotADirectoryError):
        return False


def _bases_of(parsed: Manifest, members: Sequence[Member]) -> list[Base]:
    versions = {member.base for member in members}
    return [base for base in parsed.bases if base.version in versions]


def _pruned(bases: Sequence[Base], home: Home) -> str:
    """Say so, if they were here once: an operator remembers having imported them."""
    known = {(record.version, record.serial) for record in home.acceptances()}
    gone = [
        base
        for base in bases
        if (base.version, base.serial) in known and not home.release(base.version).exists()
    ]
    return (
        f"; {names_of(gone)} was imported here, and its directory is gone: pruned" if gone else ""
    )


def _repair(parsed: Manifest, bases: Sequence[Base], home: Home) -> str:
    """The command that brings what is missing; a base older than what is accepted cannot."""
    python = home.current / "venv" / "bin" / "python"
    tool = f"{shlex.quote(str(python))} -m bundle" if python.exists() else "python3 -I verify.pyz"
    full = f"{tool} import {parsed.full_name}, which carries everything"
    accepted = home.acceptances()
    if accepted and accepted[-1].serial > min(base.serial for base in bases):
        return f"in place of this delta, with the same options: {full}"
    names = [bundle_name(b.version, parsed.data["architecture"]) for b in reversed(bases)]
    steps = " && ".join(f"{tool} import {name}" for name in names)
    return f"with the same options: {steps} && this command again; or in its place: {full}"
