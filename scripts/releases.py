"""Source trees of other releases: this tree with a patch of tests/releases, or an older tree.

It is a patch and not a copy, so that it fails when the tree changes, instead of becoming outdated.
An older tree is a revision of this repository, which makes its own bundle and its own site.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from scripts.lab import ROOT

PATCHES = ROOT / "tests" / "releases"
#: The default older tree: the last one whose roles had separate tasks for each container.
BEFORE = "8e19d669201f"
_GIT = ("git", "-c", "user.name=Airlift", "-c", "user.email=release@airlift.example")


def source_tree(patch: str, place: Path | None = None) -> Path:
    """Make the tree of a release and return it; the same input makes the same commit.

    ``patch`` is the name of a file in tests/releases, without its ending. Whoever runs beside a
    journey names another place than the journey's.
    """
    tree = place or ROOT / ".cache" / "releases" / patch
    shutil.rmtree(tree, ignore_errors=True)
    listed = _git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, tree / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    _git(tree, "init", "--quiet")
    _git(tree, "apply", "--whitespace=nowarn", str(PATCHES / f"{patch}.patch"))
    # The same date as the commit below it, because the bundle carries that time.
    date = _git(ROOT, "log", "-1", "--format=%cI").strip()
    environment = {**os.environ, "GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date}
    _git(tree, "add", "--all")
    _git(tree, "commit", "--quiet", "--no-gpg-sign", "-m", patch, environment=environment)
    return tree


def older_tree(revision: str = "") -> Path:
    """Check out a revision and return its tree, which uses this tree's tools and lab."""
    revision = revision or os.environ.get("REV") or BEFORE
    try:
        commit = _git(ROOT, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    except RuntimeError as error:
        message = f"{revision} is no commit of this clone; fetch it: git fetch --unshallow origin"
        raise RuntimeError(message) from error
    tree = ROOT / ".cache" / "trees" / commit[:12]
    if not (tree / ".git").exists():
        shutil.rmtree(tree, ignore_errors=True)
        # Also after an earlier checkout was removed by hand.
        _git(ROOT, "worktree", "add", "--force", "--quiet", "--detach", str(tree), commit)
    for shared in (".cache/lab", ".venv/bin"):
        link = tree / shared
        link.parent.mkdir(exist_ok=True)
        (ROOT / shared).mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(ROOT / shared)
    return tree


def _git(tree: Path, *words: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [*_GIT, "-C", str(tree), *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode != 0:
        message = f"git {words[0]} in {tree}: {done.stderr.strip()}"
        raise RuntimeError(message)
    return done.stdout
