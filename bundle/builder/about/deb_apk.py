"""Packages of Debian and Alpine: from an image's databases, an apt index, and `.deb` files."""

from __future__ import annotations

import lzma
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import zstandard
from debian.arfile import ArError, ArFile
from debian.deb822 import Packages

from bundle.builder import cache
from bundle.builder.about import spdx
from bundle.builder.about.layer_files import Files
from bundle.builder.images.blobs import UNREADABLE, ZSTD

Entry = dict[str, Any]
#: A package's fields, and its licence texts.
Found = tuple[Entry, list[str]]

COMMON = "usr/share/common-licenses/"
#: What recipes/seal_layer writes: a line for each package, `SHA256  NAME_VERSION_ARCHITECTURE`.
HASHES = "usr/share/airlift/packages.sha256"
NOT_CARRIED = "not carried in the image"
IN_PACKAGE = "copyright inside of the package"

# The compressions of packages that are read; part of the cache's key.
_READS = "gz-xz-zst"
#: The errors of a damaged package: python-debian reads numbers with `int`, and `tarfile` raises a
#: TypeError if a gzip stream ends within its head.
_DAMAGED = (*UNREADABLE, ArError, lzma.LZMAError, ValueError, TypeError)
_DATABASES = ("var/lib/dpkg/status", "lib/apk/db/installed", "usr/lib/apk/db/installed")


def os_release(files: Files) -> dict[str, str]:
    """Return the fields of the image's os-release."""
    text = files.read("etc/os-release") or files.read("usr/lib/os-release") or ""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs if value}


def of_image(files: Files, release: dict[str, str]) -> Iterator[Found]:
    """List the packages of dpkg's and apk's databases.

    Raises `ValueError` for a database that is not one.
    """
    status = [files.texts.get(_DATABASES[0], "")]
    # Distroless images have one file a package, beside files of checksums.
    status += [
        text
        for path, text in sorted(files.texts.items())
        if path.startswith("var/lib/dpkg/status.d/") and not path.endswith(".md5sums")
    ]
    vendor = release.get("ID", "debian")
    distro = release.get("VERSION_CODENAME", "")
    installed = [p for text in status for p in _paragraphs(text) if _is_installed(p)]
    hashes = _hashes(files.texts.get(HASHES, ""))
    for entry in _entries(installed):
        licence, notices = _licence_in(files, entry["name"])
        name = "_".join(entry[key] for key in ("name", "version", "architecture"))
        known = {"sha256": hashes.get(name, ""), "vendor": vendor, "distro": distro}
        yield {**entry, **licence, **known}, notices
    for path in _DATABASES[1:]:
        version = release.get("VERSION_ID", "")
        yield from _of_apk(files.texts.get(path, ""), release.get("ID", "alpine"), version)


def _hashes(text: str) -> dict[str, str]:
    lines = (line.partition("  ") for line in text.splitlines())
    return {name: sha256 for sha256, _, name in lines if re.fullmatch("[0-9a-f]{64}", sha256)}


def of_index(text: str) -> list[Entry]:
    """List a flat apt repository by its `Packages`; every entry has its file and hash."""
    paragraphs = _paragraphs(text)
    return [
        {
            **entry,
            # Not the distribution's: the host that it came from.
            "vendor": paragraph.get("Airlift-Origin", "debian"),
            "sha256": paragraph["SHA256"].lower(),
            "file": paragraph["Filename"].rpartition("/")[2],
        }
        for entry, paragraph in zip(_entries(paragraphs), paragraphs, strict=True)
        if {"SHA256", "Filename"} <= set(paragraph)
    ]


def licence_of(file: Path, name: str, sha256: str) -> Entry:
    """Return the licence that a `.deb` states; cached by its hash, because unpacking is slow."""
    note = cache.root() / "about" / f"debs-{spdx.FORMAT}-{_READS}" / f"{sha256}.json"
    known: Entry | None = cache.read_json(note)
    if known is None:
        known = _read_deb(file, name)
        cache.write_json(note, known)
    return known


def _read_deb(file: Path, name: str) -> Entry:
    try:
        raw = _copyright_in(file, name)
    except _DAMAGED as error:
        return {"licence": None, "stated_in": f"the package cannot be read: {error}"}
    if raw is None:
        return {"licence": None, "stated_in": "no copyright file of its own in the package"}
    stated = spdx.of_copyright(raw.decode("utf-8", "replace"))
    return {"licence": stated, "stated_in": IN_PACKAGE if stated else f"see file: {IN_PACKAGE}"}


def _copyright_in(file: Path, name: str) -> bytes | None:
    """Read a package, which is compressed as a whole, up to its copyright file.

    python-debian would unpack all of it into memory, with `unzstd`.
    """
    with file.open("rb") as stream:
        data = next((m for m in ArFile(fileobj=stream) if m.name.startswith("data.tar")), None)
        if data is None:
            return None
        plain = cast("IO[bytes]", data)
        magic = data.read(len(ZSTD))
        data.seek(0)
        if magic == ZSTD:
            unpacked = zstandard.ZstdDecompressor().stream_reader(plain, read_across_frames=True)
            plain = cast("IO[bytes]", unpacked)
        with tarfile.open(fileobj=plain, mode="r|*") as archive:
            for member in archive:
                if member.name == f"./usr/share/doc/{name}/copyright" and member.isfile():
                    return cast("IO[bytes]", archive.extractfile(member)).read()
    return None


def _paragraphs(text: str) -> list[Packages]:
    """Return the paragraphs of a database; raise `ValueError` for any other text."""
    lines = text.splitlines(keepends=True)
    found = list(Packages.iter_paragraphs(lines, use_apt_pkg=False))
    if text.strip() and not found:
        message = f"there is no paragraph in it: {text[:60]!r}"
        raise ValueError(message)
    for paragraph in found:
        if not all(paragraph.get(key, "").strip() for key in ("Package", "Version")):
            message = f"a paragraph names no package and version: {str(paragraph)[:60]!r}"
            raise ValueError(message)
    return found


def _is_installed(paragraph: Packages) -> bool:
    status = paragraph.get("Status")
    # `config-files`: removed except for its settings. Distroless has no status at all.
    return status is None or status.split()[-1:] not in (["config-files"], ["not-installed"])


def _entries(paragraphs: Iterable[Packages]) -> Iterator[Entry]:
    known = list(paragraphs)
    provided = {p["Package"]: p["Package"] for p in known}
    for paragraph in known:
        for group in paragraph.relations["provides"] or ():
            for virtual in group:
                provided.setdefault(virtual["name"], paragraph["Package"])
    for paragraph in known:
        source, version = paragraph["Package"], paragraph["Version"]
        if match := re.fullmatch(r"(\S+)(?: \((.+)\))?", paragraph.get("Source", "")):
            source, version = match[1], match[2] or version
        yield {
            "kind": "deb",
            "name": paragraph["Package"],
            "version": paragraph["Version"],
            "architecture": paragraph.get("Architecture", ""),
            "source": source,
            "source_version": version,
            "depends": _depends(paragraph, provided),
            "static": _static(paragraph),
        }


def _depends(paragraph: Packages, provided: dict[str, str]) -> tuple[str, ...]:
    """Return the packages that fulfil the dependencies; of alternatives, the first installed."""
    found = set()
    for kind in ("pre-depends", "depends"):
        for group in paragraph.relations[kind] or ():
            names = [provided[one["name"]] for one in group if one["name"] in provided]
            found.update(names[:1])
    return tuple(sorted(found - {paragraph["Package"]}))


def _static(paragraph: Packages) -> tuple[str, ...]:
    """Return the statically linked sources, which are nearly all with Go."""
    stated = f"{paragraph.get('Static-Built-Using', '')},{paragraph.get('Built-Using', '')}"
    found = re.findall(r"([a-z0-9][a-z0-9+.-]+) \(= ([^)]+)\)", stated)
    return tuple(sorted({f"{name} {version}" for name, version in found}))


def _licence_in(files: Files, name: str) -> tuple[Entry, list[str]]:
    text = files.read(f"usr/share/doc/{name}/copyright")
    if text is None:
        return {"licence": None, "stated_in": NOT_CARRIED}, []
    notices = [text]
    if name == "base-files":
        # Copyright files of other packages refer to these texts.
        notices += [t for path, t in sorted(files.texts.items()) if path.startswith(COMMON)]
    stated = spdx.of_copyright(text)
    where = f"usr/share/doc/{name}/copyright"
    return {"licence": stated, "stated_in": where if stated else f"see file: {where}"}, notices


def _of_apk(text: str, vendor: str, version: str) -> Iterator[Found]:
    """Read Alpine's database: fields of one letter, and an empty line after each package."""
    for block in filter(str.strip, text.split("\n\n")):
        fields = dict(line.split(":", 1) for line in block.splitlines() if line[1:2] == ":")
        if not all(fields.get(key, "").strip() for key in ("P", "V")):
            message = f"an apk entry names no package and version: {block[:60]!r}"
            raise ValueError(message)
        yield (
            {
                "kind": "apk",
                "name": fields["P"],
                "version": fields["V"],
                "architecture": fields.get("A", ""),
                "vendor": vendor,
                "distro": f"{vendor}-{version}" if version else "",
                "source": fields.get("o", fields["P"]),
                "source_version": fields["V"],
                "licence": fields.get("L") and spdx.normal(fields["L"]),
                "stated_in": "apk's database" if fields.get("L") else NOT_CARRIED,
            },
            [],
        )
