"""Known vulnerabilities of the Python packages, by `pip-audit`, where its service answers.

It never makes a build fail or wait for long; what was not looked up is said to be so.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle import cache

_CONNECT_SECONDS = 5
_WHOLE_SECONDS = 120
_FORMAT = 1


@dataclass(frozen=True)
class Audit:
    """What came out, or why nothing did."""

    findings: tuple[dict[str, Any], ...] = ()
    # Packages that were looked up, and those that the service did not know.
    audited: int = 0
    unknown: tuple[str, ...] = ()
    reason: str | None = None
    scanner: str | None = None


def run(locks: Mapping[str, str], identity: list[Any]) -> Audit:
    """Look up every requirement of the locks, by component.

    The answer is kept for the release's identity: its full bundle and its deltas must say the same,
    and the service may know more tomorrow.
    """
    note = note_of(locks, identity)
    known = cache.read_json(note)
    if known is None:
        known = _ask(locks)
        cache.write_json(note, known)
    return Audit(
        findings=tuple(known.get("findings", ())),
        audited=known.get("audited", 0),
        unknown=tuple(known.get("unknown", ())),
        reason=known.get("reason"),
        scanner=known.get("scanner"),
    )


def note_of(locks: Mapping[str, str], identity: list[Any]) -> Path:
    """Where the answer for a release is kept; without this file the service is asked again."""
    what = cache.key([_FORMAT, sorted(locks.items()), identity])
    return cache.root() / "about" / "audits" / f"{what}.json"


def _ask(locks: Mapping[str, str]) -> dict[str, Any]:
    findings: list[dict[str, Any]] = []
    unknown: set[str] = set()
    audited = 0
    for component, lock in sorted(locks.items()):
        said = _call(lock)
        if isinstance(said, str):
            return {"reason": said}
        for one in said:
            if "skip_reason" in one:
                unknown.add(one["name"])
                continue
            audited += 1
            findings += [_finding(component, one, vulnerability) for vulnerability in one["vulns"]]
    if not audited:
        # pip-audit itself calls this "No known vulnerabilities found".
        return {"reason": "pip-audit's service knows none of the packages"}
    return {
        "findings": sorted(findings, key=lambda f: (f["id"], f["component"], f["package"])),
        "audited": audited,
        "unknown": sorted(unknown),
        "scanner": _version(),
    }


def _finding(component: str, package: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    fixed = known.get("fix_versions") or []
    return {
        "id": next((a for a in known.get("aliases", ()) if a.startswith("CVE-")), known["id"]),
        "component": component,
        "package": package["name"],
        "version": package["version"],
        "severity": None,
        "fixed_in": ", ".join(fixed) or None,
    }


def _call(lock: str) -> list[dict[str, Any]] | str:
    """Return what pip-audit says of each requirement, or in words why it said nothing."""
    with tempfile.TemporaryDirectory(prefix="airlift-audit-") as folder:
        file = Path(folder, "requirements.txt")
        file.write_text(lock, encoding="utf-8")
        command = [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(file)),
            # The lock is complete: nothing is resolved, downloaded or installed.
            *("--require-hashes", "--disable-pip", "--format", "json"),
            *("--progress-spinner", "off", "--timeout", str(_CONNECT_SECONDS)),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_WHOLE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return f"pip-audit's service did not answer within {_WHOLE_SECONDS} s"
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return f"pip-audit failed: {lines[-1].strip()[:200] if lines else 'no message'}"
    return found


def _version() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--version"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
