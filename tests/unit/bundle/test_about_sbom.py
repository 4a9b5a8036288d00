"""Bills of materials are strictly valid, complete, and the same bytes each time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion

from bundle.builder.about import inventory, sbom
from bundle.builder.about.subject import Subject
from tests.unit.bundle.aboutkit import DEFAULT, debian, lay_out, layer, parsed, subject, written

Document = dict[str, Any]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Subject:
    return subject(tmp_path_factory.mktemp("sbom"), tree)


@pytest.fixture(scope="module")
def files(one: Subject, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return written(tmp_path_factory.mktemp("out"), one)


def names(document: Document) -> list[tuple[str, str]]:
    return sorted((c["name"], c["version"]) for c in document["components"])


def needs(document: Document, ref: str) -> list[str]:
    entry = next(entry for entry in document["dependencies"] if entry["ref"] == ref)
    return list(entry.get("dependsOn", []))


def faults(text: str) -> object:
    """Return the errors of a document by the strict schema, or None."""
    # Importing it takes seconds to compile grammars: only processes that run this test do.
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_every_one_is_valid_by_the_strict_schema(files: dict[str, bytes]) -> None:
    found = [path for path in files if path.startswith("sbom/")]
    assert found == [
        "sbom/ansible-collections.cdx.json",
        "sbom/app.cdx.json",
        "sbom/engine-debian-13.cdx.json",
        "sbom/jump-host.cdx.json",
        "sbom/redis.cdx.json",
        "sbom/release.cdx.json",
    ]
    for path in found:
        assert faults(files[path].decode()) is None
        document = parsed(files, path)
        assert document["specVersion"] == "1.6"
        refs = [c["bom-ref"] for c in document.get("components", [])]
        assert len(set(refs)) == len(refs)
        known = {*refs, document["metadata"]["component"]["bom-ref"]}
        for entry in document["dependencies"]:
            assert {entry["ref"], *entry.get("dependsOn", [])} <= known
    # Control: the validator refuses an invalid document.
    broken = parsed(files, found[0]) | {"unknown": 1}
    assert faults(json.dumps(broken)) is not None


def test_an_image_with_its_packages_and_their_dependencies(files: dict[str, bytes]) -> None:
    document = parsed(files, "sbom/app.cdx.json")
    assert names(document) == [
        ("libc6", "2.41-12+deb13u4"),
        ("tiny", "1.0"),
        ("zlib1g", "1:1.3.1-1"),
    ]
    root = document["metadata"]["component"]
    assert (root["type"], root["name"], root["version"]) == ("container", "app", "1.2.3")
    assert root["purl"].startswith("pkg:oci/app@sha256:")
    libc, zlib = (
        f"pkg:deb/debian/{name}?arch=amd64&distro=trixie"
        for name in ("libc6@2.41-12%2Bdeb13u4", "zlib1g@1:1.3.1-1")
    )
    assert needs(document, zlib) == [libc]
    assert set(needs(document, "image:app")) == {libc, zlib, "pkg:pypi/tiny@1.0"}
    found = next(c for c in document["components"] if c["name"] == "libc6")
    expression = "(BSD-3-Clause OR LicenseRef-public-domain) AND GPL-2.0-or-later AND MIT"
    assert found["licenses"] == [{"expression": expression}]
    redis = next(
        c for c in parsed(files, "sbom/redis.cdx.json")["components"] if c["name"] != "libc6"
    )
    assert redis["properties"] == [{"name": "airlift:source", "value": "redis 5:8.0.2-3"}]


def test_the_release_has_everything_and_each_package_once(files: dict[str, bytes]) -> None:
    document = parsed(files, "sbom/release.cdx.json")
    found = [c["name"] for c in document["components"]]
    assert found.count("libc6") == 1
    wheels = {"airlifttiny", "pip"}
    assert {"app", "redis", "tiny", "zlib1g", "redis-server", "docker.io", *wheels} <= set(found)
    groups = {"group:jump-host", "group:engine/debian-13", "group:ansible-collections"}
    assert set(needs(document, "release")) == {"image:app", "image:redis", *groups}
    libc = next(c["bom-ref"] for c in document["components"] if c["name"] == "libc6")
    assert libc in needs(document, "image:app")
    assert libc in needs(document, "image:redis")
    wheel = next(c for c in document["components"] if c["name"] == "airlifttiny")
    assert [h["alg"] for h in wheel["hashes"]] == ["SHA-256"]
    assert wheel["bom-ref"] in needs(document, "group:jump-host")


def test_the_collections_are_there_with_their_hash() -> None:
    found = inventory.of_collections()
    docker = next(p for p in found.packages if p.name == "community.docker")
    assert docker.purl.startswith("pkg:generic/ansible-collection/community.docker@")
    assert "GPL-3.0-or-later" in str(docker.licence)
    assert len(docker.sha256) == 64
    assert docker.depends == ("community.library_inventory_filtering_v1",)


def test_same_release_same_bytes_other_release_other_identity(
    one: Subject,
    files: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Write again without a cache: the library gives the same as the cache.
    monkeypatch.setenv("AIRLIFT_CACHE", str(tmp_path / "empty"))
    again = dataclasses.replace(one)
    assert written(tmp_path / "again", again) == files
    assert written(tmp_path / "cached", dataclasses.replace(one)) == files
    later = dataclasses.replace(one.release, serial=2, created="2026-02-01T00:00:00Z")
    other = written(tmp_path / "later", dataclasses.replace(one, release=later))
    before, after = (parsed(f, "sbom/app.cdx.json") for f in (files, other))
    assert before["serialNumber"] != after["serialNumber"]
    assert after["metadata"]["timestamp"] == "2026-02-01T00:00:00Z"
    assert before["components"] == after["components"]
    serials = {parsed(files, p)["serialNumber"] for p in files if p.startswith("sbom/")}
    assert len(serials) == 6


def test_another_layer_is_seen_although_all_is_cached(tmp_path: Path, tree: Path) -> None:
    new = DEFAULT | {"app": [*DEFAULT["app"], layer(debian("libc6 2.41-13"))]}
    files = written(tmp_path, subject(tmp_path, tree, new))
    assert names(parsed(files, "sbom/app.cdx.json")) == [("libc6", "2.41-13"), ("tiny", "1.0")]


def test_what_was_not_read_is_in_the_document(tmp_path: Path, tree: Path) -> None:
    images = {"app": [layer({"usr/lib/sysimage/rpm/rpmdb.sqlite": "x"})]}
    files = written(tmp_path, subject(tmp_path, tree, images))
    document = parsed(files, "sbom/app.cdx.json")
    notes = {p["name"]: p["value"] for p in document["metadata"]["component"]["properties"]}
    assert "rpm database is not read" in notes["airlift:not-read"]
    assert faults(json.dumps(document)) is None


def test_hashes_are_those_of_the_manifest(one: Subject, files: dict[str, bytes]) -> None:
    image = lay_out(one.layout, DEFAULT)["app"]
    root = parsed(files, "sbom/app.cdx.json")["metadata"]["component"]
    assert root["hashes"] == [
        {"alg": "SHA-256", "content": image["manifest_digest"].removeprefix("sha256:")}
    ]
    assert sbom.file_name("engine/debian-13") == "engine-debian-13"
