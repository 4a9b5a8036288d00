"""Results of the long tests as pages and JSON in docs/proofs, written if AIRLIFT_PROOFS=1."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import defaultdict
from typing import Any

import pytest

from scripts.lab import ROOT
from tests.proof_pages import ABOUT, name_of, page

PROOFS = ROOT / "docs" / "proofs"


def _tree() -> str:
    """Return the tested tree; changed pages in docs/proofs do not make it dirty."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!docs/proofs")
    return git("describe", "--always", "--abbrev=12") + ("-dirty" if changed else "")


#: Read at the start: the tests take hours, and files may change meanwhile.
TREE = _tree() if os.environ.get("AIRLIFT_PROOFS") == "1" else ""


def write_pages(reporter: pytest.TerminalReporter, target: str, *, only: str = "") -> None:
    """Write a page and JSON per test file: what was tested, on which tree, and the outcome.

    `only` names a mark: tests without it are no long proofs.
    """
    if not TREE:
        return
    found: dict[str, list[str]] = defaultdict(list)
    cases: dict[str, list[dict[str, Any]]] = defaultdict(list)
    more: dict[str, dict[str, object]] = defaultdict(dict)
    for outcome in ("passed", "failed", "error"):
        for report in reporter.getreports(outcome):
            if only and only not in report.keywords:
                continue
            if report.when == "call" or outcome == "error":
                path, _, name = report.nodeid.partition("::")
                if not only:
                    name = name.partition("[")[2].rstrip("]") or name
                # A property that a test recorded gets a column of its own.
                more[path] |= dict(report.user_properties)
                values = "".join(f" {value} |" for _, value in report.user_properties)
                what = name.removeprefix("test_").replace("_", " ")
                row = f"| {what} | {outcome} | {report.duration:.0f} s |{values}"
                found[path].append(row)
                case = {"case": what, "outcome": outcome, "seconds": round(report.duration)}
                cases[path].append(case | dict(report.user_properties))
    PROOFS.mkdir(exist_ok=True)
    for path, rows in found.items():
        if name_of(path) not in ABOUT:
            # `make soak` also runs long unit tests, which have no page.
            continue
        date = time.strftime("%Y-%m-%d", time.gmtime())
        made = page(path, rows, list(more[path]), f"Tree {TREE}, {date}", target)
        (PROOFS / f"{name_of(path)}.md").write_text(made)
        told = {"format": 1, "test": path, "tree": TREE, "date": date, "cases": cases[path]}
        (PROOFS / f"{name_of(path)}.json").write_text(json.dumps(told, indent=1) + "\n")
