"""One stack for all tests of this folder, and nothing of it afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from scripts import stack_images
from tests.proofs import write_pages
from tests.stack.stackkit import Stack
from tests.unit.app.appkit import ROOT, one_builder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make soak-stack` what takes minutes, or rarely breaks alone."""
    if os.environ.get("AIRLIFT_SOAK") != "1":
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
    # Of a run that was killed.
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
