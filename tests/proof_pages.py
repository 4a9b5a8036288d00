"""Pages of docs/proofs: what a long test verifies, on which tree, and the outcome of each case."""

from __future__ import annotations

import os
from collections.abc import Sequence

#: Test file without `test_`: what it verifies, and the `make` target that runs it.
ABOUT = {
    "compose_up": ("`docker compose up --build` starts the local stack.", "soak-stack"),
    "deploy": ("A pipeline deploys as a runner on the jump host does.", "soak-deploy"),
    "from": (
        "A site of an older tree upgrades to this tree under load, and rolls back.",
        "soak-from",
    ),
    "fuzz": (
        "Each parser of foreign bytes accepts an input or refuses it with the product's error.",
        "soak-fuzz",
    ),
    "install_killed": (
        "After `kill -9` at any task of an install, the same command ends it.",
        "soak-install",
    ),
    "maintenance": (
        "App hosts are drained, rebooted, added and removed, and no request fails.",
        "soak-maintenance",
    ),
    "jump_host": (
        "A second jump host rolls back; a lost jump host's state is restored, and nothing changes.",
        "soak-jump",
    ),
    "next": (
        "Each command that status prints is typed in that state, and ends in a clean status.",
        "soak-next",
    ),
    "pairs": (
        "After any change of a site, rollback, upgrade and install work, and status is clean.",
        "soak-pairs",
    ),
    "power": ("After a reboot or a power cut in any state, the site serves again.", "soak-power"),
    "settings": (
        "Settings, passwords and certificates of a serving site change, and no request fails.",
        "soak-settings",
    ),
    "setup_environment": (
        "The set-up script ends each kind of failure with its exit code.",
        "soak-stack",
    ),
    "shapes": (
        "Sites of one host, of four app hosts and with two edges: no request fails in an upgrade.",
        "soak-shapes",
    ),
    "shared_address": (
        "The shared address leaves an edge that cannot serve, and stays when that returns.",
        "soak-address",
    ),
    "sick_replica": (
        "With a failing app host, no request fails that was sent later than five seconds after.",
        "soak-sick",
    ),
    "stopped": (
        "An upgrade to a bad release stops with one sentence, and what served serves.",
        "soak-stopped",
    ),
    "stack_long": ("The local stack survives restarts, and its alerts fire.", "soak-stack"),
}


def name_of(path: str) -> str:
    """Return the name of a test file's page."""
    return path.rpartition("test_")[2].removesuffix(".py")


def head(name: str) -> list[str]:
    """Return the title, the table and the summary at the top of a page."""
    about, target = ABOUT[name]
    return [
        f"# {name.replace('_', ' ').capitalize()}",
        "",
        "| | |",
        "|---|---|",
        "| **For** | reviewers |",
        "| **Use when** | you look for the evidence of a promise |",
        "| **Time** | a minute |",
        f"| **You need** | nothing to read; `make {target}` to run it again |",
        "| **Result** | the outcome of each case, and the tree that was tested |",
        "",
        about,
    ]


def page(path: str, rows: Sequence[str], columns: Sequence[str], tree: str, target: str) -> str:
    """Return a page as a run with AIRLIFT_PROOFS=1 writes it."""
    made = [
        f"{tree}, one machine with {os.cpu_count()} cores.",
        f"`AIRLIFT_PROOFS=1 make {target}` writes this page, from `{path}`.",
        "",
        "| Case | Outcome | Time |" + "".join(f" {one} |" for one in columns),
        "|---|---|---|" + "---|" * len(columns),
    ]
    return "\n".join([*head(name_of(path)), *made, *rows]) + "\n"
