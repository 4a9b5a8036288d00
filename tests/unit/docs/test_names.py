"""Files and make targets with conventional names exist."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
from fastapi import FastAPI

from app import main

ROOT = Path(__file__).resolve().parents[3]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
FILES = [
    "app/main.py",
    "app/requirements.txt",
    "Dockerfile",
    "docker-compose.yml",
    ".env.example",
    "scripts/setup-environment.sh",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
]
TARGETS = ["build", "run", "test", "lint", "fmt", "clean"]


def dry_run(target: str) -> str:
    """Return the commands that make would run for a target."""
    return subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("name", FILES)
def test_the_file_is_there(name: str) -> None:
    assert (ROOT / name).is_file()
    assert (ROOT / name).stat().st_size > 0


@pytest.mark.parametrize("target", TARGETS)
def test_make_has_it_and_explains_it(target: str) -> None:
    assert re.search(rf"^{target}:.*## \S", MAKEFILE, re.MULTILINE)
    assert dry_run(target).strip()


def test_app_main_has_the_service_as_app() -> None:
    assert isinstance(main.app, FastAPI)


def test_make_run_starts_the_stack() -> None:
    assert "scripts/setup-environment.sh\n" in dry_run("run")
    assert os.access(ROOT / "scripts/setup-environment.sh", os.X_OK)


def make_help(*, terminal: bool, **settings: str) -> str:
    """Return the output of `make help`, on a terminal or in a pipe."""
    reader, writer = pty.openpty() if terminal else os.pipe()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(["make", "help"], cwd=ROOT, env=env | settings, stdout=writer)
    os.close(writer)
    said = b""
    try:
        while block := os.read(reader, 65536):
            said += block
    except OSError:
        pass  # Linux reports the end of a terminal as an error.
    os.close(reader)
    assert process.wait() == 0
    return said.decode().replace("\r\n", "\n")


def test_help_has_colours_on_a_terminal_only_and_obeys_no_color() -> None:
    plain = make_help(terminal=False)
    assert "\033" not in plain
    assert "\033[1m" in make_help(terminal=True)
    assert make_help(terminal=True, NO_COLOR="1") == plain


def test_help_names_every_explained_target_in_80_columns() -> None:
    plain = make_help(terminal=False)
    explained = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)
    assert re.findall(r"^  ([a-z-]+) ", plain, re.MULTILINE) == explained
    assert [line for line in plain.splitlines() if len(line) > 80] == []
