"""Other releases' trees: this tree with a patch that applies, or an older commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import releases

ROOT = Path(__file__).resolve().parents[3]
PATCHES = sorted((ROOT / "tests" / "releases").glob("*.patch"))


@pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.stem)
def test_a_patch_fits_this_tree(patch: Path) -> None:
    command = ["git", "apply", "--check", str(patch)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("two_commits")
def test_a_tree_beside_a_journeys_is_the_same_commit(tmp_path: Path) -> None:
    """Two lanes of `make test` build the tree at the same time."""
    patch = "--- a/file\n+++ b/file\n@@ -1 +1 @@\n-newer\n\\ No newline at end of file\n+patched\n"
    patches = tmp_path / "patches"
    patches.mkdir()
    (patches / "next.patch").write_text(patch)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(releases, "PATCHES", patches)
        own, journeys = (
            releases.source_tree("next", tmp_path / "own"),
            releases.source_tree("next"),
        )
    assert own == tmp_path / "own"
    assert (own / "file").read_text() == "patched\n"
    assert git(own, "rev-parse", "HEAD") == git(journeys, "rev-parse", "HEAD")


def git(tree: Path, *words: str) -> str:
    name = ("-c", "user.name=Airlift", "-c", "user.email=release@airlift.example")
    done = subprocess.run(
        ["git", *name, *words], cwd=tree, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def two_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace this repository by one with an older and a newer commit."""
    root = tmp_path / "root"
    (root / ".venv/bin").mkdir(parents=True)
    (root / ".venv/bin/tool").touch()
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text(".venv/\n.cache/\n")
    for text in ("older", "newer"):
        (root / "file").write_text(text)
        git(root, "add", ".")
        git(root, "commit", "--quiet", "--no-gpg-sign", "-m", text)
    monkeypatch.setattr(releases, "ROOT", root)
    return root


def test_an_older_tree_is_as_it_was_and_has_this_trees_tools_and_lab(
    two_commits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (two_commits / "file").write_text("not committed")
    monkeypatch.setenv("REV", "HEAD~1")
    for _ in range(2):
        tree = releases.older_tree()
        assert (tree / "file").read_text() == "older"
        assert (tree / ".venv/bin/tool").exists()
        assert (tree / ".cache/lab").resolve() == two_commits / ".cache/lab"
        # Its bundle records the commit, and that nothing is modified.
        assert git(tree, "status", "--porcelain") == ""
        assert git(tree, "rev-parse", "HEAD") == git(two_commits, "rev-parse", "HEAD~1")
    assert (two_commits / "file").read_text() == "not committed"


@pytest.mark.usefixtures("two_commits")
def test_a_revision_that_is_not_there_is_named() -> None:
    with pytest.raises(RuntimeError, match="0123abc"):
        releases.older_tree("0123abc")
