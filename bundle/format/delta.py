"""What a delta omits, in words and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bundle.format.manifest import Base, Manifest


def describe(parsed: Manifest) -> str:
    """Describe a delta in one line for people."""
    known = facts(parsed)
    assert known is not None  # noqa: S101 - only of a delta
    word = "release" if len(parsed.bases) == 1 else "releases"
    blobs, members = known["blobs"], known["members"]
    return (
        f"carries {known['blobs_carried']} of {blobs} blobs and "
        f"{known['members_carried'] - known['blobs_carried']} of {members - blobs} other members; "
        f"needs a jump host that has {word} {names_of(parsed.bases)}"
    )


def facts(parsed: Manifest) -> dict[str, Any] | None:
    """Return the numbers of a delta for machines; None for a full bundle."""
    if not parsed.bases:
        return None
    return {
        "bases": parsed.data["bases"],
        "members": len(parsed.contents),
        "members_carried": len(parsed.members),
        "blobs": sum(1 for member in parsed.contents if member.is_blob),
        "blobs_carried": sum(1 for member in parsed.members if member.is_blob),
        "bytes_left_out": sum(member.size for member in parsed.left_out),
    }


def names_of(bases: Sequence[Base]) -> str:
    """Return the names of the bases for people."""
    return " and ".join(f"{base.version} (serial {base.serial})" for base in bases)
