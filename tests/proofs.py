"""What the long proofs found, as pages and JSON in docs/proofs: AIRLIFT_PROOFS=1 writes them."""

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
    """Return the tree that was tried; the pages that are written here do not make it another."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!docs/proofs")
    return git("describe", "--always", "--abbrev=12") + ("-dirty" if changed else "")


#: Of the beginning: the tests take hours, and somebody may work on.
TREE = _tree() if os.environ.get("AIRLIFT_PROOFS") == "1" else ""


def write_pages(reporter: pytest.TerminalReporter, target: str, *, only: str = "") -> None:
    """Write a page and JSON per file of tests: what was tried, on which tree, what came of it.

    `only` names a mark: the others of the same files are no long proofs.
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
                # What a test recorded of itself has columns of its own.
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
            # `make soak` runs long unit tests, too, which have no page.
            continue
        date = time.strftime("%Y-%m-%d", time.gmtime())
        made = page(path, rows, list(more[path]), f"Tree {TREE}, {date}", target)
        (PROOFS / f"{name_of(path)}.md").write_text(made)
        told = {"format": 1, "test": path, "tree": TREE, "date": date, "cases": cases[path]}
        (PROOFS / f"{name_of(path)}.json").write_text(json.dumps(told, indent=1) + "\n")
