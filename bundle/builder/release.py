"""`release.yml`: version, serial and contents of the next bundle."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bundle.core import schema as s
from bundle.errors import AirliftError, Kind
from bundle.format import manifest, versions

_SHAPE = s.record(
    version=s.text(),
    serial=s.integer(1),
    schema=s.record(head=s.integer(0), lowest_compatible=s.integer(0)),
    upgrade=s.record(minimum_version=s.text(), required_stops=s.array(s.text())),
    # Not `auto`, because the contents of a release must not depend on which registry answers.
    images=s.record(source=s.text("registry|debian"), allow_absent=s.array(s.text())),
)

# The most files that an error names.
_NAMED = 5


@dataclass(frozen=True)
class Release:
    """Identity of the bundle to build."""

    version: str
    serial: int
    schema: dict[str, int]
    upgrade: dict[str, Any]
    created: str
    revision: str
    notes: tuple[str, ...]
    # Source of the images, and the names that may be absent.
    source: str = "registry"
    allow_absent: tuple[str, ...] = ()


def load(tree: Path, *, version: str | None, serial: int | None) -> Release:
    """Read `bundle/release.yml` of a source tree; arguments override the file."""
    path = tree / "bundle" / "release.yml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        _SHAPE(data, "")
    except (OSError, yaml.YAMLError, s.ShapeError) as error:
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"release.yml cannot be used: {error}",
            where=str(path),
            fix="write version, serial, schema, upgrade and images; see the comments in it",
        ) from error
    wanted = version or data["version"]
    notes: list[str] = []
    if not manifest.is_version(wanted):
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"{wanted!r} is not a version",
            where="--version or release.yml",
            fix="use MAJOR.MINOR.PATCH, such as 1.2.0",
        )
    number = serial if serial is not None else _serial(data, wanted, path, notes)
    revision = revision_of(tree)
    if revision.endswith("-dirty"):
        notes.append("the tree has changes that are not committed; the revision shows it")
    return Release(
        version=wanted,
        serial=number,
        schema=data["schema"],
        upgrade=data["upgrade"],
        created=_created(tree),
        revision=revision,
        notes=tuple(notes),
        source=data["images"]["source"],
        allow_absent=tuple(data["images"]["allow_absent"]),
    )


def check_committed(tree: Path) -> None:
    """Refuse a tree with changes that are not committed, which may contain a secret.

    Raises:
        AirliftError: there are changed or new files.
    """
    changed = _git(tree, "status", "--porcelain", "--untracked-files=all").splitlines()
    if not changed:
        return
    names = [line.strip().partition(" ")[2].strip() for line in changed]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    raise AirliftError(
        Kind.BUILD_INPUT,
        f"the tree has {len(names)} files that are not committed: "
        f"{', '.join(names[:_NAMED])}{more}",
        where=str(tree),
        fix="commit them, move them away, or add them to .gitignore; to include them as they are: "
        "--allow-dirty",
    )


def _serial(data: dict[str, Any], wanted: str, path: Path, notes: list[str]) -> int:
    """Return the file's serial for the file's version, the next one for a newer version."""
    known, number = data["version"], int(data["serial"])
    if wanted == known:
        return number
    if versions.order(wanted) < versions.order(known):
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"version {wanted} is older than {known} in release.yml, so its serial is unknown",
            where=str(path),
            fix="give --serial, higher than every serial that clients have",
        )
    notes.append(
        f"using serial {number + 1}: release.yml has {number} for {known}; "
        "write version and serial there before you release"
    )
    return number + 1


def _created(tree: Path) -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or _git(tree, "log", "-1", "--format=%ct")
    if not epoch.isdigit():
        raise AirliftError(
            Kind.BUILD_INPUT,
            "there is no commit, so the bundle has no date",
            where=str(tree),
            fix="commit, or set the date: export SOURCE_DATE_EPOCH=$(date +%s)",
        )
    return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def revision_of(tree: Path) -> str:
    """Return the commit of a tree, with `-dirty` if it has changes, or `unknown` without git."""
    commit = _git(tree, "rev-parse", "--verify", "--quiet", "HEAD")
    if not commit:
        return "unknown"
    return f"{commit}-dirty" if _git(tree, "status", "--porcelain") else commit


def _git(tree: Path, *arguments: str) -> str:
    try:
        result = subprocess.run(
            ["git", "-C", str(tree), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
