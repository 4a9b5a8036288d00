"""After each change to an upgraded site, rollback, upgrade and installation still work.

Each change is made before each of three operations: rollback, upgrade, install. After each of them
status finds nothing wrong, and a client is served. One named part of `make soak`:

    AIRLIFT_SOAK=1 pytest tests/soak/test_pairs.py [-k CHANGE]
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from scripts import power
from scripts.journey import SITE, Journey
from scripts.lab import Done
from tests.e2e.support import HOSTS
from tests.e2e.upgrades import (
    APP_HOSTS,
    INVENTORY,
    NO_PREFLIGHT,
    SETTINGS,
    edit,
    offer,
    rotate,
    serving,
    until_well,
)

GONE = "app-2"
#: An empty host: no container, no image, nothing of Airlift.
BARE = """
docker ps --all --quiet | xargs --no-run-if-empty docker rm --force
docker system prune --all --force
rm -rf /etc/airlift /var/lib/airlift
"""
OPERATIONS = ("rollback", "upgrade", "install")

pytestmark = pytest.mark.timeout(4 * 3600)


def play(journey: Journey, operation: str, *, check: bool = True) -> Done:
    """Run an operation from the directory of the release that it belongs to."""
    release = serving(journey) if operation == "install" else "1.1.0"
    return journey.play(operation, *NO_PREFLIGHT, release=release, check=check)


# ---------------------------------------------------------------- what happens to a site
def installed_again(journey: Journey) -> None:
    play(journey, "install")


def setting_changed(journey: Journey) -> None:
    def change(settings: dict[str, Any]) -> None:
        settings["app_baseline_score"] = 0.5 if settings.get("app_baseline_score") != 0.5 else 0.25

    edit(journey, SETTINGS, change)
    play(journey, "install")


def passwords_changed(journey: Journey) -> None:
    rotate(journey, "postgres_app_password", "redis_app_password")
    play(journey, "install")


def certificates_renewed(journey: Journey) -> None:
    script = f"find {SITE}/.airlift/tls -mindepth 2 -name '*.crt' -print -delete"
    assert journey.lab.ssh(script).output
    play(journey, "install")


def containers_pruned(journey: Journey) -> None:
    for host in APP_HOSTS:
        journey.lab.console(host, "docker container prune --force")
    shown = json.loads(journey.lab.console("edge-1", "airlift-swap show").output)
    # A careless clean-up removes this too.
    journey.lab.console("app-1", 'docker rm --force "$1"', f"airlift-app-{shown['standby']}")


def images_pruned(journey: Journey) -> None:
    for host in APP_HOSTS:
        journey.lab.console(host, "docker image prune --all --force")


def host_added(journey: Journey) -> None:
    added: dict[str, Any] = {}
    edit(journey, INVENTORY, lambda found: added.update(found["app"]["hosts"].pop(GONE)))
    play(journey, "install")
    journey.lab.console(GONE, BARE)
    edit(journey, INVENTORY, lambda found: found["app"]["hosts"].update({GONE: added}))
    play(journey, "install")


def host_gone(journey: Journey) -> None:
    journey.lab.docker("pause", journey.lab.name(GONE))
    # The edge has seen it by then.
    time.sleep(6)


def engines_restarted(journey: Journey) -> None:
    for host in HOSTS:
        journey.lab.console(host, "systemctl restart docker")
    power.until_it_serves(journey)


def rebooted(journey: Journey) -> None:
    for host in HOSTS:
        journey.lab.docker("restart", journey.lab.name(host))
    power.until_it_serves(journey)
    power.cut(journey, HOSTS)
    power.until_it_serves(journey)


CHANGES: list[Callable[[Journey], None]] = [
    containers_pruned,
    host_gone,
    rebooted,
    passwords_changed,
    engines_restarted,
    images_pruned,
    host_added,
    certificates_renewed,
    setting_changed,
    installed_again,
]


@pytest.fixture(scope="module")
def upgraded(installed: Journey) -> Journey:
    offer(installed)
    installed.play("upgrade", *NO_PREFLIGHT)
    return installed


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_it_goes_back_forward_and_is_installed(
    upgraded: Journey, change: Callable[[Journey], None]
) -> None:
    journey = upgraded
    if serving(journey) != "1.1.0":  # what an earlier failure left
        play(journey, "upgrade")
    for operation in OPERATIONS:
        change(journey)
        done = play(journey, operation, check=False)
        if change is host_gone:
            journey.lab.docker("unpause", journey.lab.name(GONE))
            if operation == "rollback":
                # The run continues without the host, and reports what remains to do.
                assert done.code == 0, done.output[-3000:]
                assert f"{GONE} did not answer and was not changed" in done.output
                play(journey, "install")
            else:
                assert done.code != 0
                assert GONE in done.output
                done = play(journey, operation, check=False)
        assert done.code == 0, done.output[-3000:]
        journey.smoke()
        until_well(journey)
    assert serving(journey) == "1.1.0"
