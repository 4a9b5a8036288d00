"""Known vulnerabilities of the Python packages, by `pip-audit`, if its service answers.

It never makes a build fail or wait for long. Packages that were not looked up are reported.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.builder import cache
from bundle.builder.about.python_packages import normal

_CONNECT_SECONDS = 5
_WHOLE_SECONDS = 120
_FORMAT = 1
_REQUIREMENT = re.compile(
    r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)[^\n\\]*(?:\\\n[^\n\\]*)*", re.MULTILINE
)


@dataclass(frozen=True)
class Audit:
    """The result, or the reason why there is none."""

    findings: tuple[dict[str, Any], ...] = ()
    # Packages that were looked up, and those that the service did not know.
    audited: int = 0
    unknown: tuple[str, ...] = ()
    reason: str | None = None
    scanner: str | None = None


def run(locks: Mapping[str, str], identity: list[Any]) -> Audit:
    """Look up every requirement of the locks, by component.

    The answer is cached for the release's identity, because its full bundle and its deltas must be
    the same, and the service may know more tomorrow.
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
    """Return the cache file of a release's answer; without it the service is queried again."""
    what = cache.key([_FORMAT, sorted(locks.items()), identity])
    return cache.root() / "about" / "audits" / f"{what}.json"


def _ask(locks: Mapping[str, str]) -> dict[str, Any]:
    """Query once for all locks, which have the same versions: starting the program is slow."""
    blocks: dict[str, str] = {}
    users: dict[str, list[str]] = {}
    for component, lock in sorted(locks.items()):
        for pin, block in _requirements(lock):
            blocks.setdefault(pin, block)
            users.setdefault(pin, []).append(component)
    answer = _call("".join(blocks.values()))
    if isinstance(answer, str):
        return {"reason": answer}
    audited = [one for one in answer if "skip_reason" not in one]
    if not audited:
        # pip-audit itself calls this "No known vulnerabilities found".
        return {"reason": "pip-audit's service knows none of the packages"}
    findings = [
        _finding(component, one, known)
        for one in audited
        for known in one["vulns"]
        for component in users.get(f"{normal(one['name'])}=={one['version']}", ())
    ]
    return {
        "findings": sorted(findings, key=lambda f: (f["id"], f["component"], f["package"])),
        "audited": len(audited),
        "unknown": sorted(one["name"] for one in answer if "skip_reason" in one),
        "scanner": f"pip-audit {importlib.metadata.version('pip-audit')}",
    }


def _requirements(lock: str) -> Iterator[tuple[str, str]]:
    """Yield the entries of a lock: `name==version`, and the whole entry with its hashes."""
    for match in _REQUIREMENT.finditer(lock):
        yield f"{normal(match[1])}=={match[2]}", f"{match[0].rstrip()}\n"


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
    """Return pip-audit's result for each requirement, or the reason for having none."""
    with tempfile.TemporaryDirectory(prefix="airlift-audit-") as folder:
        file = Path(folder, "requirements.txt")
        file.write_text(lock, encoding="utf-8")
        command = [
            *(sys.executable, "-m", "pip_audit", "--requirement", str(file)),
            # The lock is complete, so nothing is resolved, downloaded or installed.
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
