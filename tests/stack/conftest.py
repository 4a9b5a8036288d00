"""One stack for all tests of this folder, and nothing of it afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from scripts import stack_images
from tests.stack.stackkit import Stack
from tests.unit.app.appkit import ROOT, one_builder


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
        API_SOURCES_ALLOWED='["api-source:8088"]',
        API_SOURCES_NETWORKS=f'["{network}.64/26"]',
    )
    made.compose("down", "--volumes", "--timeout", "5")
    try:
        made.up()
        yield made
    finally:
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
