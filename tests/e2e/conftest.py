"""Fixtures for the stages of the journey; a test requests the stage that it checks.

The files are named in the order of the journey, because a stage cannot be undone. The lab is
created at the start and removed at the end. AIRLIFT_E2E_KEEP=1 uses an existing lab and site, and
keeps them: useful while working on the later tests.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.journey import Journey, ended
from scripts.lab import Lab
from tests.e2e.support import HOSTS, LOG, kill_at, watching

KEEP = os.environ.get("AIRLIFT_E2E_KEEP") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder, so that `-m "not site"` leaves it out."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.site)


@pytest.fixture(scope="session")
def journey() -> Iterator[Journey]:
    """The journey before its first stage; LOG holds all output of its commands."""
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("w") as file:

        def listen(line: str) -> None:
            file.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            file.flush()

        journey = Journey(listen=listen)
        if not KEEP:
            journey.lab.down()
        yield journey
        if not KEEP:
            journey.lab.down()


@pytest.fixture(scope="session")
def raised(journey: Journey) -> Journey:
    """The client's machines run and are empty."""
    with journey.timed("lab"):
        journey.raise_lab()
    return journey


@pytest.fixture(scope="session")
def carried(raised: Journey) -> Journey:
    """The bundle is built and is on the USB drive of the jump host."""
    if stands(raised):
        pytest.skip("the site stands already (AIRLIFT_E2E_KEEP)")
    raised.make_key()
    with raised.timed("build"):
        # One above the tree's own serial, so that a test can make an older bundle.
        raised.build(serial=raised.release()["serial"] + 1)
    raised.carry()
    return raised


@pytest.fixture(scope="session")
def imported(carried: Journey) -> Journey:
    """The bundle was checked by hand and imported."""
    carried.check_by_hand()
    carried.bootstrap()
    return carried


@pytest.fixture(scope="session")
def placed(imported: Journey) -> Journey:
    """The site's inventory and vault are on the jump host."""
    imported.place_site()
    return imported


def stands(journey: Journey) -> bool:
    """Return whether a site that is kept from an earlier run serves already."""
    return KEEP and "airlift-edge" in journey.lab.console("edge-1", "docker ps || :").output


@pytest.fixture(scope="session")
def lab(raised: Journey) -> Lab:
    """The machines."""
    return raised.lab


@pytest.fixture(scope="session")
def installed(request: pytest.FixtureRequest, raised: Journey) -> Journey:
    """The site is installed by a run that is killed half way, then by the same command."""
    if stands(raised):
        manifest = raised.lab.ssh("cat /opt/airlift/current/manifest.json").output
        raised.facts.manifest = json.loads(manifest)
        raised.fetch_access()
        return raised
    placed: Journey = request.getfixturevalue("placed")
    with watching(placed.lab, ["jump", *HOSTS]):
        install(placed)
    placed.fetch_access()
    return placed


def install(placed: Journey) -> None:
    """Check, begin, be killed, and finish."""
    placed.preflight()
    # With the highest verbosity and with differences: a test reads LOG.
    talkative = ["-vvv", "--diff"]
    with placed.timed("killed install"):
        killed = kill_at(placed, "install", "TASK [container : redis", options=talkative)
    # It was killed before it failed or finished; otherwise ssh would return Ansible's exit code.
    assert killed.code == 255, killed.output[-2000:]
    assert not ended(killed.output)
    with placed.timed("install"):
        placed.install(*talkative)
