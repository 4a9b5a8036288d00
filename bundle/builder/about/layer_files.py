"""Reads the few files of an image that list its contents from its layers, without an engine.

Each layer is read only once: the result is cached under the layer's digest.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bundle.builder import cache
from bundle.builder.images.blobs import UNREADABLE, plain_stream
from bundle.builder.problems import Problem

#: Package databases, metadata of distributions and Python packages, and licences.
WANTED = re.compile(
    r"""
    var/lib/dpkg/(status|status\.d/[^/]+)
    | (usr/)?lib/apk/db/installed
    | (etc|usr/lib)/os-release
    | usr/share/airlift/packages\.sha256
    | usr/share/doc/[^/]+/copyright
    | usr/share/common-licenses/[^/]+
    | (.*/)?[^/]+\.(dist-info|egg-info)/(METADATA|PKG-INFO)
    | (.*/)?[^/]+\.dist-info/((licenses|license_files)/.+|(LICEN[CS]E|COPYING|NOTICE)[^/]*)
    """,
    re.VERBOSE,
)
#: Databases in a binary form that cannot be read here; they are only reported.
UNREAD = re.compile(r"(var/lib/rpm|usr/lib/sysimage/rpm)/(rpmdb\.sqlite|Packages(\.db)?)")

_LIMIT = 16 << 20
#: Part of the cache's key, because another pattern or version finds other files.
FORMAT = cache.key([1, WANTED.pattern, UNREAD.pattern])
_AT_ONCE = 2
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MAX_LINKS = 8


@dataclass
class Files:
    """The files of an image, after all of its layers."""

    texts: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)

    def read(self, path: str) -> str | None:
        """Return a file's text, through symbolic links, or None if there is no such file."""
        for _ in range(_MAX_LINKS):
            if path in self.texts:
                return self.texts[path]
            followed = self._follow(path)
            if followed is None:
                return None
            path = followed
        return None

    def _follow(self, path: str) -> str | None:
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            head = "/".join(parts[:count])
            if head in self.links:
                return _join(head, self.links[head], parts[count:])
        return None

    def _forget(self, path: str, *, itself: bool = True) -> None:
        """Remove everything below a path, and the path itself."""
        below = f"{path}/"
        for known in (self.texts, self.links, self.unread):
            gone = [p for p in known if p.startswith(below) or (itself and p == path)]
            for each in gone:
                known.pop(each) if isinstance(known, dict) else known.discard(each)

    def add(self, layer: dict[str, Any]) -> None:
        """Apply one more layer."""
        for path in layer["opaque"]:
            self._forget(path, itself=False)
        for path in layer["removed"]:
            self._forget(path)
        # A file or link replaces anything of its name, even a directory; a directory, a link.
        held = {*self.texts, *self.links, *self.unread}
        held |= {folder for path in held for folder in _parents(path)}
        new = {*layer["others"], *layer["links"], *layer["texts"], *layer["unread"]}
        for path in sorted(new & held):
            self._forget(path)
        folders = {path.rpartition("/")[0] for path in new}
        for folder in folders.union(*(_parents(folder) for folder in folders)):
            self.links.pop(folder, None)
        self.texts.update(layer["texts"])
        self.links.update(layer["links"])
        self.unread.update(layer["unread"])


def of_image(layout: Path, digests: Sequence[str]) -> Files:
    """Return the wanted files of an image of these layers, lowest first."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        layers = list(pool.map(lambda digest: _layer(layout, digest), digests))
    files = Files()
    for layer in layers:
        files.add(layer)
    return files


def _layer(layout: Path, digest: str) -> dict[str, Any]:
    value = digest.removeprefix("sha256:")
    note = cache.root() / "about" / f"layers-{FORMAT}" / f"{value}.json"
    found: dict[str, Any] | None = cache.read_json(note)
    if found is None:
        found = read(layout / "blobs" / "sha256" / value)
        cache.write_json(note, found)
    return found


def read(blob: Path) -> dict[str, Any]:
    """Read one layer, in any of OCI's compressions.

    `texts` and `links` by path; `removed` and `opaque` for lower layers; `others`, the paths of all
    other files, because a file may replace a directory.
    """
    found: dict[str, Any] = {"texts": {}, "links": {}, "unread": []}
    found |= {"removed": [], "opaque": [], "others": []}
    try:
        with (
            blob.open("rb") as stream,
            plain_stream(stream) as plain,
            tarfile.open(fileobj=plain, mode="r|", bufsize=1 << 20) as archive,
        ):
            for member in archive:
                _take(archive, member, found)
    except (*UNREADABLE, ValueError) as error:
        message = f"the layer {blob.name[:12]} cannot be read: {error}"
        raise Problem(
            message, where=str(blob), fix="remove this file, then build again, which pulls it again"
        ) from error
    return found


def _take(archive: tarfile.TarFile, member: tarfile.TarInfo, found: dict[str, Any]) -> None:
    path = _clean(member.name)
    folder, _, name = path.rpartition("/")
    if name == _OPAQUE:
        found["opaque"].append(folder)
    elif name.startswith(_WHITEOUT):
        found["removed"].append(f"{folder}/{name[4:]}".lstrip("/"))
    elif member.issym():
        found["links"][path] = member.linkname
    elif member.islnk() and _clean(member.linkname) in found["texts"]:
        found["texts"][path] = found["texts"][_clean(member.linkname)]
    elif member.isfile() and WANTED.fullmatch(path):
        if member.size > _LIMIT:
            message = f"{path!r} has {member.size} bytes, more than a package database has"
            raise ValueError(message)
        content = cast("Any", archive.extractfile(member)).read()
        found["texts"][path] = _decode(content)
    elif member.isfile() and UNREAD.fullmatch(path):
        found["unread"].append(path)
    elif not member.isdir():
        found["others"].append(path)


def _decode(content: bytes) -> str:
    """Decode a text; old copyright files are Latin-1."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def _parents(path: str) -> list[str]:
    return [path[:i] for i, char in enumerate(path) if char == "/"]


def _join(link: str, target: str, rest: list[str]) -> str:
    """Return the path that a link leads to; none leads out of the image."""
    parts = [] if target.startswith("/") else link.split("/")[:-1]
    for part in (*target.split("/"), *rest):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
