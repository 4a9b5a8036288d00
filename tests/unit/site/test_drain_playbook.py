"""drain_host.yml, and other playbooks with a drained host: real Ansible and a real agent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from swap_agent import drained, lease, runs

from tests.unit.roles.conftest import plugin
from tests.unit.site.test_failed_run import HOSTS, Site
from tests.unit.site.test_watch import Service

pytestmark = pytest.mark.slow
problems = plugin("swap/filter_plugins/swap_drain.py").swap_drain_problems
#: Variables of a host that is switched off: no task can run on it.
OFF = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


@pytest.fixture
def site(tmp_path: Path, services: list[Service], monkeypatch: pytest.MonkeyPatch) -> Site:
    """Provide a site that serves with app-1, app-2 and app-3; the inventory has two of them."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "docker").write_text("#!/bin/sh\n")
    (tools / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    made = Site(tmp_path).installed()
    lines = "".join(
        f"    server {one.address}; # app-{number}\n" for number, one in enumerate(services, 1)
    )
    wanted = made.edge.desired / "upstreams/blue.conf"
    wanted.parent.mkdir(parents=True)
    wanted.write_text(f"upstream app {{\n{lines}}}\n")
    runs.begin(made.edge, run="r", owner="ann", verb="install", seconds=60, instead_of="", data={})
    agent(made, "apply", "--release", "1.0.0", "--serial", "1")
    runs.end(made.edge, run="r", data={})
    return made


def agent(site: Site, *words: str) -> dict[str, Any]:
    with os.popen(" ".join([str(site.folder / "airlift-swap"), *words])) as pipe:  # noqa: S605
        found: dict[str, Any] = json.loads(pipe.read())
    return found


def without(site: Site, host: str) -> None:
    """Switch a host off, or all hosts on."""
    inventory: dict[str, dict[str, dict[str, Any]]] = {
        group: {"hosts": {one: {"ansible_connection": "local"} for one in hosts}}
        for group, hosts in HOSTS.items()
    }
    if host:
        inventory["app"]["hosts"][host] = OFF
    (site.folder / "inventory.yml").write_text(yaml.safe_dump(inventory))


def there(site: Site) -> list[str]:
    return drained.names(site.edge.upstream())


def words(text: str) -> str:
    return " ".join(text.split())


def events(site: Site) -> list[tuple[str, str]]:
    return [(step, event) for step, event, _ in site.journal()][2:]


def test_a_host_leaves_is_switched_off_and_comes_back(site: Site, services: list[Service]) -> None:
    done = site.play("drain_host", drain="app-2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "app-2 is drained: it gets no requests and no jobs" in words(done.stdout)
    assert "playbooks/drain_host.yml -e bring_back=app-2" in done.stdout
    assert there(site) == ["app-1", "app-3"]
    record = drained.load(site.edge.settings)["app-2"]
    assert "@" in record["by"]
    without(site, "app-2")
    # Other playbooks neither fail nor bring the host back.
    for verb in ("install", "retire"):
        done = site.play(verb)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"app-2 is drained by {record['by']} since" in words(done.stdout)
        assert "app-2" not in there(site)
        assert events(site)[-2:] == [(verb, "intent"), (verb, "done")]
    services[1].status = 503
    without(site, "")
    done = site.play("drain_host", bring_back="app-2")
    assert done.returncode == 2
    assert "app-2 stays drained, because it is not ready for the edge: HTTP 503" in words(
        done.stdout
    )
    services[1].status = 200
    assert "app-2" in drained.load(site.edge.settings)
    done = site.play("drain_host", bring_back="app-2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "app-2 serves release 1.0.0 again" in words(done.stdout)
    assert "app-2" in there(site)
    assert "app-2" not in drained.load(site.edge.settings)


def test_what_keeps_a_host_from_coming_back_leaves_it_drained(site: Site) -> None:
    site.play("drain_host", drain="app-2")
    done = site.play("drain_host", bring_back="app-2", place="app/main", victim="app-2")
    assert done.returncode == 2
    assert "bring back of lab failed: Can't open the append only file" in words(done.stdout)
    assert "app-2" not in there(site)
    assert site.journal()[-1][:2] == ("bring_back", "failed")


def test_the_last_that_serves_and_a_wrong_name_are_refused_without_a_record(site: Site) -> None:
    before = site.journal()
    both = {"drain": "app-1", "bring_back": "app-2"}
    requests: list[dict[str, Any]] = [{}, {"drain": "app-9"}, both]
    for request in requests:
        done = site.play("drain_host", **request)
        assert done.returncode == 2
        assert "name one app host of lab (app-1, app-2)" in words(done.stdout)
    assert site.journal() == before


def test_the_last_app_host_is_refused_with_the_reason(site: Site, services: list[Service]) -> None:
    site.play("drain_host", drain="app-2")
    services[2].status = 503
    before = site.journal()
    done = site.play("drain_host", drain="app-1")
    assert done.returncode == 2
    said = words(done.stdout)
    assert "app-1 would leave no app host that serves" in said
    assert "app-3 does not serve (HTTP 503" in said
    assert "app-2 is drained by" in said
    assert site.journal() == before
    assert "app-1" in there(site)


def test_a_silent_host_can_be_drained(site: Site) -> None:
    without(site, "app-2")
    done = site.play("drain_host", drain="app-2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "does not answer: its worker was not stopped" in words(done.stdout)
    assert there(site) == ["app-1", "app-3"]


def test_checking_changes_nothing(site: Site) -> None:
    before = site.journal()
    done = site.play("drain_host", drain="app-2", check=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (site.journal(), there(site)) == (before, ["app-1", "app-2", "app-3"])


def test_a_killed_run_is_finished_by_the_same_command(site: Site) -> None:
    # A run that was killed after the edge had drained the host leaves this.
    mine = lease.Lease("dead.machine.boot.1.1", "ann", "drain", 9, 0)
    runs.begin(
        site.edge,
        run=mine.run,
        owner="ann@jump",
        verb="drain",
        seconds=-1,
        instead_of="",
        data={"release": "1.0.0", "serial": 1, "host": "app-2"},
    )
    agent(site, "drain", "--run", mine.run, "--host", "app-2")
    done = site.play("drain_host", drain="app-2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert drained.load(site.edge.settings)["app-2"]["by"] == "ann@jump"
    assert agent(site, "show")["unfinished"] == []


def test_hosts_that_left_the_inventory_leave_the_edge_first(site: Site) -> None:
    done = site.play("install", place="tls/main", victim="app-1")
    assert done.returncode == 2
    # The run ended before its part on the edge.
    assert there(site) == ["app-1", "app-2"]
    assert "app-3 left the inventory and gets no requests any more" in words(done.stdout)


def test_the_last_that_serves_is_not_replaced_in_one_go(
    site: Site, services: list[Service]
) -> None:
    for one in services[:2]:
        one.status = 503
    done = site.play("install")
    assert done.returncode == 2
    assert "app-3 would leave no app host that serves" in words(done.stdout)
    assert there(site) == ["app-1", "app-2", "app-3"]
    assert site.journal()[-1][:2] == ("install", "failed")


@pytest.mark.parametrize(
    ("edge", "said"),
    [
        ({"installed": False}, "nothing is installed here yet: run PLAY install.yml"),
        ({"msg": "there is no /x on this host"}, "nothing is installed here yet"),
        ({"msg": "timed out"}, "the swap agent on the edge does not answer: timed out"),
        ({"release": "1.1.0"}, "cd /r/1.1.0 && PLAY drain_host.yml -e drain=app-2"),
        ({"unfinished": [{"step": "drain", "seq": 1, "data": {}}]}, ""),
        (
            {"unfinished": [{"step": "upgrade", "seq": 1, "data": {"release": "1.1.0"}}]},
            "upgrade to 1.1.0 was interrupted: finish it first with PLAY upgrade.yml",
        ),
    ],
)
def test_what_has_to_be_done_first(edge: dict[str, Any], said: str) -> None:
    here = {"version": "1.0.0", "serial": 1, "releases": "/r", "command": "PLAY "}
    here["again"] = "drain_host.yml -e drain=app-2"
    whole = {"installed": True, "release": "1.0.0", "serial": 1, "unfinished": []}
    shown = edge if set(edge) & {"installed", "msg"} else {**whole, **edge}
    found = problems(shown, here)
    assert said in "".join(found)
    assert bool(said) is bool(found)
