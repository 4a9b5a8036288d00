"""Images with real layers: package databases of Debian, Alpine and Python in real tar files."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
import zstandard

from bundle.builder.about import documents
from bundle.builder.about.subject import Asked, Subject
from bundle.builder.collected import Collected
from bundle.builder.release import Release
from tests.unit.bundle.bundlekit import TREE, FakeSuppliers, image, sha

DEP5 = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: {name}

Files: *
Copyright: 2001 Somebody
License: GPL-2+ and Expat

Files: debian/*
Copyright: 2002 Somebody else
License: BSD-3-clause or public-domain

License: GPL-2+
 The text of a licence that is referred to.
"""
OS_RELEASE = "ID=debian\nVERSION_ID=13\nVERSION_CODENAME=trixie\n"


@dataclass(frozen=True)
class Link:
    target: str
    hard: bool = False


# Content by path: a text, a link, or None for a directory.
Tree = Mapping[str, "str | bytes | Link | None"]
Changeable = dict[str, "str | bytes | Link | None"]


def layer(tree: Tree, compression: str = "zstd") -> bytes:
    """Return one layer, packed as a registry or the builder stores it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, what in tree.items():
            info = tarfile.TarInfo(path)
            data = b""
            if isinstance(what, Link):
                info.type = tarfile.LNKTYPE if what.hard else tarfile.SYMTYPE
                info.linkname = what.target
            elif what is None:
                info.type = tarfile.DIRTYPE
            else:
                data = what.encode() if isinstance(what, str) else what
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    plain = out.getvalue()
    if compression == "zstd":
        return zstandard.compress(plain)
    return gzip.compress(plain, mtime=0) if compression == "gzip" else plain


def status(*packages: str) -> str:
    """Return a dpkg database from lines `name version`, with further fields after a newline."""
    found = []
    for package in packages:
        first, _, rest = package.partition("\n")
        name, version = first.split()
        found.append(
            f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\n"
            f"Version: {version}\n{rest}"
        )
    return "\n\n".join(entry.strip() for entry in found) + "\n"


def metadata(name: str, version: str, *lines: str) -> str:
    return "\n".join(["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *lines, ""])


def debian(*packages: str) -> Changeable:
    """Return a base layer with these packages, each with its copyright file."""
    tree: Changeable = {
        "usr/lib/os-release": OS_RELEASE,
        "etc/os-release": Link("../usr/lib/os-release"),
        "var/lib/dpkg/status": status(*packages),
    }
    for package in packages:
        name = package.split()[0]
        tree[f"usr/share/doc/{name}/copyright"] = DEP5.format(name=name)
    return tree


@dataclass
class Images(FakeSuppliers):
    """Suppliers with the test's images: layers by component, lowest first."""

    layers: dict[str, list[bytes]] = field(default_factory=dict)
    absent: Mapping[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def images(
        self, lock: Path, source: str, version: str, layout: Path, log: Callable[[str], None]
    ) -> Collected:
        return Collected("debian", lay_out(layout, self.layers), {})


def lay_out(layout: Path, layers: dict[str, list[bytes]]) -> dict[str, dict[str, Any]]:
    """Write an OCI layout; return the manifest's components."""
    folder = layout / "blobs" / "sha256"
    folder.mkdir(parents=True, exist_ok=True)
    components = {}
    for name, each in layers.items():
        components[name], blobs = image(name, each)
        # These layers are compressed, and none is larger than this.
        components[name]["unpacked_size"] = 1 << 20
        for digest, data in blobs.items():
            (folder / digest).write_bytes(data)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text("{}")
    return components


DEFAULT = {
    "app": [
        layer(debian("libc6 2.41-12+deb13u4", "zlib1g 1:1.3.1-1\nDepends: libc6 (>= 2.14)")),
        layer(
            {
                "srv/lib/tiny-1.0.dist-info/METADATA": metadata("Tiny", "1.0", "License: MIT"),
                "srv/lib/tiny-1.0.dist-info/licenses/LICENSE": "the licence of tiny\n",
            },
            "gzip",
        ),
    ],
    "redis": [
        layer(debian("libc6 2.41-12+deb13u4", "redis-server 5:8.0.2-3\nSource: redis")),
    ],
}


def subject(
    folder: Path, tree: Path, layers: dict[str, list[bytes]] | None = None, **asked: Any
) -> Subject:
    """Return the input that `build` gives to the writers of `about/`."""
    suppliers = FakeSuppliers()
    suppliers.wheels(tree / "requirements" / "controller.txt", folder / "wheels", print)
    suppliers.packages(folder / "packages", print)
    return Subject(
        tree=tree,
        release=Release(
            version="1.0.0",
            serial=1,
            schema=yaml.safe_load((TREE / "bundle" / "release.yml").read_text())["schema"],
            upgrade={"minimum_version": "1.0.0", "required_stops": []},
            created="2026-01-01T00:00:00Z",
            revision="0123456789abcdef0123456789abcdef01234567",
            notes=(),
        ),
        architecture="amd64",
        image_source="debian",
        components=lay_out(folder / "layout", DEFAULT if layers is None else layers),
        absent={"grafana": {"reason": "not in Debian"}},
        layout=folder / "layout",
        wheels=folder / "wheels",
        packages=folder / "packages",
        asked=Asked(**asked),
    )


def written(folder: Path, one: Subject) -> dict[str, bytes]:
    """Run every writer of `about/`; return the files' bytes by path."""
    files = documents.write(one, folder / f"about-{sha(str(one).encode())[:8]}")
    return {path.removeprefix("about/"): file.read_bytes() for path, file in files.items()}


def parsed(files: dict[str, bytes], path: str) -> Any:
    return json.loads(files[path])
