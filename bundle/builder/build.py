"""Builds a bundle: collects, writes the manifest, signs it, writes the tar, checks the result."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from bundle.builder import (
    completeness,
    content,
    delta_bases,
    machine,
    release,
    sums,
    verifier_pyz,
)
from bundle.builder.about import documents
from bundle.builder.about.subject import Asked, Subject
from bundle.builder.collected import Collected
from bundle.builder.workspace import workspace
from bundle.core import locks
from bundle.core.events import Log
from bundle.core.files import fsync_directory, sha256, sha256_bytes
from bundle.errors import AirliftError, Kind
from bundle.format import manifest, tar
from bundle.format.manifest import Manifest
from bundle.trust import sshsig
from bundle.trust.sshsig import Trust
from bundle.verify.checks import check_members, opened


class Suppliers(Protocol):
    """The sources of images, packages and wheels."""

    def settle(self, lock: Path, source: str, log: Log) -> tuple[str, dict[str, dict[str, str]]]:
        """Return the source that `auto` means here, and the images that it cannot supply."""

    def images(self, lock: Path, source: str, version: str, layout: Path, log: Log) -> Collected:
        """Fill an OCI layout."""

    def packages(self, dest: Path, log: Log) -> dict[str, dict[str, str]]:
        """Fill a folder for each operating system; return the absent ones."""

    def wheels(self, requirements: Path, dest: Path, log: Log) -> None:
        """Fill a wheelhouse."""

    def zones(self, lock: Path) -> dict[str, tuple[str, ...]]:
        """Return the zones of each component."""


@dataclass(frozen=True)
class Options:
    """The options of a build."""

    tree: Path
    out: Path
    keys: tuple[Path, ...]
    identity: str
    version: str | None = None
    serial: int | None = None
    # Source of the images; None means the one of release.yml.
    source: str | None = None
    # Names that may be absent in addition to those of release.yml; `all` means every name.
    allow_absent: tuple[str, ...] = ()
    # Bundles and site receipts that the result, a delta, is based on.
    since: tuple[Path, ...] = ()
    # List of sites that are allowed to sign receipts.
    receipt_signers: Path | None = None
    # Published data of Debian's security tracker: a file, or a folder of such files.
    vulnerability_data: Path | None = None
    # Whether to query pip-audit's service.
    audit: bool = False
    # Whether files that are not committed may be included.
    allow_dirty: bool = False


@dataclass(frozen=True)
class Built:
    """The result of a build."""

    path: Path
    manifest: Manifest
    sha256: str
    manifest_sha256: str
    allowed_signers: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Entry:
    """A member, and the source of its bytes."""

    path: str
    source: Path | bytes
    size: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return its entry in the manifest."""
        return {"path": self.path, "size": self.size, "sha256": self.sha256}


def build(options: Options, suppliers: Suppliers, *, log: Log) -> Built:
    """Make `airlift-VERSION-amd64.tar` in the output folder: all of it or nothing.

    With bases it is a delta, `airlift-VERSION-since-BASE-amd64.tar`.
    """
    lines = _check_keys(options)
    if not options.allow_dirty:
        release.check_committed(options.tree)
    wanted = release.load(options.tree, version=options.version, serial=options.serial)
    for note in wanted.notes:
        log(f"note: {note}")
    bases = delta_bases.load(options.since, wanted, machine.architecture(), options.receipt_signers)
    for line in bases.lines:
        log(f"receipt {line}")
    lock = options.tree / "bundle" / "images.lock.yml"
    source, absent = suppliers.settle(lock, options.source or wanted.source, log)
    delta_bases.check_source(bases, source)
    asked = documents.ask(options.tree, wanted, lines, options.vulnerability_data, options.audit)
    options.out.mkdir(parents=True, exist_ok=True)
    with workspace(options.out) as work:
        files, collected = _collect(
            options, wanted, suppliers, work, source=source, absent=absent, asked=asked, log=log
        )
        log(f"hashing {len(files)} files")
        entries = _entries(options.tree, files)
        left_out = delta_bases.left_out(bases, {entry.path: entry.sha256 for entry in entries})
        for note in delta_bases.notes(bases, left_out):
            log(f"note: {note}")
        data = _manifest(wanted, collected, suppliers.zones(lock), entries, left_out)
        raw = manifest.encode(data)
        parsed = manifest.parse(raw)
        log("signing")
        signatures = [sshsig.sign(raw, key) for key in options.keys]
        newest = parsed.bases[0].version if parsed.bases else None
        name = manifest.bundle_name(parsed.version, machine.architecture(), newest)
        draft = work / name
        carried = [e for e in entries if e.path not in left_out]
        write(draft, raw, signatures, [(e.path, e.source, e.size) for e in carried])
        log("verifying the result")
        sha256 = self_check(draft, lines, work)
        # Under the lock, so that of two builds of one release the remaining file is the listed one.
        with locks.folder(options.out):
            draft.replace(options.out / name)
            fsync_directory(options.out)
            total = sums.write(options.out, name, options.keys[0])
    return Built(options.out / name, parsed, total, sha256, lines, wanted.notes)


def write(
    path: Path,
    raw: bytes,
    signatures: Sequence[bytes],
    members: Iterable[tuple[str, Path | bytes, int]],
) -> None:
    """Write the archive."""
    with path.open("xb") as out:
        writer = tar.Writer(out)
        writer.add(manifest.MANIFEST, raw)
        for number, signature in enumerate(signatures, 1):
            writer.add(manifest.signature_name(number), signature)
        for name, source, size in members:
            if isinstance(source, bytes):
                writer.add(name, source)
            else:
                writer.add_file(name, source, size)
        writer.finish()


def self_check(path: Path, lines: Sequence[str], work: Path) -> str:
    """Verify a bundle as a client does, so that no bundle is made that clients refuse."""
    signers = work / "allowed_signers"
    signers.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    required = len({line.split()[-1] for line in lines})
    with opened(path, trust=Trust(signers, required=required), home=None) as bundle:
        check_members(bundle)
        return bundle.sha256


def allowed_signers_line(key: Path, identity: str) -> str:
    """Return the line that a client's list needs for this key."""
    return f'{identity} namespaces="{sshsig.NAMESPACE}" {sshsig.public_key(key)}'


def _check_keys(options: Options) -> tuple[str, ...]:
    """Refuse a missing or locked key now, before minutes of work."""
    if not options.keys:
        raise AirliftError(
            Kind.SIGNING,
            "no signing key; a bundle is always signed",
            where="--key or AIRLIFT_SIGNING_KEY",
            fix=sshsig.MAKE_A_KEY,
        )
    if len(options.keys) > sshsig.MAX_SIGNATURES:
        raise AirliftError(
            Kind.SIGNING,
            f"more than {sshsig.MAX_SIGNATURES} keys",
            where="--key",
            fix="use fewer keys",
        )
    lines = []
    for key in options.keys:
        if not key.is_file():
            raise AirliftError(
                Kind.SIGNING,
                "the signing key does not exist",
                where=str(key),
                fix=sshsig.MAKE_A_KEY,
            )
        line = allowed_signers_line(key, options.identity)
        # A hardware key needs a touch for every signature, so it is not tested.
        if not line.split()[2].startswith("sk-"):
            sshsig.sign(b"", key, namespace="airlift-try")
        lines.append(line)
    return tuple(lines)


def _collect(
    options: Options,
    wanted: release.Release,
    suppliers: Suppliers,
    work: Path,
    *,
    source: str,
    absent: dict[str, dict[str, str]],
    asked: Asked,
    log: Log,
) -> tuple[dict[str, Path], Collected]:
    tree = options.tree
    files = content.collect(tree)
    log("collecting packages of the container engine")
    absent = {**absent, **suppliers.packages(work / "packages", log)}
    # Before the slow steps.
    completeness.check_absent(absent, {*wanted.allow_absent, *options.allow_absent})
    log("collecting wheels for the jump host")
    suppliers.wheels(tree / "requirements" / "controller.txt", work / "wheels", log)
    log(f"collecting images (source: {source})")
    layout = work / "layout"
    lock = tree / "bundle" / "images.lock.yml"
    collected = suppliers.images(lock, source, wanted.version, layout, log)
    files |= _folder(work / "wheels", "wheels")
    files |= _folder(work / "packages", "packages")
    subject = Subject(
        tree=tree,
        release=wanted,
        architecture=machine.architecture(),
        image_source=collected.image_source,
        components=collected.components,
        absent=absent,
        layout=layout,
        wheels=work / "wheels",
        packages=work / "packages",
        asked=asked,
    )
    log("writing bills of materials, licences, vulnerabilities, provenance")
    files |= documents.write(subject, work / "about")
    for name in ("oci-layout", "index.json"):
        files[f"oci/{name}"] = layout / name
    for digest in sorted(_needed_blobs(collected.components)):
        files[f"blobs/sha256/{digest}"] = layout / "blobs" / "sha256" / digest
    for member, file in files.items():
        if not file.is_file():
            raise AirliftError(
                Kind.BUILD_INPUT,
                f"{member} was not made",
                where=str(file),
                fix="delete the cache (~/.cache/airlift) and build again",
            )
    completeness.check(tree, files, collected.components, absent)
    return files, replace(collected, absent=absent)


def _folder(folder: Path, prefix: str) -> dict[str, Path]:
    found = {
        f"{prefix}/{path.relative_to(folder).as_posix()}": path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if not found:
        raise AirliftError(
            Kind.BUILD_INPUT,
            f"no {prefix.partition('/')[0]} were collected",
            where=str(folder),
            fix="delete the cache (~/.cache/airlift) and build again",
        )
    return found


def _needed_blobs(components: dict[str, dict[str, Any]]) -> set[str]:
    digests: set[str] = set()
    for component in components.values():
        digests |= {component["manifest_digest"], component["config_digest"]}
        digests |= {layer["digest"] for layer in component["layers"]}
    return {digest.removeprefix("sha256:") for digest in digests}


def _entries(tree: Path, files: dict[str, Path]) -> list[_Entry]:
    """Hash all members on all cores; return them in a fixed order, verify.pyz first."""
    verifier = verifier_pyz.make(tree / "bundle")
    paths = sorted(files, key=manifest.order)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        digests = list(pool.map(lambda path: sha256(files[path]), paths))
    entries = [_Entry(manifest.VERIFIER, verifier, len(verifier), sha256_bytes(verifier))]
    entries += [
        _Entry(path, files[path], files[path].stat().st_size, digest)
        for path, digest in zip(paths, digests, strict=True)
    ]
    return entries


def _manifest(
    wanted: release.Release,
    collected: Collected,
    zones_of: dict[str, tuple[str, ...]],
    entries: Sequence[_Entry],
    left_out: Mapping[str, delta_bases.Base],
) -> dict[str, Any]:
    used = {base.version: base for base in left_out.values()}
    return {
        **described(wanted, collected, zones_of),
        "bases": [base.as_dict() for base in delta_bases.newest_first(used.values())],
        "left_out": [
            {**entry.as_dict(), "base": left_out[entry.path].version}
            for entry in entries
            if entry.path in left_out
        ],
        "members": [entry.as_dict() for entry in entries if entry.path not in left_out],
    }


def described(
    wanted: release.Release, collected: Collected, zones_of: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Return what a manifest says of a release, besides its members: what playbooks read."""
    return {
        "format": manifest.FORMAT,
        "product": manifest.PRODUCT,
        "version": wanted.version,
        "serial": wanted.serial,
        "created": wanted.created,
        "architecture": machine.architecture(),
        "revision": wanted.revision,
        "upgrade": wanted.upgrade,
        "schema": wanted.schema,
        "image_source": collected.image_source,
        "components": collected.components,
        "absent": collected.absent,
        "zones": zones(collected.components, zones_of),
    }


def zones(
    components: dict[str, dict[str, Any]], zones_of: Mapping[str, tuple[str, ...]]
) -> dict[str, dict[str, int]]:
    """Return the disk space of each zone's images, with each shared layer once.

    It counts unpacked layers and compressed ones, because the containerd store keeps both. The
    unpacked size of a single layer is unknown, so it is estimated by the ratio of its image.
    """
    needed: dict[str, dict[str, int]] = {}
    for name, component in components.items():
        packed = sum(layer["size"] for layer in component["layers"]) or 1
        for zone in zones_of.get(name, ()):
            layers = needed.setdefault(zone, {})
            for layer in component["layers"]:
                unpacked = layer["size"] * component["unpacked_size"] // packed
                size = layer["size"] + unpacked
                layers[layer["digest"]] = max(layers.get(layer["digest"], 0), size)
    return {zone: {"bytes": sum(layers.values())} for zone, layers in sorted(needed.items())}
