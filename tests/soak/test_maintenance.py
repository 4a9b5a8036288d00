"""App hosts leave for maintenance, come back, are added and removed: no request fails.

One named part of `make soak`: `make soak-maintenance`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from scripts import power
from scripts.journey import SITE, Journey
from tests.e2e.support import SHAPE, kill_at
from tests.e2e.upgrades import (
    agent,
    kill_in,
    nothing_is_left_over,
    offer,
    serves,
    services,
    serving,
    until_well,
)

pytestmark = pytest.mark.timeout(3 * 3600)

RATE = 12
HOST = "app-2"
NEW = {"name": "app-3", "kind": "host", "addresses": {"app": 13}}
#: The line of the inventory by which the site has one app host more.
LINE = "    app-3: {ansible_host: 172.30.2.13}"
CONTAINERS = "docker ps --no-trunc --format '{{.Names}} {{.ID}}' | sort"
Record = Callable[[str, object], None]


@contextmanager
def nobody_notices(journey: Journey, record: Record) -> Iterator[None]:
    """Send requests during the block; none may fail."""
    with journey.load(RATE) as load:
        yield
    found = load.result
    record("requests", found.sent)
    record("failed", found.failed)
    assert found.sent > 0
    assert found.failed == 0, str(found)


def maintain(journey: Journey, what: str, host: str = HOST, *, check: bool = True) -> str:
    """Drain a host, or bring it back; return what was printed."""
    release = serving(journey)
    done = journey.play("drain_host", "-e", f"{what}={host}", check=check, release=release)
    assert check or done.code == 2, done.output
    return " ".join(done.output.split())


def drained(journey: Journey) -> list[str]:
    """Return the drained hosts, for which the edge has no line."""
    shown = agent(journey, "show")
    out = sorted(shown["drained"])
    assert not set(out) & set(shown["app_hosts"])
    assert not set(out) & set(shown["replicas"])
    return out


def is_told(journey: Journey, host: str = HOST) -> None:
    """Check that status warns of a drained host and reports nothing else."""
    journey.play("status", release=serving(journey))
    report = json.loads(journey.lab.read("jump", f"{SITE}/.airlift/status.json"))
    assert [one["level"] for one in report["problems"]] == ["warning"], report["problems"]
    found = report["problems"][0]["found"]
    assert found.startswith(f"{host} is drained by operator@jump since 20")
    assert report["next"].endswith(f"drain_host.yml -e bring_back={host}")


def reboot(journey: Journey, host: str) -> None:
    """Restart a machine; wait until its engine answers."""
    journey.lab.docker("restart", journey.lab.name(host))
    journey.lab.console(host, "until docker info > /dev/null 2>&1; do sleep 1; done")


def test_a_host_is_drained_rebooted_and_brought_back(
    installed: Journey, record_property: Record
) -> None:
    with nobody_notices(installed, record_property):
        said = maintain(installed, "drain")
        assert f"{HOST} is drained: it gets no requests and no jobs" in said
        assert "worker-blue" not in services(installed, HOST)
        reboot(installed, HOST)
        # After its engine restarts, the host is still drained and its removed containers stay away.
        assert "worker-blue" not in services(installed, HOST)
        assert drained(installed) == [HOST]
        is_told(installed)
        installed.run_job()
        maintain(installed, "bring_back")
    assert drained(installed) == []
    serves(installed, serving(installed), "blue")
    nothing_is_left_over(installed)
    until_well(installed)


def test_it_stays_out_over_a_reboot_of_the_edge_and_an_install(
    installed: Journey, record_property: Record
) -> None:
    maintain(installed, "drain")
    reboot(installed, "edge-1")
    power.until_it_serves(installed)
    assert drained(installed) == [HOST]
    with nobody_notices(installed, record_property):
        done = installed.play("install", release=serving(installed))
        assert f"{HOST} is drained by operator@jump since" in " ".join(done.output.split())
        assert drained(installed) == [HOST]
        maintain(installed, "bring_back")
    until_well(installed)


def test_the_last_app_host_is_refused(installed: Journey, record_property: Record) -> None:
    with nobody_notices(installed, record_property):
        maintain(installed, "drain")
        said = maintain(installed, "drain", "app-1", check=False)
        assert "app-1 would leave no app host that serves" in said
        assert f"{HOST} is drained by operator@jump since" in said
        # A refusal is not recorded as a failed run.
        is_told(installed)
        maintain(installed, "bring_back")
    until_well(installed)


@pytest.mark.parametrize(
    ("what", "step", "seconds"),
    [
        ("drain", "edge", 0.0),
        ("drain", "edge", 2.0),
        ("drain", "worker", 0.5),
        ("bring_back", "host", 5.0),
        ("bring_back", "edge", 0.0),
        ("bring_back", "edge", 2.0),
    ],
)
def test_killed_at_any_step_the_same_command_finishes(
    installed: Journey, record_property: Record, what: str, step: str, seconds: float
) -> None:
    with nobody_notices(installed, record_property):
        if what == "bring_back":
            maintain(installed, "drain")
        kill_in(installed, "drain_host", step, seconds, options=("-e", f"{what}={HOST}"))
        maintain(installed, what)
        assert drained(installed) == ([HOST] if what == "drain" else [])
        assert agent(installed, "show")["unfinished"] == []
        if what == "drain":
            is_told(installed)
            maintain(installed, "bring_back")
    until_well(installed)


def test_an_install_that_is_killed_leaves_it_out(
    installed: Journey, record_property: Record
) -> None:
    with nobody_notices(installed, record_property):
        maintain(installed, "drain")
        kill_at(installed, "install", "Compare the containers")
        assert drained(installed) == [HOST]
        installed.play("install", release=serving(installed))
        maintain(installed, "bring_back")
    until_well(installed)


def test_an_upgrade_and_a_rollback_omit_a_host_that_is_off(
    installed: Journey, record_property: Record
) -> None:
    offer(installed)
    maintain(installed, "drain")
    installed.lab.docker("stop", installed.lab.name(HOST))
    with nobody_notices(installed, record_property):
        installed.play("upgrade", release="1.1.0")
        is_told(installed)
        installed.play("rollback", release="1.1.0")
        assert drained(installed) == [HOST]
        installed.play("upgrade", release="1.1.0")
        installed.lab.docker("start", installed.lab.name(HOST))
        reboot(installed, HOST)
        maintain(installed, "bring_back")
    # The returned host has the release and the standby that it had missed.
    serves(installed, "1.1.0", agent(installed, "show")["active"])
    until_well(installed)
    installed.play("rollback", release="1.1.0")
    until_well(installed)


def edited(journey: Journey, *, added: bool) -> None:
    """Add the line of the third app host to the inventory, or remove it."""
    words = f"/^    app-1:/a\\{LINE}" if added else "/^    app-3:/d"
    journey.lab.ssh(f"sed -i '{words}' {SITE}/hosts.yml")


def test_an_app_host_is_added_and_removed_by_a_line_of_the_inventory(
    installed: Journey, record_property: Record
) -> None:
    hosts = json.dumps({"lab_hosts": [*SHAPE.machines(), NEW]})
    installed.lab.variables = ["-e", hosts]
    installed.lab.up()
    data = installed.lab.console("data-1", CONTAINERS).output
    with nobody_notices(installed, record_property):
        edited(installed, added=True)
        release = serving(installed)
        installed.play("install", release=release)
        shown = agent(installed, "show")
        assert set(shown["app_hosts"]) == {"app-1", "app-2", "app-3"}
        # Adding the host replaced neither Postgres nor Redis.
        assert installed.lab.console("data-1", CONTAINERS).output == data
        assert services(installed, "app-3")[f"app-{shown['active']}"] == ("running", release)
        until_well(installed)
        edited(installed, added=False)
        installed.play("install", release=release)
        assert agent(installed, "show")["app_hosts"] == ["app-1", "app-2"]
        assert installed.lab.console("data-1", CONTAINERS).output == data
    until_well(installed)


def test_a_drained_host_that_is_removed_leaves_no_record(
    installed: Journey, record_property: Record
) -> None:
    with nobody_notices(installed, record_property):
        edited(installed, added=True)
        installed.play("install", release=serving(installed))
        maintain(installed, "drain", "app-3")
        edited(installed, added=False)
        installed.play("install", release=serving(installed))
        shown = agent(installed, "show")
        assert (shown["drained"], shown["app_hosts"]) == ({}, ["app-1", "app-2"])
    until_well(installed)
