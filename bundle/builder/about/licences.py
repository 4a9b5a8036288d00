"""Writes the licences: a table of every package, and each text once for the whole release."""

from __future__ import annotations

import gzip
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.builder.about.inventory import Contents, Package
from bundle.builder.about.sbom import file_name

TABLE = "licences.json"
FOLDER = "licences"
TEXTS = "texts.txt.gz"
NOT_STATED = "not stated"
_RULE = "=" * 72


def write(folder: Path, tree: Path, inventory: Mapping[str, Contents]) -> None:
    """Write `licences.json`, a notice for each component, and the texts."""
    rows = {
        json.dumps(_row(name, package), sort_keys=True): None
        for name, one in sorted(inventory.items())
        for package in one.packages
    }
    # One package per line, for `grep` and `diff`. Wheels for several Pythons are one package.
    unread = {name: list(one.unread) for name, one in sorted(inventory.items()) if one.unread}
    table = f'{{"product": {json.dumps(_product(tree))},\n"not_read": {json.dumps(unread)},\n'
    table += '"packages": [\n' + ",\n".join(rows)
    (folder / TABLE).write_text(f"{table}\n]}}\n", encoding="utf-8")
    place = folder / FOLDER
    place.mkdir()
    for name, one in inventory.items():
        (place / f"{file_name(name)}.txt").write_text(_notice(name, one), encoding="utf-8")
    texts = {digest: t for one in inventory.values() for digest, t in one.texts.items()}
    whole = "".join(f"{_RULE}\ntext {_id(d)}\n{_RULE}\n{texts[d]}\n" for d in sorted(texts))
    # Without date and file name in the header, so that the same texts give the same bytes.
    (place / TEXTS).write_bytes(gzip.compress(whole.encode(), 9, mtime=0))


def _product(tree: Path) -> dict[str, Any]:
    """Return the product's own licence, and the member with its text."""
    if not (tree / "LICENSE").is_file():
        return {"licence": NOT_STATED, "text": None}
    project = tree / "pyproject.toml"
    stated = tomllib.loads(project.read_text(encoding="utf-8")) if project.is_file() else {}
    licence = stated.get("project", {}).get("license", "see file")
    return {"licence": licence, "text": "content/LICENSE"}


def _row(component: str, package: Package) -> dict[str, Any]:
    return {
        "component": component,
        "package": package.name,
        "version": package.version,
        "type": package.kind,
        "licence": package.licence or NOT_STATED,
        "stated_in": package.stated_in,
        "texts": [_id(digest) for digest in package.notices],
    }


def _notice(name: str, contents: Contents) -> str:
    """Return the notice of one component, for people."""
    if contents.texts:
        lines = [f"Licences of what is in {name}; the numbered texts are in {TEXTS}."]
    else:
        lines = [f"Licences of what is in {name}; the texts are inside of the packages."]
    lines += [f"Not read: {reason}" for reason in contents.unread]
    for package in contents.packages:
        lines += ["", f"{package.name} {package.version} {package.file}".rstrip()]
        lines.append(f"  {package.licence or f'{NOT_STATED}; {package.stated_in}'}")
        if package.notices:
            lines.append(f"  text {' '.join(map(_id, package.notices))}")
    return "\n".join(lines) + "\n"


def _id(digest: str) -> str:
    return digest[:16]
