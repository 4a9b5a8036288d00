"""Reboots and power cuts in every state of a site: it serves again by itself, as it was.

One named part of `make soak`: `make soak-power`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import pytest

from scripts import power
from scripts.journey import SITE, Journey
from scripts.lab import CommandError
from tests.e2e.support import HOSTS
from tests.e2e.upgrades import NO_PREFLIGHT, kill_in, offer, services

pytestmark = pytest.mark.timeout(4 * 3600)


def rollback(journey: Journey) -> None:
    journey.play("rollback", *NO_PREFLIGHT, release="1.1.0")


def upgrade(journey: Journey) -> None:
    offer(journey)
    journey.play("upgrade", *NO_PREFLIGHT, release="1.1.0")


def retired(journey: Journey) -> None:
    upgrade(journey)
    journey.play("retire", *NO_PREFLIGHT, release="1.1.0")


def half_upgraded(journey: Journey) -> None:
    """Interrupt an upgrade after the switch, while the workers are being changed."""
    rollback(journey)
    killed, where = kill_in(journey, "upgrade", "workers", 1.0)
    assert killed.code == 255
    assert where in {"workers", "finish"}


#: The order matters, because each state is made from the previous one.
STATES: dict[str, Callable[[Journey], object]] = {
    "installed": lambda _: None,
    "upgraded": upgrade,
    "rolled back": rollback,
    "retired": retired,
    "in the middle of an upgrade": half_upgraded,
}


def containers(journey: Journey) -> dict[str, dict[str, tuple[str, str]]]:
    """Return host: service: (state, release); nothing of a host whose engine is not up yet."""
    found = {}
    for host in HOSTS:
        with contextlib.suppress(CommandError):
            found[host] = services(journey, host)
    return found


def restarted(host: str) -> Callable[[Journey], None]:
    """Return the orderly reboot of one host."""

    def restart(journey: Journey) -> None:
        journey.lab.docker("restart", journey.lab.name(host))

    return restart


def engines(journey: Journey) -> None:
    for host in HOSTS:
        journey.lab.console(host, "systemctl restart docker")


CUTS: dict[str, Callable[[Journey], None]] = {
    **{f"reboot of {host}": restarted(host) for host in HOSTS},
    "power cut of all hosts": lambda journey: power.cut(journey, HOSTS),
    "engines restarted": engines,
}


def served(journey: Journey) -> tuple[str, str]:
    """Return colour and release that the edge serves."""
    shown = json.loads(journey.lab.console("edge-1", "airlift-swap show").output)
    return shown["active"], shown["release"]


def problems(journey: Journey) -> set[str]:
    """Return what status finds."""
    journey.play("status")
    report = json.loads(journey.lab.read("jump", f"{SITE}/.airlift/status.json"))
    return {one["found"] for one in report["problems"]}


def until_as(journey: Journey, before: set[str]) -> None:
    """Wait until status reports the same problems as before the power cut."""
    deadline = time.monotonic() + 180
    while new := problems(journey) - before:
        assert time.monotonic() < deadline, new
        time.sleep(3)


@pytest.mark.parametrize("state", STATES)
def test_it_serves_again_as_it_was(installed: Journey, state: str) -> None:
    journey = installed
    STATES[state](journey)
    before, colour, known = containers(journey), served(journey), problems(journey)
    # An interrupted upgrade has no new workers yet; nothing else may be wrong.
    assert not known or state.startswith("in the middle"), known
    for name, cut in CUTS.items():
        cut(journey)
        seconds = power.until_it_serves(journey)
        print(f"{state}, {name}: served after {seconds:.0f} s")
        assert served(journey) == colour
        deadline = time.monotonic() + 60
        while (after := containers(journey)) != before:
            assert time.monotonic() < deadline, (name, after)
            time.sleep(1)
        until_as(journey, known)
