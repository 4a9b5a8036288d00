"""What a journey collects: recaps of Ansible, commands of the documents, and facts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.lab import ROOT
from scripts.page_parts import blocks


class JourneyError(Exception):
    """A step found an unexpected state."""


@dataclass
class Recap:
    """The totals of Ansible's recap of a run."""

    changed: int
    failed: int
    hosts: dict[str, dict[str, int]]


def recap(output: str) -> Recap:
    """Read the recap of a playbook run."""
    hosts: dict[str, dict[str, int]] = {}
    for line in output.splitlines():
        if found := re.match(r"(\S+)\s+: (ok=\d+.*)", line):
            pairs = (pair.split("=") for pair in found.group(2).split())
            hosts[found.group(1)] = {key: int(value) for key, value in pairs}
    return Recap(
        sum(host["changed"] for host in hosts.values()),
        sum(host["failed"] + host["unreachable"] for host in hosts.values()),
        hosts,
    )


def documented(mark: str, page: str = "TRUST.md") -> str:
    """Return a block of commands from a page of docs/, word for word."""
    found = blocks((ROOT / "docs" / page).read_text())
    if mark not in found:
        message = f"docs/{page} has no commands under `<!-- {mark} -->`"
        raise JourneyError(message)
    return found[mark]


@dataclass
class Facts:
    """The facts of a journey, for the table at its end and for the tests."""

    bundle: Path = Path()
    bundle_bytes: int = 0
    manifest: dict[str, Any] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)

    def layers(self) -> tuple[int, int, int, int]:
        """Return layers used, layers stored, bytes used, bytes stored."""
        used = [layer for part in self.manifest["components"].values() for layer in part["layers"]]
        stored = {layer["digest"]: layer["size"] for layer in used}
        return len(used), len(stored), sum(x["size"] for x in used), sum(stored.values())
