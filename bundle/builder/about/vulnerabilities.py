"""Reports the known vulnerabilities of a release, or why it was not scanned."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.builder.about import debian_tracker
from bundle.builder.about.debian_tracker import Tracker
from bundle.builder.about.inventory import Contents
from bundle.builder.about.pip_audit import Audit

NAME = "vulnerabilities.json"
NO_TRACKER = (
    "operating system packages were not scanned: no Debian security tracker data was given "
    "(--vulnerability-data)"
)


def write(
    folder: Path, inventory: Mapping[str, Contents], tracker: Tracker | None, audit: Audit
) -> None:
    """Write `vulnerabilities.json`."""
    report = assess(inventory, tracker, audit)
    text = json.dumps(report, sort_keys=True, indent=1)
    (folder / NAME).write_text(f"{text}\n", encoding="utf-8")


def assess(
    inventory: Mapping[str, Contents], tracker: Tracker | None, audit: Audit
) -> dict[str, Any]:
    """Return the report: `scanned` if a scanner worked, `reason` for what was not scanned."""
    scanners, databases, reasons = [], [], []
    findings: list[dict[str, Any]] = []
    if tracker is None:
        reasons.append(NO_TRACKER)
    else:
        version = importlib.metadata.version("python-debian")
        scanners.append(f"airlift with python-debian {version}")
        databases.append(tracker.database)
        findings += debian_tracker.match(tracker, inventory)
        reasons += _not_covered(tracker, inventory)
    if audit.reason:
        reasons.append(f"Python packages were not scanned: {audit.reason}")
    else:
        scanners.append(audit.scanner or "pip-audit")
        databases.append(f"pip-audit's service, queried for {audit.audited} packages")
        findings += audit.findings
        if audit.unknown:
            reasons.append(f"Python packages unknown to the service: {', '.join(audit.unknown)}")
    order = ("id", "component", "package", "version")
    return {
        "scanned": bool(scanners),
        "reason": "; ".join(reasons) or None,
        "scanner": "; ".join(scanners) or None,
        "database": "; ".join(databases) or None,
        "findings": sorted(findings, key=lambda f: tuple(str(f[key]) for key in order)),
    }


def _not_covered(tracker: Tracker, inventory: Mapping[str, Contents]) -> list[str]:
    """Return what the tracker does not cover: other distributions, and releases not listed."""
    found = []
    releases = {
        (package.vendor, package.distro)
        for contents in inventory.values()
        for package in contents.packages
        if package.kind in ("deb", "apk", "rpm")
    }
    for vendor, distro in sorted(releases):
        if vendor != "debian" or distro not in tracker.releases:
            found.append(f"{vendor} {distro} was not scanned: it is not in the tracker's data")
    unread = [name for name, contents in inventory.items() if contents.unread]
    if unread:
        found.append(f"not all packages of {', '.join(sorted(unread))} are known")
    return found
