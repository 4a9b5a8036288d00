"""The packages of a component, from the databases of dpkg, apk and Python."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bundle.builder.about import deb_apk, inventory, spdx
from bundle.builder.about.inventory import Contents, Package
from bundle.builder.hosts import systems
from bundle.builder.problems import Problem
from tests.unit.bundle.aboutkit import (
    OS_RELEASE,
    Link,
    Tree,
    debian,
    lay_out,
    layer,
    metadata,
    status,
)
from tests.unit.bundle.bundlekit import sha, wheel


def contents(folder: Path, *trees: Tree) -> Contents:
    component = lay_out(folder, {"x": [layer(tree) for tree in trees]})["x"]
    return inventory.of_image(folder, component)


def one(found: Contents, name: str) -> Package:
    return next(package for package in found.packages if package.name == name)


def test_debian_packages(tmp_path: Path) -> None:
    found = contents(
        tmp_path,
        debian("libc6 2.40-1", "gone 1.0"),
        debian(
            "libc6 2.41-12",
            "mawk 1.3\nProvides: awk",
            "base-files 13.8\nPre-Depends: awk\nDepends: libc6 (>= 2), absent | mawk",
            "prometheus 3.5.3+ds1-6+b1\nSource: prometheus (3.5.3+ds1-6)\n"
            "Static-Built-Using: golang-1.24 (= 1.24.4-1), golang-golang-x-net (= 1:0.27.0-2)",
        ),
    )
    names = [package.name for package in found.packages]
    assert names == ["base-files", "libc6", "mawk", "prometheus"]
    assert one(found, "libc6").purl == "pkg:deb/debian/libc6@2.41-12?arch=amd64&distro=trixie"
    assert one(found, "base-files").depends == ("libc6", "mawk")
    prometheus = one(found, "prometheus")
    assert (prometheus.source, prometheus.source_version) == ("prometheus", "3.5.3+ds1-6")
    assert prometheus.static == ("golang-1.24 1.24.4-1", "golang-golang-x-net 1:0.27.0-2")
    assert found.unread == ()


def test_an_image_tells_what_its_packages_files_hashed_to(tmp_path: Path) -> None:
    """Hashes count by name, version and architecture: those of another version are ignored."""
    lines = (
        f"{sha(b'libc')}  libc6_2.41-12_amd64\n{sha(b'old')}  zlib1g_1:1.2-1_amd64\n"
        f"no hash  mawk_1.3_amd64\n"
    )
    tree = {**debian("libc6 2.41-12", "mawk 1.3", "zlib1g 1:1.3-1"), deb_apk.HASHES: lines}
    found = contents(tmp_path, tree)
    assert {package.name: package.sha256 for package in found.packages} == {
        "libc6": sha(b"libc"),
        "mawk": "",
        "zlib1g": "",
    }


def test_the_cache_gives_the_same(tmp_path: Path) -> None:
    tree = debian("libc6 2.41-12", "zlib1g 1:1.3-1\nDepends: libc6")
    assert contents(tmp_path, tree) == contents(tmp_path, tree)


def test_what_is_removed_but_for_its_settings_is_not_there(tmp_path: Path) -> None:
    text = status("kept 1.0", "settings 1.0").replace(
        "Package: settings\nStatus: install ok installed",
        "Package: settings\nStatus: deinstall ok config-files",
    )
    found = contents(tmp_path, {"var/lib/dpkg/status": text})
    assert [package.name for package in found.packages] == ["kept"]


def test_distroless_has_a_file_a_package(tmp_path: Path) -> None:
    tree: Tree = {
        "etc/os-release": OS_RELEASE,
        "var/lib/dpkg/status.d/tzdata": "Package: tzdata\nVersion: 2026a-1\nArchitecture: all\n",
        "var/lib/dpkg/status.d/tzdata.md5sums": "0123  usr/share/zoneinfo/UTC\n",
        "var/lib/dpkg/status.d/base": "Package: base-files\nVersion: 13\nArchitecture: amd64\n",
    }
    found = contents(tmp_path, tree)
    assert [(p.name, p.version) for p in found.packages] == [
        ("base-files", "13"),
        ("tzdata", "2026a-1"),
    ]


@pytest.mark.parametrize("path", ["lib/apk/db/installed", "usr/lib/apk/db/installed"])
def test_alpine_packages(tmp_path: Path, path: str) -> None:
    installed = (
        "C:Q1abc=\nP:musl\nV:1.2.5-r10\nA:x86_64\nL:MIT\no:musl\n\n"
        "C:Q1def=\nP:ssl_client\nV:1.37.0-r18\nA:x86_64\nL:GPL-2.0-only\no:busybox\nF:usr/bin\n\n"
    )
    release = 'ID=alpine\nVERSION_ID="3.22.1"\n'
    found = contents(tmp_path, {path: installed, "etc/os-release": release})
    assert [p.purl for p in found.packages] == [
        "pkg:apk/alpine/musl@1.2.5-r10?arch=x86_64&distro=alpine-3.22.1",
        "pkg:apk/alpine/ssl_client@1.37.0-r18?arch=x86_64&distro=alpine-3.22.1",
    ]
    assert (found.packages[1].source, found.packages[1].licence) == ("busybox", "GPL-2.0-only")


def test_python_packages_of_a_virtual_environment_but_not_debians_own(tmp_path: Path) -> None:
    site = "opt/venv/lib/python3.13/site-packages"
    tree: Tree = {
        f"{site}/httpx-0.28.dist-info/METADATA": metadata(
            "httpx",
            "0.28",
            "License-Expression: BSD-3-Clause",
            "Requires-Dist: h11_x>=0.16",
            "Requires-Dist: brotli; extra == 'brotli'",
            "Requires-Dist: absent",
        ),
        f"{site}/h11_x-0.16.dist-info/METADATA": metadata(
            "h11_x", "0.16", "Classifier: License :: OSI Approved :: MIT License"
        ),
        f"{site}/h11_x-0.16.dist-info/LICENSE.txt": "the text",
        f"{site}/old.egg-info/PKG-INFO": metadata("old", "1", "License: The\n  whole text"),
        "usr/lib/python3/dist-packages/six-1.dist-info/METADATA": metadata("six", "1"),
    }
    found = contents(tmp_path, tree)
    assert [(p.kind, p.name, p.version) for p in found.packages] == [
        ("pypi", "h11-x", "0.16"),
        ("pypi", "httpx", "0.28"),
        ("pypi", "old", "1"),
    ]
    h11, httpx, old = found.packages
    assert httpx.depends == ("h11-x",)
    assert (httpx.licence, httpx.stated_in) == ("BSD-3-Clause", "License-Expression of METADATA")
    assert (h11.licence, h11.stated_in) == ("MIT", "classifiers of METADATA")
    assert (old.licence, old.stated_in) == (None, "not stated in METADATA")
    assert [found.texts[digest] for digest in h11.notices] == ["the text"]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    rpm = contents(tmp_path, {"usr/lib/sysimage/rpm/rpmdb.sqlite": "SQLite"})
    assert rpm.packages == ()
    assert "rpm database is not read" in rpm.unread[0]
    empty = contents(tmp_path, {"redis_exporter": "ELF"})
    assert "no package database" in empty.unread[0]
    broken = contents(tmp_path, {"var/lib/dpkg/status": "Package: half\n"})
    assert "cannot be read" in broken.unread[0]
    component = lay_out(tmp_path, {"x": [b"not a tar" * 100]})["x"]
    assert "cannot be read" in inventory.of_image(tmp_path, component).unread[0]


def test_wheels(tmp_path: Path) -> None:
    name, data = wheel("airlifttiny", "1.0", {"airlifttiny.py": b""})
    (tmp_path / name).write_bytes(data)
    found = inventory.of_wheels(tmp_path).packages[0]
    assert found.purl == f"pkg:pypi/airlifttiny@1.0?file_name={name}"
    assert (found.sha256, found.licence) == (sha(data), None)
    (tmp_path / "bad-1.0-py3-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(Problem, match="wheel bad-1"):
        inventory.of_wheels(tmp_path)


def test_an_apt_repository_with_a_real_package(tmp_path: Path) -> None:
    """The licence is read from inside the .deb, which carries its texts."""
    root = tmp_path / "root"
    copyright_file = debian("tool 1.0")["usr/share/doc/tool/copyright"]
    assert isinstance(copyright_file, str)
    for path, text in {
        "DEBIAN/control": "Package: tool\nVersion: 1.0\nArchitecture: all\n"
        "Maintainer: x <x@x>\nDescription: x\n",
        "usr/share/doc/tool/copyright": copyright_file,
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    deb = tmp_path / "tool_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", root, deb], check=True, capture_output=True)
    digest = sha(deb.read_bytes())
    (tmp_path / "Packages").write_text(
        "Package: tool\nVersion: 1.0\nArchitecture: all\nDepends: other\n"
        f"Filename: ./{deb.name}\nSHA256: {digest}\n"
    )
    found = inventory.of_repository(tmp_path, systems.load()[0]).packages[0]
    assert (found.sha256, found.file) == (digest, deb.name)
    assert (
        found.licence == "(BSD-3-Clause OR LicenseRef-public-domain) AND GPL-2.0-or-later AND MIT"
    )
    assert found.stated_in == deb_apk.IN_PACKAGE
    (tmp_path / "Packages").write_text("no index")
    with pytest.raises(Problem, match="index of packages"):
        inventory.of_repository(tmp_path, systems.load()[0])


def test_a_copyright_file_that_the_image_lacks_is_said_to_be_lacking(tmp_path: Path) -> None:
    tree = debian("a 1", "b 1", "c 1")
    del tree["usr/share/doc/a/copyright"]
    tree["usr/share/doc/b/copyright"] = "This package was debianised by somebody in prose."
    tree["usr/share/doc/c/copyright"] = Link("../b/copyright")
    found = contents(tmp_path, tree)
    assert (found.packages[0].licence, found.packages[0].stated_in) == (
        None,
        "not carried in the image",
    )
    assert found.packages[1].stated_in == "see file: usr/share/doc/b/copyright"
    assert found.packages[2].notices == found.packages[1].notices != ()


@pytest.mark.parametrize(
    ("stated", "expression"),
    [
        ("Expat", "MIT"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("LGPL-2.1", "LGPL-2.1-only"),
        ("GPL-3.0-or-later", "GPL-3.0-or-later"),
        ("AGPL-3+", "AGPL-3.0-or-later"),
        ("GFDL-1.3+", "GFDL-1.3-or-later"),
        ("bsd-3-clause", "BSD-3-Clause"),
        ("Apache-2.0", "Apache-2.0"),
        ("GPL-2+ or Artistic", "GPL-2.0-or-later OR Artistic-1.0"),
        ("GPL-2 or Expat, and ISC", "(GPL-2.0-only OR MIT) AND ISC"),
        ("MIT AND (Apache-2.0 OR BSD-2-Clause)", "MIT AND (Apache-2.0 OR BSD-2-Clause)"),
        ("GPL-2+ with OpenSSL exception", "LicenseRef-GPL-2-with-OpenSSL-exception"),
        ("public-domain", "LicenseRef-public-domain"),
        ("<script>alert(1)</script>", "LicenseRef-script-alert-1-script"),
    ],
)
def test_licence_names(stated: str, expression: str) -> None:
    assert spdx.normal(stated) == expression


def test_all_licences_of_a_copyright_file() -> None:
    text = str(debian("x 1")["usr/share/doc/x/copyright"])
    wanted = "(BSD-3-Clause OR LicenseRef-public-domain) AND GPL-2.0-or-later AND MIT"
    assert spdx.of_copyright(text) == wanted
    assert spdx.of_copyright("prose that mentions the GPL-2") is None
