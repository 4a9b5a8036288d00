"""Licences and provenance: stated values are reported, and unknown ones are reported as unknown."""

from __future__ import annotations

import dataclasses
import gzip
import re
from pathlib import Path
from typing import Any

import pytest
from debian.arfile import ArFile
from debian.debfile import DebFile

from bundle.builder.about import deb_apk, licences
from bundle.builder.about.subject import Subject
from tests.unit.bundle import debkit
from tests.unit.bundle.aboutkit import debian, layer, parsed, subject, written
from tests.unit.bundle.bundlekit import TREE, sha


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Subject:
    bare = debian("libc6 2.41-12", "bare 1.0", "base-files 13.8")
    del bare["usr/share/doc/bare/copyright"]
    bare["usr/share/common-licenses/GPL-3"] = "GNU GENERAL PUBLIC LICENSE\n"
    shared = debian("libc6 2.41-12")
    venv = "srv/lib/tiny-1.0.dist-info"
    app: dict[str, Any] = {
        f"{venv}/METADATA": "Name: Tiny\nVersion: 1.0\nLicense: MIT\n",
        f"{venv}/licenses/LICENSE": "the licence of tiny\n",
    }
    layers = {"app": [layer(bare), layer(app)], "redis": [layer(shared)]}
    return subject(tmp_path_factory.mktemp("licences"), tree, layers)


@pytest.fixture(scope="module")
def files(one: Subject, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return written(tmp_path_factory.mktemp("out"), one)


def row(files: dict[str, bytes], component: str, package: str) -> dict[str, Any]:
    rows = parsed(files, "licences.json")["packages"]
    found: dict[str, Any] = next(
        r for r in rows if (r["component"], r["package"]) == (component, package)
    )
    return found


def test_the_table(files: dict[str, bytes]) -> None:
    libc = row(files, "app", "libc6")
    assert libc["licence"].endswith("GPL-2.0-or-later AND MIT")
    assert libc["stated_in"] == "usr/share/doc/libc6/copyright"
    bare = row(files, "app", "bare")
    assert (bare["licence"], bare["stated_in"]) == ("not stated", "not carried in the image")
    assert row(files, "app", "tiny")["licence"] == "MIT"
    assert row(files, "jump-host", "airlifttiny")["stated_in"] == "not stated in METADATA"
    assert "cannot be read" in row(files, "engine/debian-13", "docker.io")["stated_in"]
    # The file has one package per line, so that grep works.
    assert re.search(rb'^{"component": "app".*"libc6".*}', files["licences.json"], re.MULTILINE)


def test_the_texts_travel_once_and_the_notices_name_them(files: dict[str, bytes]) -> None:
    texts = gzip.decompress(files["licences/texts.txt.gz"]).decode()
    found = re.findall(r"^text ([0-9a-f]{16})$", texts, re.MULTILINE)
    assert len(set(found)) == len(found)
    assert texts.count("Upstream-Name: libc6") == 1
    assert "the licence of tiny" in texts
    assert "GNU GENERAL PUBLIC LICENSE" in texts
    for name in ("app", "redis"):
        notice = files[f"licences/{name}.txt"].decode()
        named = re.findall(r"\b[0-9a-f]{16}\b", notice)
        assert named
        assert set(named) <= set(found)
    tiny = sha(b"the licence of tiny\n")[:16]
    assert row(files, "app", "tiny")["texts"] == [tiny]
    assert f"tiny 1.0\n  MIT\n  text {tiny}\n" in files["licences/app.txt"].decode()
    assert "bare 1.0\n  not stated; not carried" in files["licences/app.txt"].decode()


def test_the_products_own_licence(files: dict[str, bytes], tmp_path: Path, tree: Path) -> None:
    # This tree has LICENSE and pyproject.toml, the small tree only LICENSE.
    assert parsed(files, "licences.json")["product"]["licence"] == "see file"
    one = subject(tmp_path, tree, {})
    licences.write(tmp_path, TREE, one.inventory)
    table = {"licences.json": (tmp_path / "licences.json").read_bytes()}
    product = parsed(table, "licences.json")["product"]
    assert product == {"licence": "Apache-2.0", "text": "content/LICENSE"}


def test_the_statement_names_what_was_made_and_from_what(
    one: Subject, files: dict[str, bytes]
) -> None:
    statement = parsed(files, "provenance.intoto.json")
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {s["name"]: s["digest"]["sha256"] for s in statement["subject"]}
    digest = one.components["app"]["manifest_digest"].removeprefix("sha256:")
    assert subjects["airlift/app:1.2.3"] == digest
    for path, file in {
        **{f"wheels/{f.name}": f for f in one.wheels.iterdir()},
        **{f"packages/debian-13/{f.name}": f for f in (one.packages / "debian-13").glob("*.deb")},
    }.items():
        assert subjects[path] == sha(file.read_bytes())
    build = statement["predicate"]["buildDefinition"]
    assert build["externalParameters"] == {
        "version": "1.0.0",
        "serial": 1,
        "imageSource": "debian",
        "created": "2026-01-01T00:00:00Z",
    }
    by_name = {d.get("name", d.get("uri")): d for d in build["resolvedDependencies"]}
    assert by_name["source tree"]["digest"] == {"gitCommit": one.release.revision}
    lock = one.tree / "requirements" / "controller.txt"
    assert by_name["requirements/controller.txt"]["digest"] == {"sha256": sha(lock.read_bytes())}
    docker = next(d for uri, d in by_name.items() if uri.startswith("pkg:deb/debian/docker.io@"))
    assert docker["digest"] == {"sha256": sha(b"deb")}
    libc = next(d for uri, d in by_name.items() if uri.startswith("pkg:deb/debian/libc6@"))
    assert "digest" not in libc
    assert libc["annotations"] == {"in": ["app", "redis"]}


def test_the_pins_of_the_real_lock_and_whether_they_were_used(tmp_path: Path, tree: Path) -> None:
    small = subject(tmp_path, tree, {})
    for source, used in (("debian", False), ("registry", True)):
        one = dataclasses.replace(small, tree=TREE, image_source=source)
        statement = parsed(written(tmp_path / source, one), "provenance.intoto.json")
        found = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        pin = next(d for d in found if d.get("name") == "pin of postgres")
        assert re.fullmatch(r"docker://docker\.io/library/postgres:[\d.]+", pin["uri"])
        assert len(pin["digest"]["sha256"]) == 64
        assert pin["annotations"] == {"used": used}


def test_the_packages_of_each_component(files: dict[str, bytes]) -> None:
    found = parsed(files, "packages.json")
    assert set(found) == {"app", "redis", "engine/debian-13"}
    assert {"package": "libc6", "version": "2.41-12", "architecture": "amd64", "sha256": None} in (
        found["app"]
    )
    assert [(p["package"], p["sha256"]) for p in found["engine/debian-13"]] == [
        ("docker.io", sha(b"deb")),
        ("iptables", sha(b"deb 2")),
    ]


@pytest.mark.parametrize("compression", ["zstd", "xz", "gzip", "none"])
def test_the_licence_of_a_package_is_read_however_it_is_compressed(
    compression: str, tmp_path: Path
) -> None:
    """Ubuntu compresses packages with zstd, Debian with xz."""
    file = debkit.package(tmp_path, "tool", compression)
    members = ArFile(str(file)).getnames()
    ending = {"zstd": ".zst", "xz": ".xz", "gzip": ".gz", "none": ""}[compression]
    assert members == ["debian-binary", f"control.tar{ending}", f"data.tar{ending}"]
    found = deb_apk.licence_of(file, "tool", sha(file.read_bytes()))
    assert found == {"licence": "Apache-2.0", "stated_in": deb_apk.IN_PACKAGE}
    assert DebFile(str(file)).debcontrol()["Package"] == "tool"


@pytest.mark.parametrize("compression", ["zstd", "xz", "gzip"])
@pytest.mark.parametrize("damage", ["cut short", "altered"])
def test_a_damaged_package_is_named_as_such(damage: str, compression: str, tmp_path: Path) -> None:
    file = debkit.package(tmp_path, "tool", compression)
    raw = bytearray(file.read_bytes())
    if damage == "cut short":
        del raw[len(raw) // 4 :]
    else:
        raw[len(raw) // 8 :] = bytes(len(raw) - len(raw) // 8)
    file.write_bytes(raw)
    found = deb_apk.licence_of(file, "tool", sha(bytes(raw)))
    assert found["licence"] is None
    assert found["stated_in"].startswith("the package cannot be read: ")
