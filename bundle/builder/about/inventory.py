"""Lists the contents of a release: the packages of every image, and all wheels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from packageurl import PackageURL

from bundle.builder import cache, content
from bundle.builder.about import deb_apk, layer_files, python_packages, spdx
from bundle.builder.about.layer_files import Files
from bundle.builder.hosts.systems import System
from bundle.builder.problems import Problem
from bundle.core.files import sha256

#: Names of the components that are not images.
JUMP_HOST = "jump-host"
# Followed by the folder below packages/.
ENGINE = "engine/"
COLLECTIONS = "ansible-collections"

# Part of the cache's key, because another parser finds other things.
_FORMAT = 1
_AT_ONCE = 2


@dataclass(frozen=True)
class Package:
    """One package of a component."""

    # The type of its package URL: deb, apk, pypi, or generic for an Ansible collection.
    kind: str
    name: str
    version: str
    architecture: str = ""
    # The distribution, such as debian, and its release, such as trixie.
    vendor: str = ""
    distro: str = ""
    # The source package, where the vendor builds several packages from one.
    source: str = ""
    source_version: str = ""
    # Names of packages of the same component.
    depends: tuple[str, ...] = ()
    # Source packages whose code is inside, as `name version`.
    static: tuple[str, ...] = ()
    licence: str | None = None
    # Where the licence is stated, or why it is unknown.
    stated_in: str = ""
    # SHA-256 of the licence texts, which are in about/licences.
    notices: tuple[str, ...] = ()
    # SHA-256 of the file in the bundle; empty for a package in an image.
    sha256: str = ""
    file: str = ""

    @cached_property
    def purl(self) -> str:
        """Return the package URL, its name for other tools."""
        qualifiers = {"arch": self.architecture, "distro": self.distro, "file_name": self.file}
        return PackageURL(
            self.kind,
            self.vendor or None,
            self.name,
            self.version,
            {key: value for key, value in qualifiers.items() if value},
        ).to_string()


@dataclass(frozen=True)
class Contents:
    """The packages of one component."""

    packages: tuple[Package, ...]
    # What cannot be read, in words.
    unread: tuple[str, ...] = ()
    # Licence texts by SHA-256.
    texts: Mapping[str, str] = field(default_factory=dict)


def of_image(layout: Path, component: dict[str, Any]) -> Contents:
    """List an image's packages; cached, because they depend on its layers only."""
    digests = [layer["digest"] for layer in component["layers"]]
    names = [field.name for field in fields(Package)]
    versions = [_FORMAT, layer_files.FORMAT, spdx.FORMAT, names]
    note = cache.root() / "about" / "images" / f"{cache.key([versions, digests])}.json"
    known = cache.read_json(note)
    if known is None:
        try:
            found = _read_image(layer_files.of_image(layout, digests))
        except Problem as problem:
            # Not cached, so that the next build tries again.
            return Contents((), (problem.what,))
        cache.write_json(note, asdict(found))
        return found
    packages = tuple(_known(one) for one in known["packages"])
    return Contents(packages, tuple(known["unread"]), known["texts"])


def _known(fields: dict[str, Any]) -> Package:
    """Return a package from the cache, where JSON has lists instead of tuples."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
    }
    return Package(**values)


def of_wheels(folder: Path) -> Contents:
    """List the wheels of a folder, which contain their licence texts."""
    packages = [
        Package(**python_packages.of_wheel(path), sha256=sha256(path), file=path.name)
        for path in sorted(folder.glob("*.whl"))
    ]
    return Contents(tuple(packages))


def of_repositories(folder: Path, known: Sequence[System]) -> dict[str, Contents]:
    """List the packages of each system that has a folder below `folder`."""
    return {
        f"{ENGINE}{system.folder}": of_repository(folder / system.folder, system)
        for system in known
        if (folder / system.folder).is_dir()
    }


def of_repository(folder: Path, system: System) -> Contents:
    """List a system's packages by their index; the packages contain their licence texts."""
    index = folder / "Packages"
    try:
        entries = deb_apk.of_index(index.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Problem(f"the index of packages cannot be read: {error}", where=str(index)) from error

    def package(entry: dict[str, Any]) -> Package:
        if system.format == "deb":
            licence = deb_apk.licence_of(folder / entry["file"], entry["name"], entry["sha256"])
        else:
            licence = {"stated_in": "see file: the package's own License tag"}
        vendor = system.id if entry["vendor"] == "debian" else entry["vendor"]
        own = {"kind": system.format, "vendor": vendor, "distro": system.distro}
        return Package(**{**entry, **licence, **own})

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return Contents(_sorted(list(pool.map(package, entries))))


def of_collections() -> Contents:
    """List the Ansible collections, with the hash of the manifest, which has all other hashes."""
    packages = []
    for name, root in content.collections().items():
        raw = (root / "MANIFEST.json").read_bytes()
        info = json.loads(raw)["collection_info"]
        named = [spdx.normal(licence) for licence in info["license"] or ()]
        packages.append(
            Package(
                "generic",
                name,
                info["version"],
                vendor="ansible-collection",
                depends=tuple(sorted(info["dependencies"])),
                licence=spdx.all_of(named),
                stated_in="license of MANIFEST.json" if named else _licence_file(info),
                sha256=hashlib.sha256(raw).hexdigest(),
            )
        )
    return Contents(_sorted(packages))


def _read_image(files: Files) -> Contents:
    texts: dict[str, str] = {}
    unread = [f"an rpm database is not read: {path}" for path in sorted(files.unread)]
    found: list[Package] = []
    release = deb_apk.os_release(files)
    for read in (deb_apk.of_image, python_packages.of_image):
        try:
            for entry, notices in read(files, release):
                digests = {hashlib.sha256(text.encode()).hexdigest(): text for text in notices}
                texts |= digests
                found.append(Package(**entry, notices=tuple(sorted(digests))))
        except ValueError as error:
            unread.append(f"a package database cannot be read: {error}")
    if not found and not unread:
        unread.append("no package database: the image's files are not listed one by one")
    return Contents(_sorted(found), tuple(unread), dict(sorted(texts.items())))


def _licence_file(info: dict[str, Any]) -> str:
    return f"see file: {info['license_file'] or 'COPYING'} of the collection"


def _sorted(packages: Sequence[Package]) -> tuple[Package, ...]:
    unique = {package.purl: package for package in packages}
    return tuple(unique[purl] for purl in sorted(unique))
