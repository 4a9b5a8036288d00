"""The content of a release directory on the jump host: files of this tree, and collections."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bundle.errors import AirliftError, Kind
from bundle.format.manifest import is_member_path

# Folders and files of the tree, which must all exist.
TREE = (
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "ansible.cfg",
    "bundle",
    "docs",
    "inventories/example",
    "playbooks",
    "requirements/controller.txt",
    "roles",
)
COLLECTIONS = ("ansible.posix", "community.crypto", "community.docker")
# The parts of a collection that it needs at run time, or that its licence requires.
_COLLECTION_PARTS = (
    "COPYING",
    "LICENSE",
    "LICENSES",
    "MANIFEST.json",
    "PSF-license.txt",
    "README.md",
    "meta",
    "plugins",
    "roles",
)


def collect(tree: Path) -> dict[str, Path]:
    """Map each member's path to the file that becomes it."""
    found = {f"content/{path}": tree / path for path in _tree_files(tree)}
    for name, root in collections().items():
        base = f"content/collections/ansible_collections/{name.replace('.', '/')}"
        for path in _collection_files(root):
            found[f"{base}/{path}"] = root / path
    for member, file in found.items():
        if file.is_symlink() or not is_member_path(member):
            what = "is a symbolic link" if file.is_symlink() else "has a name of a forbidden form"
            raise AirliftError(
                Kind.BUILD_INPUT,
                f"{member.removeprefix('content/')} {what}, so it cannot be in a bundle",
                where=str(file),
                fix="rename it: a name has letters, digits and ._+~@%=,- and begins with a letter "
                "or digit; or delete the file, or add it to .gitignore",
            )
    return found


def collections() -> dict[str, Path]:
    """Map each collection of a release to its folder on this machine."""
    return {name: _collection(name) for name in _with_dependencies(COLLECTIONS)}


def _tree_files(tree: Path) -> Iterator[str]:
    if missing := [name for name in TREE if not (tree / name).exists()]:
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"the tree lacks {', '.join(missing)}",
            where=str(tree),
            fix="build from a complete checkout",
        )
    for path in sorted(_listed(tree)):
        if (tree / path).exists() or (tree / path).is_symlink():
            yield path


def _listed(tree: Path) -> Iterator[str]:
    """Yield the files that git knows or would add; without git, all but compiled ones."""
    command = ["git", "-C", str(tree), "ls-files", "-z", "--cached", "--others"]
    command += ["--exclude-standard", "--", *TREE]
    try:
        result = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        result = None
    if result is not None and result.returncode == 0:
        yield from (path for path in result.stdout.decode().split("\0") if path)
        return
    for name in TREE:
        if (tree / name).is_dir():
            yield from (f"{name}/{path}" for path in _walk(tree / name))
        else:
            yield name


def _collection_files(root: Path) -> Iterator[str]:
    for part in _COLLECTION_PARTS:
        if (root / part).is_dir():
            yield from (f"{part}/{path}" for path in _walk(root / part))
        elif (root / part).is_file():
            yield part


def _walk(root: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in ("__pycache__", "tests"))
        for name in sorted(files):
            if not name.endswith((".pyc", ".license")):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _with_dependencies(names: tuple[str, ...]) -> list[str]:
    """Return the collections and their declared dependencies."""
    found: list[str] = []
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.append(name)
            info = json.loads((_collection(name) / "MANIFEST.json").read_bytes())
            todo += info["collection_info"]["dependencies"]
    return sorted(found)


def _collection(name: str) -> Path:
    spec = importlib.util.find_spec("ansible_collections")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root, *name.split("."))
        if (path / "MANIFEST.json").is_file():
            return path
    raise AirliftError(
        Kind.BUILD_INPUT,
        f"the collection {name} is not installed",
        where="the `ansible` package of this Python",
        fix="make setup",
    )
