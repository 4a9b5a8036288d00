"""After an upgrade: a power cut of every machine, then new passwords and the way back.

Nobody is there: no playbook is run between the cut and the moment when the site serves again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from scripts.journey import Journey, recap
from scripts.lab import Done
from tests.e2e.support import HOSTS
from tests.e2e.upgrades import NO_PREFLIGHT, offer, rotate, serves, services

pytestmark = pytest.mark.timeout(1800)


@dataclass
class Story:
    """What was seen."""

    before: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    after: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    #: Seconds until it served; None if it never did.
    served: float | None = None
    status: str = ""
    done: dict[str, Done] = field(default_factory=dict)


def cut_power(journey: Journey, hosts: list[str]) -> None:
    """Take the power from machines at one moment, and give it back."""
    names = [journey.lab.name(host) for host in hosts]
    journey.lab.docker("kill", "--signal", "KILL", *names)
    journey.lab.docker("start", *names)


def until_it_serves(journey: Journey, seconds: float) -> float | None:
    """Return after how many seconds the site answers as ready, None if not within the time."""
    start = time.monotonic()
    while time.monotonic() - start < seconds:
        try:
            status, _, said = journey.request("GET", "/health/ready", key=False)
        except OSError:
            status, said = 0, {}
        if status == 200 and said["status"] == "ready":
            return time.monotonic() - start
        time.sleep(0.5)
    return None


def everything(journey: Journey) -> dict[str, dict[str, tuple[str, str]]]:
    """Return host: service: (state, release)."""
    return {host: services(journey, host) for host in HOSTS}


@pytest.fixture(scope="module")
def story(installed: Journey) -> Story:
    journey, story = installed, Story()
    offer(journey)
    journey.play("upgrade", *NO_PREFLIGHT)
    serves(journey, "1.1.0", "green")
    story.before = everything(journey)
    cut_power(journey, HOSTS)
    story.served = until_it_serves(journey, 180)
    story.after = everything(journey)
    story.status = " ".join(journey.status().output.split())
    rotate(journey, "postgres_app_password", "redis_app_password")
    story.done["install"] = journey.play("install", *NO_PREFLIGHT)
    story.done["rollback"] = journey.play("rollback")
    return story


def test_it_serves_again_with_nobody_there(story: Story) -> None:
    assert story.served is not None
    print(f"served {story.served:.0f} s after the engines' start")


def test_the_same_containers_run_and_no_other(story: Story) -> None:
    assert story.after == story.before


def test_status_is_clean_after_it(story: Story) -> None:
    assert "everything is as it should be" in story.status, story.status


def test_new_passwords_leave_the_standby_able_to_serve(installed: Journey, story: Story) -> None:
    """It was made again with them, as the release before; so the way back is the quick one."""
    assert recap(story.done["install"].output).failed == 0
    assert "no longer warm" not in story.done["install"].output
    rollback = story.done["rollback"]
    assert recap(rollback.output).failed == 0
    assert "it is warm" in rollback.output
    serves(installed, "1.0.0", "blue")


def test_the_site_works_with_the_new_passwords(installed: Journey, story: Story) -> None:
    assert story.done
    installed.smoke()
