"""Shows what a bundle holds: a table for people, the manifest's facts for machines."""

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

if TYPE_CHECKING:  # a verification does without it
    from bundle.jumphost.installed import Known

# Long lists, of which the answer has the sums.
HIDDEN = ("members", "left_out", "format")


class Subject(NamedTuple):
    """What is looked at: a bundle, or an imported release."""

    manifest: Manifest
    sha256: str
    #: Bytes of the bundle's file, or of all that the release is made of.
    size: int
    signatures: int
    verdict: Verdict | None


def of_bundle(bundle: Opened) -> Subject:
    """Return a bundle as a subject."""
    found = bundle.manifest, bundle.sha256, bundle.source.size
    return Subject(*found, len(bundle.signatures), bundle.verdict)


def of_release(release: Known) -> Subject:
    """Return an imported release as a subject; a delta's counts with what it left out."""
    digest = hashlib.sha256(release.raw_manifest).hexdigest()
    size = sum(member.size for member in release.manifest.contents)
    return Subject(release.manifest, digest, size, len(release.signatures), release.verdict)


def facts(bundle: Subject) -> dict[str, Any]:
    """What `--json` prints."""
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
    """What a person reads, on so many columns."""
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
        head.append(("SIGNED BY", "NOT CHECKED: name the signers with --allowed-signers"))
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
    """What it is for, and when it was made: by the manifest, for a signature has no time."""
    commit, _, dirty = data["revision"].partition("-")
    revision = commit[:12] + (dirty and f"-{dirty}")
    made = f"{data['created']} from revision {revision}, as the signers say"
    return [("for", f"{data['architecture']}, images from {data['image_source']}"), ("made", made)]


def signers(verdict: Verdict) -> list[tuple[str, str]]:
    """Who signed, with which key, and for how long the list gives him this key."""
    rows: list[tuple[str, str]] = []
    for signer in verdict.signers:
        rows.append(("signed by", signer.identity))
        rows.append(("  key", f"{signer.key_type} {signer.fingerprint}"))
        rows.append(("  valid", signer.valid or "always: the list gives this key no dates"))
    return rows + [("not counted", reason) for reason in verdict.ignored]


def inside(data: dict[str, Any]) -> list[tuple[str, str]]:
    """The images in one line."""
    names = [f"{name} {component['version']}" for name, component in data["components"].items()]
    rows = [("inside", ", ".join(names) or "no images")]
    absent = ", ".join(data["absent"])
    return rows + ([("absent", f"{absent}; `inspect` says why")] if absent else [])


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
