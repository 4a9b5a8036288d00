"""After an upgrade: a power cut of every machine, then new passwords and a rollback.

No playbook runs between the cut and the moment when the site serves again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from scripts import power
from scripts.journey import Journey, recap
from scripts.lab import Done
from tests.e2e.support import HOSTS
from tests.e2e.upgrades import NO_PREFLIGHT, agent, offer, rotate, serves, services

pytestmark = pytest.mark.timeout(1800)


@dataclass
class Story:
    """What the test observed."""

    before: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    after: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)
    #: Seconds until it served.
    served: float = 0.0
    status: str = ""
    done: dict[str, Done] = field(default_factory=dict)


def everything(journey: Journey) -> dict[str, dict[str, tuple[str, str]]]:
    """Return host: service: (state, release)."""
    return {host: services(journey, host) for host in HOSTS}


def settled(journey: Journey, seconds: float = 120) -> str:
    """Return the output of status in one line, after all containers have started."""
    deadline = time.monotonic() + seconds
    while True:
        said = " ".join(journey.status().output.split())
        if "everything is as it should be" in said or time.monotonic() > deadline:
            return said
        time.sleep(5)


@pytest.fixture(scope="module")
def story(installed: Journey) -> Story:
    journey, story = installed, Story()
    offer(journey)
    journey.play("upgrade", *NO_PREFLIGHT)
    serves(journey, "1.1.0", "green")
    story.before = everything(journey)
    power.cut(journey, HOSTS)
    story.served = power.until_it_serves(journey)
    story.after = everything(journey)
    story.status = settled(journey)
    rotate(journey, "postgres_app_password", "redis_app_password")
    story.done["install"] = journey.play("install", *NO_PREFLIGHT)
    story.done["rollback"] = journey.play("rollback")
    return story


def test_it_serves_again_with_nobody_there(story: Story) -> None:
    assert story.served
    print(f"served {story.served:.0f} s after the engines' start")


def test_the_same_containers_run_and_no_other(story: Story) -> None:
    assert story.after == story.before


def test_status_is_clean_after_it(story: Story) -> None:
    assert "everything is as it should be" in story.status, story.status


def test_new_passwords_leave_the_standby_able_to_serve(installed: Journey, story: Story) -> None:
    """The standby was recreated with the new passwords, so the rollback is a warm one."""
    assert recap(story.done["install"].output).failed == 0
    assert "no longer warm" not in story.done["install"].output
    rollback = story.done["rollback"]
    assert recap(rollback.output).failed == 0
    assert "which is warm" in rollback.output
    serves(installed, "1.0.0", agent(installed, "show")["active"])


def test_the_site_works_with_the_new_passwords(installed: Journey, story: Story) -> None:
    assert story.done
    installed.smoke()
