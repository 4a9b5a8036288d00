"""Fuzz rows for what the build reads: layers, package databases, wheels, vulnerability lists."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import logging
import tarfile
from typing import Any, Literal

import zstandard

from bundle.builder import cache
from bundle.builder.about import deb_apk, debian_tracker, layer_files, python_packages
from bundle.builder.about.layer_files import Files as LayerFiles
from bundle.builder.images import upstream
from bundle.builder.images.lockfile import Upstream
from bundle.builder.problems import Problem
from bundle.errors import AirliftError, Kind
from tests.fuzz.mutate import Bytes, Gzip, Json, Lines, Tar
from tests.fuzz.parser import Case, Kit, fuzzed
from tests.unit.bundle import debkit
from tests.unit.bundle.bundlekit import wheel

STATUS = """Package: libc6
Status: install ok installed
Version: 2.36-9+deb12u9
Architecture: amd64
Source: glibc (2.36-9)
Depends: libgcc-s1, libcrypt1 (>= 1:4.4.10) | libx
Provides: libc-dev (= 2.36)
Built-Using: gcc-12 (= 12.2.0-14)
Description: the C library
 with words
 .
 and more

Package: libgcc-s1
Status: install ok installed
Version: 12.2.0-14
Architecture: amd64
"""
APK = "P:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\n\nP:busybox\nV:1.36.1-r29\nL:GPL-2.0-only\n\n"
COPYRIGHT = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
COPYRIGHT += "Files: *\nCopyright: 2026 A\nLicense: MIT\n"
METADATA = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nLicense: MIT\nRequires-Dist: x>1\n"


def _layer() -> bytes:
    out = io.BytesIO()
    files = {
        "var/lib/dpkg/status": STATUS,
        "lib/apk/db/installed": APK,
        "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
        "usr/share/doc/libc6/copyright": COPYRIGHT,
        "usr/lib/python3/site/tiny-1.0.dist-info/METADATA": METADATA,
        "etc/.wh.passwd": "",
        "opt/.wh..wh..opq": "",
        "bin/sh": "x",
    }
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("usr/lib/os-release")
        link.type, link.linkname = tarfile.SYMTYPE, "../../etc/os-release"
        archive.addfile(link)
    return out.getvalue()


@fuzzed(
    "layer of an image",
    "bundle.builder.about.layer_files.read",
    *("bundle/builder/about/layer_files.py", "bundle/builder/images/blobs.py"),
    form=Gzip(Tar()),
    refusals=(Problem, AirliftError),
    kinds=(Kind.BUILD_INPUT,),
)
def of_layer(kit: Kit) -> Case:
    """Each path stays inside the image, or the layer is refused as unreadable."""
    plain = _layer()
    seeds = [gzip.compress(plain, 1, mtime=0), plain, zstandard.ZstdCompressor().compress(plain)]

    # Silence the parser, which warns about each relation that it cannot read.
    kit.patch.setattr(logging.getLogger("debian.deb822"), "disabled", True)

    def check(data: bytes) -> None:
        found = layer_files.read(kit.file("blob", data))
        files = LayerFiles()
        files.add(found)
        files.add(found)
        for path in (*found["texts"], *found["links"], *found["others"]):
            assert ".." not in path.split("/")
            assert not path.startswith("/")
            files.read(path)
        json.dumps(found)
        with contextlib.suppress(ValueError):
            for entry, _ in deb_apk.of_image(files, deb_apk.os_release(files)):
                assert entry["name"]
            list(python_packages.of_image(files, {}))

    return Case(seeds, check)


@fuzzed(
    "package databases",
    "bundle.builder.about.deb_apk.of_image, of_index",
    *("bundle/builder/about/deb_apk.py", "bundle/builder/about/spdx.py"),
    form=Lines(
        [b"Package:", b"Version: 1", b"Depends: a (", b" .", b"P:x", b"L:", b"Status:", b"(= 1)"]
    ),
    refusals=(ValueError,),
)
def of_packages(kit: Kit) -> Case:
    """Each package has a name and a version, or the database is refused."""
    # Silence the parser, which warns about each relation that it cannot read.
    kit.patch.setattr(logging.getLogger("debian.deb822"), "disabled", True)
    debkit.repository(kit.folder / "debian-13")
    index = (kit.folder / "debian-13" / "Packages").read_bytes()

    def check(data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        refusals = []
        for path in ("var/lib/dpkg/status", "lib/apk/db/installed"):
            files = LayerFiles(texts={path: text, "usr/share/doc/libc6/copyright": text})
            try:
                for entry, _ in deb_apk.of_image(files, {}):
                    assert entry["name"]
                    assert entry["version"]
                    json.dumps(entry)
            except ValueError as error:
                refusals.append(error)
        try:
            json.dumps(deb_apk.of_index(text))
        except ValueError as error:
            refusals.append(error)
        # Raise only if all three readers refuse: a valid database is valid for one of them only.
        if len(refusals) == 3:
            raise refusals[0]

    return Case([STATUS.encode(), APK.encode(), index], check)


def deb(mode: Literal["w:gz", "w:xz"] = "w:gz") -> bytes:
    """Return a Debian package with a copyright file, its data compressed by `mode`."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        member = tarfile.TarInfo("./usr/share/doc/libc6/copyright")
        member.size = len(COPYRIGHT)
        archive.addfile(member, io.BytesIO(COPYRIGHT.encode()))
    out = b"!<arch>\n"
    for name, body in (("debian-binary", b"2.0\n"), (f"data.tar.{mode[2:]}", data.getvalue())):
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n".encode()
        out += body + b"\n" * (len(body) % 2)
    return out


@fuzzed(
    "package of Debian",
    "bundle.builder.about.deb_apk.licence_of",
    *("bundle/builder/about/deb_apk.py", "bundle/builder/about/spdx.py"),
    form=Bytes(
        [b"!<arch>\n", b"`\n", b"data.tar.xz", b"control.tar", b"\xfd7zXZ\x00", b"\x1f\x8b"]
    ),
    refusals=(),
)
def of_deb(kit: Kit) -> Case:
    """The licence of a package is found, or the reason why it is unknown."""
    kit.patch.setattr(cache, "read_json", lambda _: None)
    kit.patch.setattr(cache, "write_json", lambda *_: None)

    def check(data: bytes) -> None:
        found = deb_apk.licence_of(kit.file("libc6.deb", data), "libc6", "0" * 64)
        assert found["stated_in"]
        json.dumps(found)

    return Case([deb("w:xz"), deb("w:gz")], check)


@fuzzed(
    "wheel",
    "bundle.builder.about.python_packages.of_wheel",
    "bundle/builder/about/python_packages.py",
    form=Bytes([b"PK\x01\x02", b"PK\x05\x06", b"PK\x03\x04", b".dist-info/METADATA"]),
    refusals=(Problem, AirliftError),
    kinds=(Kind.BUILD_INPUT,),
)
def of_wheel(kit: Kit) -> Case:
    """A wheel yields its name and version, or is refused as unreadable."""
    seed = wheel("tiny", "1.0", {"tiny.py": b"A = 1\n"}, ("License: MIT", "Requires-Dist: x"))[1]

    def check(data: bytes) -> None:
        found = python_packages.of_wheel(kit.file("tiny-1.0-py3-none-any.whl", data))
        assert found["name"]
        assert found["version"]

    return Case([seed], check)


@fuzzed(
    "list of vulnerabilities",
    "bundle.builder.about.debian_tracker.load",
    "bundle/builder/about/debian_tracker.py",
    form=Json(words=(b'"status"', b'"fixed_version"', b'"1:2.3~rc1-4"')),
    kinds=(Kind.BUILD_INPUT,),
)
def of_tracker(kit: Kit) -> Case:
    """An accepted list can be matched with packages."""
    issue = {"releases": {"bookworm": {"status": "resolved", "fixed_version": "2.36-10"}}}
    other = {"releases": {"bookworm": {"status": "open", "urgency": "low"}}}
    seed = json.dumps({"glibc": {"CVE-2026-1": issue, "CVE-2026-2": other}}).encode()

    def check(data: bytes) -> None:
        tracker = debian_tracker.load(kit.file("tracker.json", data))
        for distro in ("bookworm", *tracker.releases):
            for source in tracker.entries:
                found: list[dict[str, Any]] = list(
                    debian_tracker._of_source(tracker, source, "2.36-9", distro)
                )
                json.dumps(found)

    return Case([seed], check)


@fuzzed(
    "answer of a registry",
    "bundle.builder.images.upstream.resolve",
    "bundle/builder/images/upstream.py",
    form=Json(words=(b'"manifests"', b'"platform"', b'"digest"')),
    refusals=(Problem, AirliftError),
    kinds=(Kind.BUILD_INPUT,),
)
def of_registry(kit: Kit) -> Case:
    """A tag is resolved, or the registry's answer is refused."""
    digest = "sha256:" + "0" * 64
    platform = {"os": "linux", "architecture": "amd64"}
    index = {"manifests": [{"digest": digest, "platform": platform}]}
    one = Upstream("registry.example/library/redis", "7", digest)
    current = [b""]

    def said(verb: str, options: list[str], _: Upstream, which: str, *__: str) -> bytes:
        if which.startswith(":"):
            return current[0]
        raise Problem("not here")

    kit.patch.setattr(upstream, "_skopeo", said)

    def check(data: bytes) -> None:
        current[0] = data
        try:
            upstream.resolve(one)
        except Problem as error:
            if "not here" not in str(error):
                raise

    return Case([json.dumps(index).encode()], check)
