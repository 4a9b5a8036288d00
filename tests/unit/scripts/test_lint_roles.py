"""ansible-lint is skipped only if its input is unchanged since it passed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.scripts.deploykit import ROOT, program

LINT = """#!/bin/sh
echo run >> runs
! test -e bad
"""


class Tree:
    """A checkout with a linter that fails while a file `bad` exists."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(ROOT / "Makefile", root)
        (root / ".venv/bin").mkdir(parents=True)
        program(root / ".venv/bin/ansible-lint", LINT)
        (root / ".gitignore").write_text(".cache\n.venv\nruns\nbad\n")
        self.write("roles/a/tasks/main.yml", "one")
        self.git("init", "--quiet")
        self.git("add", "--all")

    def git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.root, check=True)

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def lints(self) -> tuple[int, bool]:
        """Return the exit code, and whether the linter ran."""
        (self.root / "runs").unlink(missing_ok=True)
        words = ["make", "lint-roles"]
        done = subprocess.run(words, cwd=self.root, capture_output=True, check=False)
        return done.returncode, (self.root / "runs").exists()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_what_passed_is_not_linted_again(tree: Tree) -> None:
    assert tree.lints() == (0, True)
    assert tree.lints() == (0, False)
    tree.write("docs/page.md", "no business of its")
    assert tree.lints() == (0, False)


@pytest.mark.parametrize(
    "path", ["roles/a/tasks/main.yml", "roles/b/templates/new.j2", "x/new.yml", ".ansible-lint"]
)
def test_a_change_is_linted(tree: Tree, path: str) -> None:
    assert tree.lints() == (0, True)
    tree.write(path, "two")
    assert tree.lints() == (0, True)


def test_a_file_that_is_gone_is_a_change(tree: Tree) -> None:
    assert tree.lints() == (0, True)
    (tree.root / "roles/a/tasks/main.yml").unlink()
    assert tree.lints() == (0, True)


def test_what_failed_is_linted_until_it_passes(tree: Tree) -> None:
    tree.lints()
    tree.write("roles/a/tasks/main.yml", "three")
    tree.write("bad", "")
    assert tree.lints() == (2, True)
    assert tree.lints() == (2, True)
    (tree.root / "bad").unlink()
    assert tree.lints() == (0, True)
