"""The documents below `about/`, compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

_OF_FINDING: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "component", "package", "version"), (str,)),
    "severity": (str, type(None)),
}
# Of a setting, what an operator has to know of when it changes.
_ASPECTS = ("default", "type", "elements", "choices", "options", "required")


@dataclass(frozen=True)
class Document:
    """Where it is, and how two of it are compared."""

    path: str
    compare: Callable[[Any, Any], dict[str, Any]]


def _need(entries: Iterable[Any], **kinds: tuple[type, ...]) -> None:
    """Refuse entries that lack what is told of them: nobody may have signed for the document.

    Raises:
        KeyError, TypeError: one of them has another form.
    """
    for entry in entries:
        for key, kind in kinds.items():
            if not isinstance(entry[key], kind):
                message = f"{key} is of another type"
                raise TypeError(message)


def migrations(old: Any, new: Any) -> dict[str, Any]:
    """Return the migrations that came, and those that are gone (which must not happen)."""
    for one in (old, new):
        _need(one["migrations"], revision=(str,), title=(str,))
    before, after = ({m["revision"]: m for m in one["migrations"]} for one in (old, new))
    return {
        "added": [m for revision, m in after.items() if revision not in before],
        "removed": [m for revision, m in before.items() if revision not in after],
    }


def settings(old: Any, new: Any) -> dict[str, Any]:
    """Return what came, went, has another name, or another default, type or choice."""
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
            # No default and the default `null` are not the same.
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
    """Return packages by their purl without the version (CycloneDX 1.6)."""
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
    """Return findings that are gone and that are new; nothing if one of them was not scanned."""
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
    """Purl without version and qualifiers: versions. Several images may have several."""
    found: dict[str, set[str]] = {}
    for component in components:
        if purl := component.get("purl"):
            name, _, version = purl.partition("?")[0].partition("#")[0].rpartition("@")
            found.setdefault(name or version, set()).add(version if name else "")
    return {name: sorted(versions) for name, versions in found.items()}


def _finding(finding: dict[str, Any]) -> tuple[str, str, str]:
    """What makes it the same finding; the version may have moved without a repair."""
    return finding["id"], finding["component"], finding["package"]
