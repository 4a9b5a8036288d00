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


#: The last line of a playbook's output; with `-v`, Ansible's table of hosts is there instead.
_SUMMARY = re.compile(
    r"^(?P<changed>\d+) (?:changed|would change), (?P<failed>\d+) failed(?: \([^)]*\))?"
    r"(?:, (?P<unreachable>\d+) unreachable \([^)]*\))?, [\d.]+ s$",
    re.MULTILINE,
)
_HOST = re.compile(
    r"^\S+ +: ok=\d+ +changed=(?P<changed>\d+) +unreachable=(?P<unreachable>\d+) "
    r"+failed=(?P<failed>\d+)",
    re.MULTILINE,
)


@dataclass
class Recap:
    """The totals of a playbook run."""

    changed: int
    failed: int


def recap(output: str) -> Recap:
    """Read the totals of a playbook run; refuse the output of a run that did not end."""
    if not (found := [*_SUMMARY.finditer(output), *_HOST.finditer(output)]):
        message = "the output has no summary, so the playbook did not end"
        raise JourneyError(message)
    return Recap(
        sum(int(one["changed"]) for one in found),
        sum(int(one["failed"]) + int(one["unreachable"] or 0) for one in found),
    )


def ended(output: str) -> bool:
    """Return whether a playbook run came to its end, well or not."""
    return bool(_SUMMARY.search(output) or _HOST.search(output))


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
