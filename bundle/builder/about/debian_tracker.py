"""Debian's security tracker: its published JSON, matched with the packages of a release.

The input is what the tracker publishes as one file:

    {SOURCE: {CVE: {"releases": {"trixie": {"status": "open" | "resolved" | "undetermined",
                                            "fixed_version": "1.2-3", "urgency": "low"}}}}}

`fixed_version` "0" says that the release was never affected.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from debian.debian_support import Version

from bundle.builder.about.inventory import Contents, Package
from bundle.errors import AirliftError, Kind

_STATUS = ("open", "resolved", "undetermined")


@dataclass(frozen=True)
class Tracker:
    """The files that were given, as one table."""

    entries: Mapping[str, Mapping[str, Any]]
    # The files' names and hashes, to identify the data.
    database: str
    releases: frozenset[str]


def load(path: Path) -> Tracker:
    """Read a tracker file, or every `*.json` of a folder; refuse any other form."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    entries: dict[str, dict[str, Any]] = {}
    names = []
    releases: set[str] = set()
    for file in files:
        try:
            raw = file.read_bytes()
            found = json.loads(raw)
            releases |= set(_releases(found))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _refusal(f"it cannot be read: {error}", file) from error
        for source, issues in found.items():
            entries.setdefault(source, {}).update(issues)
        names.append(f"{file.name} sha256:{hashlib.sha256(raw).hexdigest()[:16]}")
    if not entries:
        raise _refusal("it lists no package", path)
    return Tracker(entries, f"Debian security tracker ({', '.join(names)})", frozenset(releases))


def match(tracker: Tracker, inventory: Mapping[str, Contents]) -> list[dict[str, Any]]:
    """Return issues that are open, or fixed in a later version, in the form of `findings`."""
    found = {}
    for component, contents in inventory.items():
        for package in contents.packages:
            if package.kind != "deb":
                continue
            for name, source, version in _sources(package):
                for finding in _of_source(tracker, source, version, package.distro):
                    known = {"component": component, "package": name, "version": version}
                    found[(finding["id"], component, name, version)] = {**finding, **known}
    return [found[key] for key in sorted(found)]


def _sources(package: Package) -> Iterator[tuple[str, str, str]]:
    """Yield (package, source, version) of the package's own source and of linked ones."""
    yield package.name, package.source, package.source_version
    for static in package.static:
        source, _, version = static.partition(" ")
        yield source, source, version


def _of_source(
    tracker: Tracker, source: str, version: str, distro: str
) -> Iterator[dict[str, Any]]:
    for issue, known in tracker.entries.get(source, {}).items():
        state = known["releases"].get(distro)
        if state is None:
            continue
        fixed = state.get("fixed_version")
        if state["status"] == "resolved" and (not fixed or Version(version) >= Version(fixed)):
            continue
        severity = state.get("urgency") or "not yet assigned"
        if state["status"] == "undetermined":
            severity = "undetermined"
        later = fixed if state["status"] == "resolved" else None
        yield {"id": issue, "severity": severity, "fixed_in": later}


def _releases(found: dict[str, Any]) -> Iterator[str]:
    """Check every entry once, so that a file of another form is refused before work begins."""
    for source, issues in found.items():
        for issue, known in issues.items():
            for name, state in known["releases"].items():
                if state["status"] not in _STATUS:
                    place = " ".join(map(repr, (source, issue, name)))
                    message = f"{place}: unknown status {state['status']!r}"
                    raise ValueError(message)
                version = state.get("fixed_version") or "0"
                # Very long numbers cannot be compared; comparing with itself reads all of it.
                _ = Version(version) >= Version(version)
                yield name


def _refusal(what: str, path: Path) -> AirliftError:
    return AirliftError(
        Kind.BUILD_INPUT,
        f"the vulnerability data cannot be used: {what}",
        where=f"--vulnerability-data {path}",
        fix="give the JSON file that Debian's security tracker publishes, or a folder with it; "
        "docs/SBOM.md shows its shape",
    )
