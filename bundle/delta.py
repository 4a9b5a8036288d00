"""Deltas on the jump host: what one leaves out, and whether the store has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bundle.errors import AirliftError, Kind
from bundle.manifest import Base, LeftOut, Manifest, bundle_name
from bundle.report import size
from bundle.store import Home
from bundle.verify import Progress


def describe(parsed: Manifest) -> str:
    """One line for people."""
    known = facts(parsed)
    assert known is not None  # noqa: S101 - only of a delta
    word = "release" if len(parsed.bases) == 1 else "releases"
    return (
        f"carries {known['blobs_carried']} of {known['blobs']} blobs; "
        f"needs a jump host that has {word} {_names(parsed.bases)}"
    )


def facts(parsed: Manifest) -> dict[str, Any] | None:
    """The same for machines; nothing for a full bundle."""
    if not parsed.bases:
        return None
    carried = sum(1 for member in parsed.members if member.is_blob)
    return {
        "bases": parsed.data["bases"],
        "blobs": carried + len(parsed.left_out),
        "blobs_carried": carried,
        "bytes_left_out": sum(blob.size for blob in parsed.left_out),
    }


def check_present(parsed: Manifest, home: Home) -> None:
    """Refuse a delta if the store lacks a blob that it leaves out, or has a part of it."""
    lacking = [b for b in parsed.left_out if not home.has_blob(b.sha256, b.size)]
    if not lacking:
        return
    bases = _bases_of(parsed, lacking)
    raise AirliftError(
        Kind.NEEDS_BASE,
        f"this is a delta, and {len(lacking)} of the {len(parsed.left_out)} blobs that it leaves "
        f"out ({size(sum(blob.size for blob in lacking))}) are not here; "
        f"they are in the bundle of release {_names(bases)}",
        where=str(home.blobs),
        fix=_repair(parsed, bases, home),
    )


def check_contents(parsed: Manifest, home: Home, progress: Progress | None) -> None:
    """Hash what a delta leaves out: a blob that was damaged on this disk is not relied upon."""
    from bundle import installed  # noqa: PLC0415 - verifying a bundle needs nothing of it

    for base in parsed.bases:
        blobs = [(home.blob(b.sha256), b) for b in parsed.left_out if b.base == base.version]
        installed.compare(blobs, progress=progress, restore=_repair(parsed, [base], home))


def _bases_of(parsed: Manifest, blobs: Sequence[LeftOut]) -> list[Base]:
    versions = {blob.base for blob in blobs}
    return [base for base in parsed.bases if base.version in versions]


def _names(bases: Sequence[Base]) -> str:
    return " and ".join(f"{base.version} (serial {base.serial})" for base in bases)


def _repair(parsed: Manifest, bases: Sequence[Base], home: Home) -> str:
    """The command that brings the blobs here; a base older than what is accepted cannot."""
    python = home.current / "venv" / "bin" / "python"
    tool = f"{python} -m bundle" if python.exists() else "python3 -I verify.pyz"
    full = f"{tool} import {parsed.full_name}, which carries everything"
    accepted = home.acceptances()
    if accepted and accepted[-1].serial > min(base.serial for base in bases):
        return f"in place of this delta, with the same options: {full}"
    names = [bundle_name(b.version, parsed.data["architecture"]) for b in reversed(bases)]
    steps = " && ".join(f"{tool} import {name}" for name in names)
    return f"with the same options: {steps} && this command again; or in its place: {full}"
