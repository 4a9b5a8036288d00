"""Python packages: from their installed metadata, and from wheels."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from bundle.builder.about import spdx
from bundle.builder.about.layer_files import Files
from bundle.builder.problems import Problem

_METADATA = re.compile(r"(.*/)?[^/]+\.(dist-info/METADATA|egg-info/PKG-INFO)")
# Debian's own Python packages, which are in dpkg's database.
_OF_DEBIAN = "usr/lib/python3/dist-packages/"
_CLASSIFIER = "License :: "
#: The errors of a wheel that is damaged, or packed in a form that `zipfile` cannot read.
_UNREADABLE = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error),
    *(StopIteration, ValueError, NotImplementedError, RuntimeError),
)


def of_image(files: Files, _release: dict[str, str]) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """List what was installed from wheels; raises `ValueError` for metadata without a name."""
    found = {
        path: HeaderParser().parsestr(text)
        for path, text in sorted(files.texts.items())
        if _METADATA.fullmatch(path) and not path.startswith(_OF_DEBIAN)
    }
    names = {normal(message.get("Name", "")) for message in found.values()}
    for path, message in found.items():
        folder = path.rpartition("/")[0] + "/"
        notices = [
            text
            for other, text in sorted(files.texts.items())
            if other.startswith(folder) and other != path
        ]
        entry = _entry(message, path)
        entry["depends"] = tuple(name for name in entry["depends"] if name in names)
        yield entry, notices


def of_wheel(file: Path) -> dict[str, Any]:
    """Return the metadata of a wheel."""
    try:
        with zipfile.ZipFile(file) as archive:
            path = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
            text = archive.read(path).decode("utf-8", "replace")
        return _entry(HeaderParser().parsestr(text), path)
    except _UNREADABLE as error:
        message = f"the wheel {file.name} cannot be read: {str(error) or 'no metadata'}"
        fix = "remove this file, then build again, which fetches it again"
        raise Problem(message, where=str(file), fix=fix) from error


def normal(name: str) -> str:
    """Return the normal form of a Python package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _entry(message: Message, path: str) -> dict[str, Any]:
    name, version = message.get("Name"), message.get("Version")
    if not name or not version:
        error = f"{path} names no package and version"
        raise ValueError(error)
    licence, stated_in = _licence(message)
    return {
        "kind": "pypi",
        "name": normal(name),
        "version": version,
        "depends": _depends(message),
        "licence": licence,
        "stated_in": stated_in,
    }


def _depends(message: Message) -> tuple[str, ...]:
    """Return the names of its requirements, without extras, which are not installed."""
    found = set()
    for requirement in message.get_all("Requires-Dist", []):
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        if name and not re.search(r";.*\bextra\s*==", requirement):
            found.add(normal(name[0]))
    return tuple(sorted(found))


def _licence(message: Message) -> tuple[str | None, str]:
    """Return the licence from the newest kind of field; ignore a field with a whole text."""
    if expression := message.get("License-Expression"):
        return spdx.normal(expression), "License-Expression of METADATA"
    stated = (message.get("License") or "").strip()
    if stated and "\n" not in stated and stated.upper() != "UNKNOWN":
        return spdx.normal(stated), "License of METADATA"
    classifiers = [
        spdx.normal(line.rpartition(" :: ")[2])
        for line in message.get_all("Classifier", [])
        if line.startswith(_CLASSIFIER) and line.count(" :: ") > 1
    ]
    if classifiers:
        return spdx.all_of(classifiers), "classifiers of METADATA"
    return None, "not stated in METADATA"
