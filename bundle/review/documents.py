"""Compares the documents below `about/`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

_OF_FINDING: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "component", "package", "version"), (str,)),
    "severity": (str, type(None)),
}
# The aspects of a setting whose change matters to an operator.
_ASPECTS = ("default", "type", "elements", "choices", "options", "required")


@dataclass(frozen=True)
class Document:
    """The path of a document, and the function that compares two of them."""

    path: str
    compare: Callable[[Any, Any], dict[str, Any]]


def _need(entries: Iterable[Any], **kinds: tuple[type, ...]) -> None:
    """Refuse entries without the needed keys, because the document may be unsigned.

    Raises:
        KeyError, TypeError: an entry has another form.
    """
    for entry in entries:
        for key, kind in kinds.items():
            if not isinstance(entry[key], kind):
                message = f"{key} is of another type"
                raise TypeError(message)


def migrations(old: Any, new: Any) -> dict[str, Any]:
    """Return added migrations, and removed ones (which must not happen)."""
    for one in (old, new):
        _need(one["migrations"], revision=(str,), title=(str,))
    before, after = ({m["revision"]: m for m in one["migrations"]} for one in (old, new))
    return {
        "added": [m for revision, m in after.items() if revision not in before],
        "removed": [m for revision, m in before.items() if revision not in after],
    }


def settings(old: Any, new: Any) -> dict[str, Any]:
    """Return added, removed and renamed settings, and changes of default, type or choices."""
    before, after = old["settings"], new["settings"]
    for one in (before, after):
        _need(one.values(), description=(str,), required=(bool,))
    renamed = {
        was: now
        for was, now in new["renamed"].items()
        if was in before and was not in after and now in after and now not in before
    }
    pairs = {name: name for name in sorted(before.keys() & after.keys())} | renamed
    changed = {}
    for was, now in pairs.items():
        found = {
            # No default differs from the default `null`.
            aspect: {
                side: one[aspect]
                for side, one in (("from", before[was]), ("to", after[now]))
                if aspect in one
            }
            for aspect in _ASPECTS
            if (aspect in before[was], before[was].get(aspect))
            != (aspect in after[now], after[now].get(aspect))
        }
        if found:
            changed[now] = found
    return {
        "added": {
            name: after[name]
            for name in sorted(after.keys() - before.keys() - set(renamed.values()))
        },
        "removed": sorted(before.keys() - after.keys() - renamed.keys()),
        "renamed": renamed,
        "changed": changed,
    }


def sbom(old: Any, new: Any) -> dict[str, Any]:
    """Return the changes of packages, by their purl without the version (CycloneDX 1.6)."""
    before, after = (_packages(one["components"]) for one in (old, new))
    return {
        "packages": {"from": len(before), "to": len(after)},
        "added": {purl: after[purl] for purl in sorted(after.keys() - before.keys())},
        "removed": {purl: before[purl] for purl in sorted(before.keys() - after.keys())},
        "changed": {
            purl: {"from": before[purl], "to": after[purl]}
            for purl in sorted(before.keys() & after.keys())
            if before[purl] != after[purl]
        },
    }


def vulnerabilities(old: Any, new: Any) -> dict[str, Any]:
    """Return fixed and new findings; `unknown` if one of the two was not scanned."""
    for name, one in (("A", old), ("B", new)):
        if not one["scanned"]:
            return {"unknown": f"{name} was not scanned: {one['reason'] or 'no reason is given'}"}
    for one in (old, new):
        _need(one["findings"], **_OF_FINDING)
    before, after = ({_finding(f): f for f in one["findings"]} for one in (old, new))
    return {
        "scanner": {"from": old["scanner"], "to": new["scanner"]},
        "fixed": [before[key] for key in sorted(before.keys() - after.keys())],
        "new": [after[key] for key in sorted(after.keys() - before.keys())],
        "open": len(after),
    }


DOCUMENTS = {
    "migrations": Document("about/migrations.json", migrations),
    "settings": Document("about/settings.json", settings),
    "sbom": Document("about/sbom/release.cdx.json", sbom),
    "vulnerabilities": Document("about/vulnerabilities.json", vulnerabilities),
}
PATHS = frozenset(document.path for document in DOCUMENTS.values())


def _packages(components: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Map each purl, without version and qualifiers, to its versions in all images."""
    found: dict[str, set[str]] = {}
    for component in components:
        if purl := component.get("purl"):
            name, _, version = purl.partition("?")[0].partition("#")[0].rpartition("@")
            found.setdefault(name or version, set()).add(version if name else "")
    return {name: sorted(versions) for name, versions in found.items()}


def _finding(finding: dict[str, Any]) -> tuple[str, str, str]:
    """Return the identity of a finding, without the version, which may change without a fix."""
    return finding["id"], finding["component"], finding["package"]
