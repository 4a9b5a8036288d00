"""What changed from one release to another, as their manifests and `about/` say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]


def compare(
    old: Mapping[str, Any],
    old_about: Mapping[str, Any],
    new: Mapping[str, Any],
    new_about: Mapping[str, Any],
) -> dict[str, Any]:
    """Compare two releases: their manifests' data, and what `dossier.read_*` found of them.

    `components` and `packages` are rows with `old` and `new`, one of them None for what came or
    went; `fixed` and `found` are vulnerabilities, or None unless both releases were scanned.
    """
    fixed, found = _vulnerabilities(old_about, new_about)
    return {
        "version": old["version"],
        "serial": old["serial"],
        "components": _components(old["components"], new["components"]),
        "packages": _packages(old_about, new_about),
        "fixed": fixed,
        "found": found,
    }


def _components(old: Mapping[str, Row], new: Mapping[str, Row]) -> list[Row]:
    rows = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before and after and before["manifest_digest"] == after["manifest_digest"]:
            continue
        rows.append(
            {
                "component": name,
                "old": before and before["version"],
                "new": after and after["version"],
            }
        )
    return rows


def _packages(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Row] | None:
    if not old.get("licences") or not new.get("licences"):
        return None
    before, after = _versions(old["licences"]), _versions(new["licences"])
    return [
        {
            "component": key[0],
            "package": key[1],
            "old": before.get(key),
            "new": after.get(key),
        }
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    ]


def _versions(licences: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], set[str]] = {}
    for row in licences["packages"]:
        found.setdefault((row["component"], row["package"]), set()).add(row["version"])
    return {key: ", ".join(sorted(versions)) for key, versions in found.items()}


def _vulnerabilities(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[list[str] | None, list[str] | None]:
    reports = [about.get("vulnerabilities") or {} for about in (old, new)]
    if not all(report.get("scanned") for report in reports):
        return None, None
    before, after = ({finding["id"] for finding in r["findings"]} for r in reports)
    return sorted(before - after), sorted(after - before)
