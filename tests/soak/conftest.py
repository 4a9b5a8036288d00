"""The journey's fixtures, for the long proofs on the lab; and what they found, for docs/proofs."""

from __future__ import annotations

import os
import subprocess
import time
from collections import defaultdict

import pytest

from scripts.lab import ROOT
from tests.e2e.conftest import carried, imported, installed, journey, placed, raised
from tests.soak.page import page

__all__ = ["carried", "imported", "installed", "journey", "placed", "raised"]

PROOFS = ROOT / "docs" / "proofs"


def _tree() -> str:
    """Return the tree that was tried; the pages that are written here do not make it another."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!docs/proofs")
    return git("describe", "--always", "--abbrev=12") + ("-dirty" if changed else "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write a page per file of tests: what was tried, on which tree, and what came of it."""
    if os.environ.get("AIRLIFT_PROOFS") != "1":
        return
    found: dict[str, list[str]] = defaultdict(list)
    more: dict[str, dict[str, object]] = defaultdict(dict)
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            if report.when == "call" or outcome == "error":
                path, _, name = report.nodeid.partition("::")
                if not path.startswith("tests/soak/"):
                    # `make soak` runs long unit tests, too, which have no page.
                    continue
                name = name.partition("[")[2].rstrip("]") or name
                page_name = path.rpartition("test_")[2].removesuffix(".py")
                # What a test recorded of itself has columns of its own.
                more[page_name] |= dict(report.user_properties)
                values = "".join(f" {value} |" for _, value in report.user_properties)
                row = f"| {name.replace('_', ' ')} | {outcome} | {report.duration:.0f} s |{values}"
                found[page_name].append(row)
    PROOFS.mkdir(exist_ok=True)
    for name, rows in found.items():
        date = time.strftime("%Y-%m-%d", time.gmtime())
        (PROOFS / f"{name}.md").write_text(page(name, rows, list(more[name]), _tree(), date))
