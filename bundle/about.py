"""What a release says of itself: the members below `about/`, written by one part after the other.

They are for people and for other tools; no host needs them to run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import about_migrations, about_settings
from bundle.release import Release


@dataclass(frozen=True)
class Subject:
    """All that a part may look at; whatever it writes follows from this alone."""

    tree: Path
    release: Release
    image_source: str
    # The manifest's, by name.
    components: dict[str, dict[str, Any]]
    absent: dict[str, dict[str, str]]
    # OCI layout with the blobs of all images.
    layout: Path
    wheels: Path
    packages: Path


# Writes its files into the folder that becomes `about/`.
Part = Callable[[Subject, Path], None]
PARTS: tuple[Part, ...] = (
    about_settings.write,
    about_migrations.write,
)


def write(subject: Subject, folder: Path) -> dict[str, Path]:
    """Let every part write; return member path: file."""
    folder.mkdir(parents=True)
    for part in PARTS:
        part(subject, folder)
    return {
        f"about/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
