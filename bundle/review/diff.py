"""Compares two releases, and computes the bytes to carry for the newer one.

It writes nothing. Like `inspect`, it reads bundles whose signature was not checked, and reports
that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.core.files import read_file
from bundle.errors import COPY_AGAIN, AirliftError, Kind
from bundle.format import manifest, tar, versions
from bundle.format.manifest import Manifest, Member
from bundle.jumphost import installed
from bundle.jumphost.store import Home
from bundle.review.documents import DOCUMENTS, PATHS
from bundle.trust.sshsig import Trust, Verdict
from bundle.verify.checks import Opened, opened

MAX_DOCUMENT = 64 << 20


@dataclass(frozen=True)
class Side:
    """One of the two: a bundle, full or delta, or the directory of an imported release."""

    path: Path
    manifest: Manifest
    verdict: Verdict | None
    signatures: tuple[bytes, ...]
    # The available members below about/, by path.
    documents: Mapping[str, bytes] = field(repr=False)

    @property
    def digests(self) -> dict[str, str]:
        """Return path: SHA-256 of all members of the release."""
        return {member.path: member.sha256 for member in self.manifest.contents}


def load(path: Path, *, trust: Trust | None, home: Home) -> Side:
    """Read a side; compare its documents with the manifest's hashes."""
    if path.is_dir():
        known = installed.known(path, trust=trust, home=home)
        documents = _from_folder(path, known.manifest)
        return Side(path, known.manifest, known.verdict, known.signatures, documents)
    with opened(path, trust=trust, home=None) as bundle:
        documents = _from_bundle(bundle)
        return Side(path, bundle.manifest, bundle.verdict, bundle.signatures, documents)


def compare(a: Side, b: Side) -> dict[str, Any]:
    """Return all differences in the form of `--json`; `from` is A and `to` is B."""
    return {
        "from": _release(a),
        "to": _release(b),
        "same_release": a.manifest.release_sha256 == b.manifest.release_sha256,
        "image_source": {
            "from": a.manifest.data["image_source"],
            "to": b.manifest.data["image_source"],
        },
        "carry": _carry(a, b),
        "components": _components(a, b),
        "schema": _schema(a.manifest, b.manifest),
        "upgrade": _upgrade(a.manifest, b.manifest),
        "wheels": _versions(a, b, "wheels/", _wheel),
        "packages": _versions(a, b, "packages/", _package),
        "content": _content(a, b),
        **{name: _about(a, b, name) for name in DOCUMENTS},
    }


def _from_bundle(bundle: Opened) -> dict[str, bytes]:
    found = {}
    for member, offset in zip(bundle.manifest.members, bundle.offsets, strict=True):
        if member.path in PATHS:
            raw = bundle.source.read(offset, _limited(member, bundle.source.path))
            if hashlib.sha256(raw).hexdigest() != member.sha256:
                raise AirliftError(
                    Kind.ALTERED,
                    f"{member.path} was altered: its SHA-256 is not the manifest's",
                    where=str(bundle.source.path),
                    fix=COPY_AGAIN,
                )
            found[member.path] = raw
    return found


def _from_folder(folder: Path, parsed: Manifest) -> dict[str, bytes]:
    members = [m for m in parsed.contents if m.path in PATHS]
    installed.compare([(folder / m.path, m) for m in members], progress=None)
    return {m.path: read_file(folder / m.path, _limited(m, folder)) for m in members}


def _limited(member: Member, where: Path) -> int:
    if member.size > MAX_DOCUMENT:
        raise AirliftError(
            Kind.MANIFEST,
            f"{member.path} has {member.size} bytes, more than the {MAX_DOCUMENT} that are read",
            where=str(where),
            fix="ask the vendor for a bundle that was made by `python -m bundle build`",
        )
    return member.size


def _release(side: Side) -> dict[str, Any]:
    data = side.manifest.data
    return {
        "path": str(side.path),
        "version": side.manifest.version,
        "serial": side.manifest.serial,
        "release_sha256": side.manifest.release_sha256,
        "created": data["created"],
        "revision": data["revision"],
        "trusted": side.verdict is not None,
        "signers": [s.as_dict() for s in side.verdict.signers] if side.verdict else [],
    }


def _carry(a: Side, b: Side) -> dict[str, Any]:
    """Return the length of B's bundle, in full and as a delta based on A, if there is one."""
    data = {**b.manifest.data, "bases": [], "left_out": []}
    there = a.digests
    contents = b.manifest.contents
    known = [
        m for m in contents if manifest.may_be_left_out(m.path) and there.get(m.path) == m.sha256
    ]
    base = {key: _release(a)[key] for key in ("version", "serial", "release_sha256")}
    delta = {
        **data,
        "bases": [base],
        "left_out": [{**_row(m), "base": a.manifest.version} for m in known],
    }
    older = a.manifest.serial < b.manifest.serial
    same_source = a.manifest.data["image_source"] == data["image_source"]
    left_out = {m.path for m in known}
    rest = tuple(m for m in contents if m.path not in left_out)
    return {
        "full_bytes": _length(data, contents, b.signatures),
        "delta_bytes": _length(delta, rest, b.signatures)
        if known and older and same_source
        else None,
    }


def _length(
    data: dict[str, Any], members: tuple[Member, ...], signatures: tuple[bytes, ...]
) -> int:
    raw = manifest.encode({**data, "members": [_row(m) for m in members]})
    sizes = [(manifest.MANIFEST, len(raw)), *((manifest.SIGNATURE, len(s)) for s in signatures)]
    return tar.total_size([*sizes, *((m.path, m.size) for m in members)])


def _row(member: Member) -> dict[str, Any]:
    return {"path": member.path, "size": member.size, "sha256": member.sha256}


def _components(a: Side, b: Side) -> dict[str, Any]:
    old, new = a.manifest.components, b.manifest.components
    blobs = {m.sha256 for m in a.manifest.contents if m.is_blob}

    def layers(component: dict[str, Any]) -> dict[str, Any]:
        found = {layer["digest"]: layer["size"] for layer in component["layers"]}
        fresh = {d: n for d, n in found.items() if d.removeprefix("sha256:") not in blobs}
        return {"layers": len(found), "new_layers": len(fresh), "new_bytes": sum(fresh.values())}

    return {
        "added": {
            name: {"version": new[name]["version"], **layers(new[name])}
            for name in sorted(new.keys() - old.keys())
        },
        "removed": {name: old[name]["version"] for name in sorted(old.keys() - new.keys())},
        "changed": {
            name: {"from": old[name]["version"], "to": new[name]["version"], **layers(new[name])}
            for name in sorted(new.keys() & old.keys())
            if new[name]["manifest_digest"] != old[name]["manifest_digest"]
        },
        "absent": {name: entry["reason"] for name, entry in b.manifest.data["absent"].items()},
        "drift": {name: c["drift"] for name, c in new.items() if c["drift"]},
    }


def _schema(a: Manifest, b: Manifest) -> dict[str, Any]:
    old, new = a.data["schema"], b.data["schema"]
    return {
        "from": old,
        "to": new,
        # The swap and the rollback depend on this.
        "old_release_runs_on_it": new["lowest_compatible"] <= old["head"] <= new["head"],
    }


def _upgrade(a: Manifest, b: Manifest) -> dict[str, Any]:
    """Return whether A can upgrade to B directly; the plan of `upgrade.yml` decides later."""
    old, new = (versions.order(m.version) for m in (a, b))
    rules = b.data["upgrade"]
    stops = [v for v in rules["required_stops"] if old < versions.order(v) < new]
    return {
        "minimum_version": rules["minimum_version"],
        "required_stops": rules["required_stops"],
        "too_old": old < versions.order(rules["minimum_version"]),
        "stops_between": stops,
        "backwards": a.serial > b.serial,
    }


def _wheel(path: str) -> tuple[str, str]:
    name, version = path.rpartition("/")[2].split("-")[:2]
    return name.lower().replace("_", "-"), version


def _package(path: str) -> tuple[str, str]:
    if path.endswith(".rpm"):
        name, version, release = path.removeprefix("packages/").rsplit("-", 2)
        return name, f"{version}-{release.removesuffix('.rpm').rpartition('.')[0]}"
    name, version = path.removeprefix("packages/").split("_")[:2]
    return name, version.replace("%3a", ":")


def _versions(a: Side, b: Side, top: str, split: Any) -> dict[str, Any]:
    """Return added, removed and changed names; `rebuilt` ones have equal versions, other bytes."""

    def read(side: Side) -> dict[str, tuple[list[str], list[str]]]:
        found: dict[str, tuple[list[str], list[str]]] = {}
        for path, digest in sorted(side.digests.items()):
            if path.startswith(top) and path.endswith((".whl", ".deb", ".rpm")):
                name, version = split(path)
                versions, digests = found.setdefault(name, ([], []))
                digests.append(digest)
                if version not in versions:
                    versions.append(version)
        return found

    old, new = read(a), read(b)
    both = sorted(old.keys() & new.keys())
    return {
        "added": {name: new[name][0] for name in sorted(new.keys() - old.keys())},
        "removed": {name: old[name][0] for name in sorted(old.keys() - new.keys())},
        "changed": {
            name: {"from": old[name][0], "to": new[name][0]}
            for name in both
            if old[name][0] != new[name][0]
        },
        "rebuilt": [
            name for name in both if old[name][0] == new[name][0] and old[name] != new[name]
        ],
    }


def _content(a: Side, b: Side) -> dict[str, list[str]]:
    def files(side: Side) -> dict[str, str]:
        prefix = "content/"
        return {
            path.removeprefix(prefix): digest
            for path, digest in side.digests.items()
            if path.startswith(prefix)
        }

    old, new = files(a), files(b)
    return {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(path for path in new.keys() & old.keys() if new[path] != old[path]),
    }


def _about(a: Side, b: Side, name: str) -> dict[str, Any]:
    """Compare a document of both; if that is impossible, `unknown` has the reason."""
    document = DOCUMENTS[name]
    path = document.path
    for side in (a, b):
        if path not in side.digests:
            return {"unknown": f"release {side.manifest.version} does not have {path}"}
    if a.digests[path] == b.digests[path]:
        # It is enough that one of them carries it.
        raw = a.documents.get(path) or b.documents.get(path)
        old = new = raw
    else:
        old, new = a.documents.get(path), b.documents.get(path)
    for side, raw in ((a, old), (b, new)):
        if raw is None:
            return {
                "unknown": f"{side.path.name} is a delta that omits {path}: "
                "name the full bundle or the directory of the release"
            }
    try:
        return document.compare(_json(old), _json(new))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return {"unknown": f"{path} has an unknown form: {error}"}


def _json(raw: bytes | None) -> Any:
    return json.loads(raw or b"")
