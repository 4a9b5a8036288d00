"""What the long proofs found, as pages of docs/proofs: AIRLIFT_PROOFS=1 writes them."""

from __future__ import annotations

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence

import pytest

from scripts.lab import ROOT

PROOFS = ROOT / "docs" / "proofs"
#: Test file without `test_`: what it shows, and the part of `make soak` that runs it.
ABOUT = {
    "compose_up": (
        "In a clone, `docker compose up --build` starts the service as the README says.",
        "soak-stack",
    ),
    "deploy": ("A pipeline deploys as a runner on the jump host does.", "soak-deploy"),
    "fuzz": (
        "Each parser of foreign bytes accepts an input or refuses it with the product's error.",
        "soak-fuzz",
    ),
    "install_killed": ("After `kill -9` at any task of an install, the same command ends it.", ""),
    "next": (
        "Each command that status prints is typed in that state, and ends in a clean status.",
        "soak-next",
    ),
    "pairs": (
        "After any change of a site, rollback, upgrade and install work, and status is clean.",
        "soak-pairs",
    ),
    "power": ("After a reboot or a power cut in any state, the site serves again.", "soak-power"),
    "setup_environment": (
        "The set-up script ends each failure with its exit code, and continues after a kill.",
        "soak-stack",
    ),
    "sick_replica": (
        "With a failing app host, no request fails that was sent later than five seconds after.",
        "soak-sick",
    ),
    "stack_long": (
        "The local stack survives restarts, and alerts fire under the traffic scripts.",
        "soak-stack",
    ),
}


def _tree() -> str:
    """Return the tree that was tried; the pages that are written here do not make it another."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!docs/proofs")
    return git("describe", "--always", "--abbrev=12") + ("-dirty" if changed else "")


def head(name: str) -> list[str]:
    """Return the title and the table that a page begins with."""
    about, target = ABOUT[name]
    return [
        f"# {name.replace('_', ' ').capitalize()}",
        "",
        "| | |",
        "|---|---|",
        "| **For** | reviewers |",
        "| **Use when** | you look for the evidence of a promise |",
        "| **Time** | a minute |",
        f"| **You need** | nothing to read; `make {target or 'soak'}` to run it again |",
        "| **Result** | the outcome of each case, and the tree that was tested |",
        "",
        about,
    ]


def page(name: str, path: str, rows: Sequence[str], columns: Sequence[str], when: str) -> str:
    """Return a page as it is written after a run with AIRLIFT_PROOFS=1."""
    target = ABOUT[name][1] or "soak"
    made = [
        f"Tree {when}, one machine with {os.cpu_count()} cores.",
        f"`AIRLIFT_PROOFS=1 make {target}` writes this page, from `{path}`.",
        "",
        "| Case | Outcome | Time |" + "".join(f" {one} |" for one in columns),
        "|---|---|---|" + "---|" * len(columns),
    ]
    return "\n".join([*head(name), *made, *rows]) + "\n"


#: Of the beginning: the tests take hours, and somebody may work on.
TREE = _tree() if os.environ.get("AIRLIFT_PROOFS") == "1" else ""


def write_pages(reporter: pytest.TerminalReporter, folder: str, *, only: str = "") -> None:
    """Write a page per file of tests: what was tried, on which tree, and what came of it.

    `make soak` runs long unit tests, too, which have no page: only `folder` has. `only` names a
    mark: the others of the same files are no long proofs.
    """
    if not TREE:
        return
    found: dict[str, list[str]] = defaultdict(list)
    more: dict[str, dict[str, object]] = defaultdict(dict)
    for outcome in ("passed", "failed", "error"):
        for report in reporter.getreports(outcome):
            if not report.nodeid.startswith(f"{folder}/"):
                continue
            if only and only not in report.keywords:
                continue
            if report.when == "call" or outcome == "error":
                path, _, name = report.nodeid.partition("::")
                if not only:
                    name = name.partition("[")[2].rstrip("]") or name
                # What a test recorded of itself has columns of its own.
                more[path] |= dict(report.user_properties)
                values = "".join(f" {value} |" for _, value in report.user_properties)
                row = f"| {name.replace('_', ' ')} | {outcome} | {report.duration:.0f} s |{values}"
                found[path].append(row)
    PROOFS.mkdir(exist_ok=True)
    when = f"{TREE}, {time.strftime('%Y-%m-%d', time.gmtime())}"
    for path, rows in found.items():
        name = path.rpartition("test_")[2].removesuffix(".py")
        text = page(name, path, rows, list(more[path]), when)
        (PROOFS / f"{name}.md").write_text(text)
