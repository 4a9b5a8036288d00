"""Writes software bills of materials: CycloneDX 1.6, per component and for the release."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.spdx import is_supported_id
from packageurl import PackageURL

from bundle.builder import cache
from bundle.builder.about.inventory import Contents, Package
from bundle.builder.release import Release

Document = dict[str, Any]

RELEASE = "release"
#: The namespace of the serial numbers of all SBOMs.
_NAMESPACE = uuid.UUID("5a9f5b0e-2a3c-5e0e-8a53-6f1d1b8f7c11")
# Part of the cache's key.
_FORMAT = 1


def write(
    folder: Path,
    release: Release,
    components: Mapping[str, dict[str, Any]],
    inventory: Mapping[str, Contents],
) -> None:
    """Write `<component>.cdx.json` for each component, and `release.cdx.json` over all."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        name: _part(name, components.get(name), contents, release.version)
        for name, contents in sorted(inventory.items())
    }
    for name, part in parts.items():
        document = {**part, "metadata": {**part["metadata"]}}
        _finish(document, name, release, folder / f"{file_name(name)}.cdx.json")
    _finish(_whole(release, list(parts.values())), RELEASE, release, folder / "release.cdx.json")


def file_name(component: str) -> str:
    """Return the name of a component for file names."""
    return component.replace("/", "-")


def _finish(document: Document, name: str, release: Release, path: Path) -> None:
    """Give a document its identity and time, which follow from the release's, and write it."""
    identity = [release.version, release.serial, release.revision, release.created, name]
    document["serialNumber"] = uuid.uuid5(_NAMESPACE, json.dumps(identity)).urn
    document["metadata"]["timestamp"] = release.created
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    path.write_text(f"{text}\n", encoding="utf-8")


def _part(name: str, image: dict[str, Any] | None, contents: Contents, version: str) -> Document:
    """Return a component's document without its identity; cached by content."""
    packages = [asdict(package) for package in contents.packages]
    what = [_FORMAT, name, image or version, list(contents.unread), packages]
    note = cache.root() / "about" / "sbom" / f"{cache.key(what)}.json"
    known: Document | None = cache.read_json(note)
    if known is None:
        root = _image(name, image) if image else _group(name, version)
        root.properties.update(Property(name="airlift:not-read", value=t) for t in contents.unread)
        known = _render(root, contents.packages)
        cache.write_json(note, known)
    return known


def _render(root: Component, packages: Sequence[Package]) -> Document:
    bom = Bom()
    bom.metadata.component = root
    made = {package.purl: _package(package) for package in packages}
    bom.components.update(made.values())
    by_name: dict[tuple[str, str], list[Component]] = {}
    for package in packages:
        by_name.setdefault((package.kind, package.name), []).append(made[package.purl])
    for package in packages:
        needs = [c for name in package.depends for c in by_name.get((package.kind, name), ())]
        bom.register_dependency(made[package.purl], needs)
    bom.register_dependency(root, made.values())
    document: Document = json.loads(JsonV1Dot6(bom).output_as_string())
    return document


def _image(name: str, image: dict[str, Any]) -> Component:
    digest = image["manifest_digest"]
    notes = {
        "airlift:repository": image["repository"],
        "airlift:config-digest": image["config_digest"],
        "airlift:pinned": image["pinned"],
        "airlift:drift": image["drift"],
    }
    return Component(
        type=ComponentType.CONTAINER,
        name=name,
        version=image["version"],
        bom_ref=f"image:{name}",
        purl=PackageURL("oci", None, name, digest, {"tag": image["version"]}),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest.removeprefix("sha256:"))],
        properties=[Property(name=key, value=value) for key, value in notes.items() if value],
    )


def _group(name: str, version: str) -> Component:
    """Return a component that is no image: wheels, packages of the engine, collections."""
    return Component(
        type=ComponentType.PLATFORM, name=name, version=version, bom_ref=f"group:{name}"
    )


def _package(package: Package) -> Component:
    notes = []
    if (package.source, package.source_version) != (package.name, package.version):
        notes.append(("airlift:source", f"{package.source} {package.source_version}".strip()))
    notes += [("airlift:built-using", source) for source in package.static]
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)] if package.sha256 else []
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        bom_ref=package.purl,
        purl=PackageURL.from_string(package.purl),
        licenses=_licences(package.licence),
        hashes=hashes,
        properties=[Property(name=name, value=value) for name, value in notes],
    )


def _licences(stated: str | None) -> list[License]:
    if not stated:
        return []
    return [DisjunctiveLicense(id=stated) if is_supported_id(stated) else LicenseExpression(stated)]


def _whole(release: Release, parts: Sequence[Document]) -> Document:
    """Return the document of the release, with each package once."""
    root = _render(
        Component(
            type=ComponentType.APPLICATION,
            name="airlift",
            version=release.version,
            bom_ref="release",
            purl=PackageURL("generic", None, "airlift", release.version),
            properties=[
                Property(name="airlift:serial", value=str(release.serial)),
                Property(name="airlift:revision", value=release.revision),
            ],
        ),
        (),
    )
    components: dict[str, Document] = {}
    depends: dict[str, set[str]] = {"release": set()}
    for part in parts:
        head = part["metadata"]["component"]
        depends["release"].add(head["bom-ref"])
        for component in (head, *part.get("components", ())):
            components.setdefault(component["bom-ref"], component)
        for entry in part.get("dependencies", ()):
            depends.setdefault(entry["ref"], set()).update(entry.get("dependsOn", ()))
    root["components"] = [components[ref] for ref in sorted(components)]
    root["dependencies"] = [
        {"ref": ref, "dependsOn": sorted(needs)} if needs else {"ref": ref}
        for ref, needs in sorted(depends.items())
    ]
    return root
