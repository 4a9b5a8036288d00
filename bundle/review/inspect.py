"""Shows the contents of a bundle: tables for people, the manifest's facts for machines."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from bundle.core.text import facts as pairs
from bundle.core.text import size, table
from bundle.format import delta
from bundle.format.manifest import Manifest
from bundle.trust.sshsig import Verdict
from bundle.verify.checks import Opened

if TYPE_CHECKING:  # not needed to verify
    from bundle.jumphost.installed import Known

# Long lists, for which the answer has totals.
HIDDEN = ("members", "left_out", "format")


class Subject(NamedTuple):
    """The subject of an inspection: a bundle, or an imported release."""

    manifest: Manifest
    sha256: str
    #: Bytes of the bundle's file, or of all members of the release.
    size: int
    signatures: int
    verdict: Verdict | None


def of_bundle(bundle: Opened) -> Subject:
    """Return a bundle as a subject."""
    found = bundle.manifest, bundle.sha256, bundle.source.size
    return Subject(*found, len(bundle.signatures), bundle.verdict)


def of_release(release: Known) -> Subject:
    """Return an imported release as a subject, with the members that a delta omitted."""
    digest = hashlib.sha256(release.raw_manifest).hexdigest()
    size = sum(member.size for member in release.manifest.contents)
    return Subject(release.manifest, digest, size, len(release.signatures), release.verdict)


def facts(bundle: Subject) -> dict[str, Any]:
    """Return the facts for `--json`."""
    data = bundle.manifest.data
    uses = _layer_uses(data["components"])
    sizes = {
        layer["digest"]: layer["size"]
        for component in data["components"].values()
        for layer in component["layers"]
    }
    groups: Counter[str] = Counter()
    for member in bundle.manifest.members:
        groups[member.path.partition("/")[0]] += member.size
    verdict = bundle.verdict
    return {
        **{key: value for key, value in data.items() if key not in HIDDEN},
        "delta": delta.facts(bundle.manifest),
        "release_sha256": bundle.manifest.release_sha256,
        "manifest_sha256": bundle.sha256,
        "bundle_size": bundle.size,
        "bundle_bytes": bundle.size,
        "member_count": len(bundle.manifest.members),
        "sizes": dict(sorted(groups.items())),
        "layers": {
            "unique": len(sizes),
            "shared": sum(1 for count in uses.values() if count > 1),
            "bytes": sum(sizes.values()),
            "bytes_saved": sum(sizes[digest] * (count - 1) for digest, count in uses.items()),
        },
        "signers": [signer.as_dict() for signer in verdict.signers] if verdict else [],
        "signatures": bundle.signatures,
        "trusted": verdict is not None,
        "contents_hashed": False,
    }


def text(bundle: Subject, columns: int | None = None) -> str:
    """Return the text for people, for this width of a terminal."""
    data = bundle.manifest.data
    known = facts(bundle)
    stops = ", ".join(data["upgrade"]["required_stops"]) or "none"
    head = [
        ("release", f"{data['product']} {data['version']}, serial {data['serial']}"),
        *origin(data),
        ("upgrade", f"from {data['upgrade']['minimum_version']} or newer; stops: {stops}"),
        (
            "schema",
            f"{data['schema']['head']}, runs on {data['schema']['lowest_compatible']} or newer",
        ),
        ("manifest", f"sha256 {bundle.sha256}"),
        ("size", f"{size(bundle.size)} in {known['member_count']} members"),
    ]
    if bundle.manifest.bases:
        head.append(("delta", delta.describe(bundle.manifest)))
    if bundle.verdict is None:
        head.append(("SIGNED BY", "NOT CHECKED: to check, add --allowed-signers FILE"))
    else:
        head += signers(bundle.verdict)
    parts = [pairs(head, columns), _components(data["components"])]
    parts += [_shared(known)]
    if drift := [(name, c["drift"]) for name, c in data["components"].items() if c["drift"]]:
        parts.append(table(drift, ["component", "drift from the pin"]))
    if data["absent"]:
        absent = [(f"no {name}", a["reason"]) for name, a in data["absent"].items()]
        parts.append(pairs(absent, columns))
    zones = [(name, size(zone["bytes"])) for name, zone in data["zones"].items()]
    groups = [(name, size(count)) for name, count in known["sizes"].items()]
    parts.append(table(zones, ["zone", "images need"]))
    parts.append(table(groups, ["part of the bundle", "size"]))
    parts.append("Contents were not hashed: `verify` does that.")
    return "\n\n".join(parts)


def origin(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return target and date from the manifest, because a signature has no date."""
    commit, _, dirty = data["revision"].partition("-")
    revision = commit[:12] + (dirty and f"-{dirty}")
    made = f"{data['created']} from revision {revision}, as the signers state"
    return [("for", f"{data['architecture']}, images from {data['image_source']}"), ("made", made)]


def signers(verdict: Verdict) -> list[tuple[str, str]]:
    """Return who signed, with which key, and the key's dates in the list."""
    rows: list[tuple[str, str]] = []
    for signer in verdict.signers:
        rows.append(("signed by", signer.identity))
        rows.append(("  key", f"{signer.key_type} {signer.fingerprint}"))
        rows.append(("  valid", signer.valid or "always: this key has no dates in the list"))
    return rows + [("ignored", reason) for reason in verdict.ignored]


def inside(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the images in one line."""
    names = [f"{name} {component['version']}" for name, component in data["components"].items()]
    rows = [("inside", ", ".join(names) or "no images")]
    absent = ", ".join(data["absent"])
    return rows + ([("absent", f"{absent}; `inspect` has the reason")] if absent else [])


def _layer_uses(components: dict[str, Any]) -> Counter[str]:
    return Counter(
        digest
        for component in components.values()
        for digest in {layer["digest"] for layer in component["layers"]}
    )


def _components(components: dict[str, Any]) -> str:
    uses = _layer_uses(components)
    rows = []
    for name, component in components.items():
        layers = {layer["digest"]: layer["size"] for layer in component["layers"]}
        shared = {digest: n for digest, n in layers.items() if uses[digest] > 1}
        rows.append(
            (
                name,
                component["version"],
                size(sum(layers.values())),
                f"{len(shared)} of {len(layers)}",
                size(sum(layers.values()) - sum(shared.values())),
            )
        )
    return table(rows, ["component", "version", "layers", "shared", "its own"])


def _shared(known: dict[str, Any]) -> str:
    layers = known["layers"]
    return (
        f"{layers['unique']} layers of {size(layers['bytes'])}; {layers['shared']} are shared by "
        f"several images, which saves {size(layers['bytes_saved'])}"
    )
