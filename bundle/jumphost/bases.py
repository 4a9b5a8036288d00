"""Deltas on the jump host: find what a delta omits, check it, and link it into the release."""

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
    """Return the place of an omitted member: the store for a blob, else its base's directory."""
    from bundle.jumphost import installed  # noqa: PLC0415 - not needed to verify a bundle

    return installed.place(home, home.release(member.base), member)


def check_present(parsed: Manifest, home: Home) -> None:
    """Refuse a delta if a member that it omits is missing here, or has another length."""
    lacking = [member for member in parsed.left_out if not _is_present(home, member)]
    if not lacking:
        return
    bases = _bases_of(parsed, lacking)
    raise AirliftError(
        Kind.NEEDS_BASE,
        f"this is a delta, and {len(lacking)} of the {len(parsed.left_out)} members that it omits "
        f"({size(sum(member.size for member in lacking))}) are missing on this jump host; "
        f"they are in the bundle of release {names_of(bases)}{_pruned(bases, home)}",
        where=str(source(home, lacking[0])),
        fix=_repair(parsed, bases, home),
    )


def check_contents(parsed: Manifest, home: Home, progress: Progress | None) -> None:
    """Hash the members that a delta omits, because this disk may have damaged them."""
    from bundle.jumphost import installed  # noqa: PLC0415 - not needed to verify a bundle

    for base in parsed.bases:
        files = [(source(home, m), m) for m in parsed.left_out if m.base == base.version]
        installed.compare(files, progress=progress, restore=_repair(parsed, [base], home))


def link_left_out(parsed: Manifest, home: Home, release: Path) -> None:
    """Link the files that a delta omits into a new release directory.

    Hard links need no disk space, and pruning the base does not remove the new release's files.
    Writing into a linked file would damage both releases, as with the blobs that they share.
    `verify` finds such damage. An import repairs it safely: it replaces files and never writes into
    one.
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
    """Explain that bases were pruned, because an operator remembers having imported them."""
    known = {(record.version, record.serial) for record in home.acceptances()}
    gone = [
        base
        for base in bases
        if (base.version, base.serial) in known and not home.release(base.version).exists()
    ]
    return f"; {names_of(gone)} was imported here, but its directory was pruned" if gone else ""


def _repair(parsed: Manifest, bases: Sequence[Base], home: Home) -> str:
    """Return the command that restores what is missing, with an import of bases if allowed.

    A base that is older than the newest accepted release cannot be imported any more.
    """
    python = home.current / "venv" / "bin" / "python"
    tool = f"{shlex.quote(str(python))} -m bundle" if python.exists() else "python3 -I verify.pyz"
    full = f"{tool} import {parsed.full_name}, which carries everything"
    accepted = home.acceptances()
    if accepted and accepted[-1].serial > min(base.serial for base in bases):
        return f"instead of this delta, with the same options: {full}"
    names = [bundle_name(b.version, parsed.data["architecture"]) for b in reversed(bases)]
    steps = " && ".join(f"{tool} import {name}" for name in names)
    return f"with the same options: {steps} && this command again; or instead: {full}"
