"""One stack for all tests of this folder, removed afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import stack_images
from tests.proofs import write_pages
from tests.stack.stackkit import Clone, Stack
from tests.unit.app.appkit import ROOT, one_builder

LONG = os.environ.get("AIRLIFT_SOAK") == "1"
#: The stack of those who set up a clone: its project and network.
NAME = ("airlift-stack-env", "198.19.244")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that take minutes or rarely fail alone; `make soak-stack` runs them."""
    if not LONG:
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="make soak-stack"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the pages of the long part."""
    write_pages(terminalreporter, "soak-stack", only="long")


@pytest.fixture(scope="session")
def images() -> None:
    with one_builder():
        assert stack_images.main() == 0


@pytest.fixture(scope="session")
def stack(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    name, network = "airlift-stack-test", "198.19.241"
    made = Stack(
        name,
        tmp_path_factory.mktemp("sources"),
        network,
        API_SOURCES_ALLOWED='["api-source:8088", "api-away:8088"]',
        API_SOURCES_NETWORKS=f'["{network}.64/26"]',
    )
    # Remains of a run that was killed.
    if made.left():
        made.compose("--profile", "*", "down", "--volumes", "--timeout", "5")
    try:
        made.up()
        yield made
    finally:
        if made.left():
            made.compose("--profile", "*", "down", "--volumes", "--timeout", "5", check=False)


@pytest.fixture(scope="session")
def traffic(stack: Stack) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The five scripts, started at once; the tests between now and their end run beside them."""
    stack.ready()
    started = {}
    for script in sorted((ROOT / "scripts").glob("0*.sh")):
        started[script.name] = subprocess.Popen(
            [str(script), "25", "4"],
            env={**stack.env, "URL": stack.url("HTTP_PORT", "")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    yield started
    for one in started.values():
        one.kill()
        one.wait()


@pytest.fixture(scope="session")
def tree(images: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree") / "airlift"
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split("\0"):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    # Images are built from the files that git tracks; the core tests never build one.
    who = ("-c", "user.name=Tests", "-c", "user.email=tests@airlift.example")
    for words in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "A copy")):
        if LONG:
            subprocess.run(["git", "-C", str(root), *words], check=True)
    (root / ".venv").symlink_to(ROOT / ".venv")
    # As after a first run: nothing is fetched again.
    for name in ("compose", "stack"):
        (root / ".cache" / name).mkdir(parents=True)
    if (fetched := ROOT / ".cache/compose").is_dir():
        shutil.copytree(fetched, root / ".cache/compose", dirs_exist_ok=True)
    shutil.copy2(ROOT / ".cache/stack/images.env", root / ".cache/stack")
    for folder in (root, *root.parents):
        if folder.is_relative_to(root.parents[1]):
            folder.chmod(0o755)
    return root


@pytest.fixture(scope="session")
def shared(tree: Path) -> Clone:
    """The tree itself, for runs that change nothing."""
    return Clone(tree, *NAME)


@pytest.fixture
def clone(tree: Path, tmp_path: Path) -> Iterator[Clone]:
    root = tmp_path / "airlift"
    shutil.copytree(tree, root, symlinks=True)
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    # An engine whose client dies in the middle may count an endpoint on a network for ever (20.10
    # did): the network of the tests that kill is theirs alone.
    killed = "killed" in tmp_path.name
    made = Clone(root, *(("airlift-stack-kill", "198.19.243") if killed else NAME))
    yield made
    # Where the script came to its first step.
    if (root / ".cache/stack/setup.log").exists() and made.left():
        made.compose("--profile", "*", "down", "--volumes", "--timeout", "2", check=False)
