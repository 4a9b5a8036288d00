"""Static check: each call of pip in this tree installs exactly what a lock names."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RULE = {"--no-deps", "--require-hashes"}
#: Files that call pip. Add a new one here, and check after the install that the lock is complete.
PLACES = {
    "Dockerfile",
    "bundle/jumphost/venv.py",
    "bundle/builder/wheels.py",
    "scripts/locked-install.sh",
    "tests/unit/images/test_debian_images.py",
}
#: The one call that resolves: it shows that a wheelhouse is complete by itself.
RESOLVES = "tests/unit/images/test_debian_images.py"

# How shells call pip: pip, pip3, "$PIP/pip", python3 "$@".
_SHELL = re.compile(
    r"(?:\bpip3?[\"']?|python3? \"\$@\")\s+(?:-\S+\s+)*(?:install|download)\b[^;|&]*"
)
_PEERS_SHARE = re.compile(r"^PEERS_SHARE := (\S+)$", re.MULTILINE)


def tracked() -> list[str]:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def in_shell(text: str) -> Iterator[set[str]]:
    for match in _SHELL.finditer(re.sub(r"\\\n", " ", text)):
        yield set(match[0].split())


def in_python(tree: ast.AST) -> Iterator[set[str]]:
    """Yield the words of each argument list, and of each shell call in a text."""
    if isinstance(tree, ast.List | ast.Tuple):
        words = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        if words & {"install", "download"} and words & {"pip", "--requirement", "-r"}:
            yield words
            return
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        yield from in_shell(tree.value)
    for child in ast.iter_child_nodes(tree):
        yield from in_python(child)


def calls(name: str, text: str) -> list[set[str]]:
    return list(in_python(ast.parse(text)) if name.endswith(".py") else in_shell(text))


def test_every_call_of_pip_takes_what_is_locked() -> None:
    found = {}
    for name in tracked():
        try:
            text = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if "pip" in text and name != Path(__file__).relative_to(ROOT).as_posix():
            found[name] = calls(name, text)
    assert {name for name, here in found.items() if here} == PLACES
    resolving = [(n, call) for n, here in found.items() for call in here if not call >= RULE]
    assert [name for name, _ in resolving] == [RESOLVES]
    assert resolving[0][1] >= {"--no-index", "--require-hashes"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Dockerfile", "RUN pip install \\\n  --require-hashes -r lock.txt && true --no-deps"),
        ("a.sh", '"$python" -m pip --quiet download --no-deps -r lock.txt'),
        ("a.sh", 'PIP=x; "$PIP/pip" install x'),
        ("a.py", "run([python, '-m', 'pip', 'install', '-r', lock], env=['--no-deps'])"),
        ("a.py", "run([*('-m', 'pip'), *('download', '--require-hashes')])"),
        ("a.py", "run([*tool, 'install', '--requirement', lock])"),
        ("a.py", "shell('python3 -m venv v; v/bin/pip install x')"),
    ],
)
def test_a_call_that_resolves_is_found(name: str, text: str) -> None:
    found = calls(name, text)
    assert len(found) == 1
    assert not found[0] >= RULE


@pytest.mark.parametrize("peer", ["baseline", "bentoml", "litserve"])
def test_a_peer_has_our_versions_of_what_we_share(peer: str) -> None:
    """A peer's lock is installed unchanged, so it must agree with ours."""
    shared = _PEERS_SHARE.search((ROOT / "Makefile").read_text())
    assert shared
    pin = re.compile(rf"^(?:{shared[1]})==[^\\\n]*", re.MULTILINE)
    ours = {match.strip() for match in pin.findall((ROOT / "requirements" / "dev.txt").read_text())}
    lock = ROOT / "docs" / "benchmarks" / peer / "requirements.txt"
    theirs = {match.strip() for match in pin.findall(lock.read_text())}
    assert theirs
    assert theirs <= ours
