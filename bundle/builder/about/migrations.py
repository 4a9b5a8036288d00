"""`about/migrations.json`: the migrations that lead to the release's schema."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.errors import AirliftError, Kind
from bundle.format import manifest

if TYPE_CHECKING:
    from bundle.builder.about.subject import Subject

FORMAT = 1
VERSIONS = "app/db/migrations/versions"


def write(subject: Subject, folder: Path) -> None:
    """List revision, previous revision, title and schema version, without running code."""
    versions = subject.tree / VERSIONS
    found = collect(versions)
    head = subject.release.schema["head"]
    if found and found[-1]["version"] != head:
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"the migrations lead to schema {found[-1]['version']}, but release.yml has {head}",
            where=str(versions),
            fix="write the newest migration's number to schema.head in bundle/release.yml",
        )
    (folder / "migrations.json").write_bytes(
        manifest.encode({"format": FORMAT, "migrations": found})
    )


def collect(versions: Path) -> list[dict[str, Any]]:
    """Read the constants of each migration, in the order of schema versions."""
    files = [path for path in versions.glob("*.py") if path.name != "__init__.py"]
    return sorted((_read(path) for path in files), key=lambda migration: migration["version"])


def _read(path: Path) -> dict[str, Any]:
    try:
        module = ast.parse(path.read_bytes())
        constants = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in module.body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in ("revision", "down_revision")
        }
        revision, before = constants["revision"], constants["down_revision"]
        title = (ast.get_docstring(module) or "").strip().partition("\n")[0]
        return {
            "revision": revision,
            "down_revision": before,
            # Revisions are the schema's versions, written with four digits.
            "version": int(revision),
            "title": title,
        }
    except (SyntaxError, ValueError, KeyError, TypeError) as error:
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"a migration has no revision: {error!r}",
            where=str(path),
            fix='write revision = "0002" and down_revision = "0001", as plain text',
        ) from error
