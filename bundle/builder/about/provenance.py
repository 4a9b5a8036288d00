"""The provenance of a release: an in-toto statement in SLSA's form, and its packages by hash.

The statement carries no signature of its own: it is a member of the bundle, and the manifest's
signature covers every member.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bundle.builder.about.inventory import ENGINE, JUMP_HOST, Contents, Package
from bundle.builder.images import lockfile
from bundle.builder.problems import Problem
from bundle.builder.release import Release
from bundle.core.files import sha256
from bundle.format import manifest

NAME = "provenance.intoto.json"
PACKAGES = "packages.json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
#: The meaning of `externalParameters`, which docs/SBOM.md describes.
BUILD_TYPE = "https://airlift.example/bundle/v1"
BUILDER = "https://airlift.example/python-m-bundle-build"

# The files that decide which packages and images a build takes.
_LOCKS = (
    "bundle/images.lock.yml",
    "bundle/release.yml",
    "bundle/systems.yml",
    "requirements/controller.txt",
    "requirements/dev.txt",
    "app/requirements.txt",
)


def write(
    folder: Path,
    *,
    tree: Path,
    release: Release,
    image_source: str,
    components: Mapping[str, dict[str, Any]],
    inventory: Mapping[str, Contents],
) -> None:
    """Write `provenance.intoto.json` and `packages.json`."""
    packages = {
        name: found for name, contents in inventory.items() if (found := _packages(contents))
    }
    _write(folder / PACKAGES, packages)
    statement = {
        "_type": STATEMENT,
        "subject": _subjects(components, inventory),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "version": release.version,
                    "serial": release.serial,
                    "imageSource": image_source,
                    "created": release.created,
                },
                "resolvedDependencies": [
                    _revision(release),
                    *_locks(tree),
                    *_pins(tree, image_source),
                    *_debian(inventory),
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER},
                "metadata": {"invocationId": f"{manifest.PRODUCT}-{release.version}"},
            },
        },
    }
    _write(folder / NAME, statement)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n", "utf-8")


def _packages(contents: Contents) -> list[dict[str, Any]]:
    """Return the Debian packages of a component; an image's database has no hash of the files."""
    return [
        {
            "package": package.name,
            "version": package.version,
            "architecture": package.architecture,
            "sha256": package.sha256 or None,
        }
        for package in contents.packages
        if package.kind == "deb"
    ]


def _subjects(
    components: Mapping[str, dict[str, Any]], inventory: Mapping[str, Contents]
) -> list[dict[str, Any]]:
    """Return what was made or chosen: images, wheels, packages; the manifest has all others."""
    found = [
        {"name": f"{c['repository']}:{c['version']}", "digest": _digest(c["manifest_digest"])}
        for _, c in sorted(components.items())
    ]
    for name, contents in sorted(inventory.items()):
        if name == JUMP_HOST:
            folder = "wheels"
        elif name.startswith(ENGINE):
            folder = f"packages/{name.removeprefix(ENGINE)}"
        else:
            continue
        files = {f"{folder}/{p.file}": p.sha256 for p in contents.packages if p.file}
        found += [{"name": path, "digest": _digest(files[path])} for path in sorted(files)]
    return found


def _revision(release: Release) -> dict[str, Any]:
    commit, _, dirty = release.revision.partition("-")
    found: dict[str, Any] = {"name": "source tree", "uri": "git+file:."}
    if commit == "unknown":
        return {**found, "annotations": {"note": "not built from a git checkout"}}
    found["digest"] = {"gitCommit": commit}
    if dirty:
        found["annotations"] = {"note": "the tree had changes that were not committed"}
    return found


def _locks(tree: Path) -> list[dict[str, Any]]:
    return [
        {"name": name, "uri": f"file:{name}", "digest": _digest(sha256(tree / name))}
        for name in _LOCKS
        if (tree / name).is_file()
    ]


def _pins(tree: Path, image_source: str) -> list[dict[str, Any]]:
    """Return the upstream images of the lock, and whether this build used them."""
    try:
        lock = lockfile.load(tree / "bundle" / "images.lock.yml")
    except (Problem, yaml.YAMLError) as error:
        # Without the path, so that the same tree in another directory gives the same bytes.
        reason = str(error).replace(f"{tree}/", "")
        return [{"name": "images.lock.yml", "annotations": {"note": f"not read: {reason}"}}]
    pins = {name: pin.upstream for name, pin in lock.images.items()}
    pins |= {f"base {name}": upstream for name, (upstream, _) in lock.bases.items()}
    used = image_source == "registry"
    return [
        {
            "name": f"pin of {name}",
            "uri": f"docker://{pin.image}:{pin.tag}",
            "digest": _digest(pin.digest),
            "annotations": {"used": used},
        }
        for name, pin in sorted(pins.items())
        if pin
    ]


def _debian(inventory: Mapping[str, Contents]) -> list[dict[str, Any]]:
    """Return every Debian package, with the components that have it."""
    users: dict[str, list[str]] = {}
    packages: dict[str, Package] = {}
    for name, contents in sorted(inventory.items()):
        for package in contents.packages:
            if package.kind == "deb":
                packages[package.purl] = package
                users.setdefault(package.purl, []).append(name)
    return [
        {
            "uri": purl,
            **({"digest": _digest(package.sha256)} if package.sha256 else {}),
            "annotations": {"in": users[purl]},
        }
        for purl, package in sorted(packages.items())
    ]


def _digest(value: str) -> dict[str, str]:
    return {"sha256": value.removeprefix("sha256:")}
