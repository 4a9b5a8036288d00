"""Completion, tested in the real shells."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.bundle.bundlekit import TREE

# Typed text, and the word that a tab completes it to.
TYPED = [
    ("ver", "verify"),
    ("verify --allow", "--allowed-signers"),
    ("build --source de", "debian"),
]


def script(shell: str, target: Path) -> Path:
    """Write the completion script of a shell."""
    command = [sys.executable, "-m", "bundle", "completion", shell]
    target.write_bytes(subprocess.run(command, cwd=TREE, capture_output=True, check=True).stdout)
    return target


def said(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=True)
    return done.stdout


def test_bash(tmp_path: Path) -> None:
    made = script("bash", tmp_path / "completion")

    def offered(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in words)
        code = f"source {made}; COMP_WORDS=(airlift-bundle {line}); COMP_CWORD={len(words)}; "
        code += '_shtab_airlift_bundle; echo "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.split()

    assert offered("ver") == ["verify"]
    assert offered("verify", "--allow") == ["--allowed-signers"]
    assert offered("build", "--source", "de") == ["debian"]
    # The completed command exists and works from any directory.
    done = subprocess.run(
        ["bash", "-c", f"source {made}; cd /; airlift-bundle exit-codes"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cut-short" in done.stdout


def test_fish(tmp_path: Path) -> None:
    made = script("fish", tmp_path / "airlift-bundle.fish")
    for typed, wanted in TYPED:
        code = f"source {made}; complete --do-complete 'airlift-bundle {typed}'"
        offered = said("fish", "--no-config", "-c", code).splitlines()
        assert [line.split("\t")[0] for line in offered] == [wanted]
    assert "cut-short" in said(
        "fish", "--no-config", "-c", f"source {made}; airlift-bundle exit-codes"
    )


class Terminal:
    """A shell on a terminal."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def types(self, text: str, until: str) -> None:
        """Type a text and read until the expected output."""
        os.write(self._handle, text.encode())
        seen, deadline = "", time.monotonic() + 30
        while until not in seen:
            assert time.monotonic() < deadline, f"{text!r} made {seen!r}, without {until!r}"
            if select.select([self._handle], [], [], 0.5)[0]:
                seen += os.read(self._handle, 65_536).decode()


@contextmanager
def zsh(start: str) -> Iterator[Terminal]:
    process, handle = pty.fork()
    if process == 0:
        os.environ["TERM"] = "dumb"
        os.execvp("zsh", ["zsh", "-f"])  # noqa: S606 - the shell is what is tested
    try:
        terminal = Terminal(handle)
        terminal.types(f"{start}; print rea''dy\n", "ready\r\n")
        yield terminal
    finally:
        os.close(handle)
        os.waitpid(process, 0)


@pytest.mark.parametrize("way", ["sourced", "in fpath"])
def test_zsh(tmp_path: Path, way: str) -> None:
    made = script("zsh", tmp_path / "_airlift-bundle")
    start = f"autoload -Uz compinit; compinit -u -d {tmp_path}/dump"
    start = f"{start}; source {made}" if way == "sourced" else f"fpath=({tmp_path} $fpath); {start}"
    with zsh(start) as terminal:
        for typed, wanted in TYPED:
            # Ctrl-U removes the line before.
            terminal.types(f"\x15airlift-bundle {typed}\t", wanted)
