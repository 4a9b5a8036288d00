"""Runs on a site with two edges: real Ansible, two real agents, and a fake Nginx."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from swap_agent.state import Settings, State

from tests.unit.site.playkit import OTHER, Desk, program, role
from tests.unit.site.test_watch import Service

TO = json.dumps({"release": "1.1.0"})
PLANNED = {"active": "blue", "release": "1.0.0", "target": "green", "already": False, "warm": True}


class Edges(Desk):
    """A jump host whose hosts are itself: a leading edge and a following one."""

    hosts = "dmz"

    def _inventory(self) -> None:
        super()._inventory()
        path = self.root / "site/hosts.yml"
        site = yaml.safe_load(path.read_text())
        # The interpreter selects the agent, because a delegated task uses the host's own, too.
        python = self.root / "python-edge-2"
        program(python, f'#!/bin/sh\nEDGE=edge-2 exec {shlex.quote(sys.executable)} "$@"\n')
        second = {
            "ansible_python_interpreter": str(python),
            "site_data_dir": str(self.root / "data-2"),
        }
        site["dmz"] = {"hosts": {"edge-1": {}, "edge-2": second}}
        path.write_text(yaml.safe_dump(site, sort_keys=False))

    def _agent(self) -> None:
        super()._agent()
        settings = json.loads((self.root / "swap.json").read_text())
        for number, data in (("", "data"), ("-2", "data-2")):
            root = self.root / f"edge{number}"
            for name in ("blue", "green", "blue-green", "green-blue"):
                path = root / f"desired/upstreams/{name}.conf"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"# {name}\n")
            mine = {"root": str(root), "state_file": str(self.root / data / "swap/state.json")}
            mine |= {"watch_dir": str(self.root / f"run{number}"), "user": "0:0"}
            (self.root / f"swap{number}.json").write_text(json.dumps({**settings, **mine}))
        text = self.agent.read_text()
        text = text.replace("#!/bin/sh\n", '#!/bin/sh\n[ -z "$EDGE" ] || TWO=-2\n')
        text = text.replace(str(self.root / "swap.json"), f'{self.root}/swap"$TWO".json')
        program(self.agent, text)
        docker = self.root / "bin/docker"
        first, _, rest = docker.read_text().partition("\n")
        refuses = f"""
if [ "$1" = run ] && [ -n "$EDGE" ] && [ -e {self.root}/refuses ]; then
  echo 'nginx: [emerg] no' >&2; exit 1
fi
"""
        program(docker, first + refuses + rest)

    def call_as(self, host: str, *words: str) -> None:
        """Call the agent of a host."""
        path = f"{self.root}/bin:{os.environ['PATH']}"
        words = (str(self.agent), *words)
        subprocess.run(words, env={**os.environ, "EDGE": host, "PATH": path}, check=True)

    def of(self, data: str) -> State:
        found = State.load(self.root / data / "swap/state.json")
        assert found is not None
        return found

    def both(self) -> tuple[State, State]:
        return self.of("data"), self.of("data-2")

    def upgrade(self, *checks: dict[str, Any]) -> tuple[int, str]:
        """Run the switch of an upgrade, with these checks after it.

        Without app hosts, the smoke test has no requests.
        """
        paper = {"swap_planned": PLANNED, "swap_smoke_requests": [], "site_smoke_key": "k" * 40}
        switch = {**role("switch", swap_app_there=[]), "when": "swap_has_edge"}
        work: dict[str, Any] = {
            "name": "The upgrade",
            "block": [switch, *checks],
            "rescue": [{**role("abort"), "any_errors_fatal": False}],
            "vars": paper,
        }
        return self.play(role("look"), role("lock", swap_verb="upgrade"), work, role("unlock"))


@pytest.fixture
def desk(tmp_path: Path) -> Edges:
    made = Edges(tmp_path)
    for data, host in (("data", ""), ("data-2", "edge-2")):
        state = State("blue", None, "1.0.0", 1, 5, "2026-01-01T00:00:00Z")
        words = json.dumps({"state": vars(state), "drained": {}})
        made.call_as(host, "adopt", "--record", words)
        assert made.of(data).generation == 5
    return made


@pytest.mark.slow
def test_one_edge_whose_nginx_refuses_keeps_both_as_they_are(desk: Edges) -> None:
    (desk.root / "refuses").touch()
    code, said = desk.upgrade()
    assert code != 0
    assert "Nginx rejects the new configuration: nginx: [emerg] no" in said
    assert "desk still serves 1.0.0 (blue). No cleanup is needed." in said
    assert [(one.active, one.generation) for one in desk.both()] == [("blue", 5)] * 2
    assert ("switch", "intent") not in [record[1:] for record in desk.journal()]


@pytest.mark.slow
def test_a_run_killed_between_the_edges_is_finished_by_the_next(desk: Edges) -> None:
    """Only the lead has switched; then a gate after the switch fails, and both are undone."""
    desk.call_as("", "lock", "--run", OTHER, "--owner", "bob", "--verb", "upgrade", "--data", TO)
    words = ("--to", "green", "--release", "1.1.0", "--serial", "2")
    desk.call_as("", "switch", "--run", OTHER, *words, "--generation", "6")
    desk.call_as("", "unlock", "--run", OTHER, "--failed", "killed")
    assert [one.active for one in desk.both()] == ["green", "blue"]
    code, said = desk.upgrade()
    assert code == 0, said
    lead, peer = desk.both()
    assert lead == peer
    assert (peer.active, peer.standby, peer.generation, peer.release) == (
        "green",
        "blue",
        6,
        "1.1.0",
    )


@pytest.mark.slow
def test_a_gate_that_fails_after_the_switch_undoes_it_on_both(desk: Edges) -> None:
    gate = {"name": "Gate", "ansible.builtin.fail": {"msg": "the gate failed"}}
    code, said = desk.upgrade(gate)
    assert code != 0
    assert "still serves 1.0.0 (blue)" in said
    lead, peer = desk.both()
    assert lead == peer
    assert (peer.active, peer.generation) == ("blue", 7), "generation 6 was the switch"


@pytest.mark.slow
def test_a_new_edge_serves_what_the_site_serves(desk: Edges) -> None:
    """Green is active with 1.1.0, blue is standby: a first installation would serve blue."""
    lead = State("green", "blue", "1.1.0", 2, 9, "2026-01-01T00:00:00Z", "1.0.0", 1, "2027")
    desk.call_as("", "adopt", "--record", json.dumps({"state": vars(lead), "drained": {}}))
    shutil.rmtree(desk.root / "data-2")
    shutil.rmtree(desk.root / "edge-2/trees")
    (desk.root / "edge-2/live").unlink()
    new = role("peers")
    none = {"ansible.builtin.assert": {"that": "swap_peers == [] and swap_silent_peers == []"}}
    code, said = desk.play(new, {"name": "New", **none}, role("edges_apply"))
    assert code == 0, said
    assert desk.both() == (lead, lead), "no new number: nothing differs on the lead"
    # A second run changes nothing. If an edge's configuration differs, all get a new number.
    code, said = desk.play(role("edges_apply"))
    assert (code, desk.both()) == (0, (lead, lead)), said
    (desk.root / "edge-2/desired/upstreams/green-blue.conf").write_text("# changed\n")
    code, said = desk.play(role("edges_apply"))
    assert code == 0, said
    assert [one.generation for one in desk.both()] == [10, 10]


@pytest.mark.slow
def test_a_drained_host_gets_no_requests_from_any_edge(
    desk: Edges, services: list[Service]
) -> None:
    port = services[0].server_address[1]
    lines = f"    server 127.0.0.1:{port}; # app-1\n    server 127.0.0.1:9; # app-2\n"
    block = f"upstream app {{\n{lines}}}\n"
    for number, host in (("", ""), ("-2", "edge-2")):
        (desk.root / f"edge{number}/desired/upstreams/blue.conf").write_text(block)
        state = State("blue", None, "1.1.0", 2, 6, "2026-01-01T00:00:00Z")
        desk.call_as(host, "adopt", "--record", json.dumps({"state": vars(state), "drained": {}}))
    drain = role("drain_out", swap_drain="app-2")
    lock = role("lock", swap_verb="drain", swap_run_data={"host": "app-2"})
    code, said = desk.play(role("look"), lock, drain, role("unlock"))
    assert code == 0, said
    for data, number in (("data", ""), ("data-2", "-2")):
        assert list(json.loads((desk.root / data / "swap/drained.json").read_text())) == ["app-2"]
        live = (desk.root / f"edge{number}/live/upstream.conf").read_text()
        assert "# drained: server 127.0.0.1:9; # app-2" in live
    assert [one.generation for one in desk.both()] == [7, 7]


@pytest.mark.slow
def test_what_the_role_writes_for_each_edge(desk: Edges) -> None:
    """Agents' settings name the other edges; both offer their state to the same addresses."""
    of_edge = {"ansible.builtin.import_role": {"name": "edge", "tasks_from": "state"}}
    path = "site_release_dir ~ '/roles/edge/templates/status.conf.j2'"
    status = f"{{{{ lookup('ansible.builtin.template', {path}) }}}}"
    texts = {"settings.json": "{{ edge_agent_settings.content }}", "status.conf": status}
    writes = [
        {
            "name": name,
            "ansible.builtin.copy": {
                "content": text,
                "dest": f"{desk.root}/{{{{ inventory_hostname }}}}-{name}",
                "mode": "0644",
            },
            "vars": {"site_images": {"nginx": "sha256:n"}},
        }
        for name, text in texts.items()
    ]
    address = json.dumps({"site_address": "10.0.0.{{ inventory_hostname[-1] }}"})
    code, said = desk.play({"name": "Edge", **of_edge}, *writes, options=["-e", address])
    assert code == 0, said
    first, second = (
        Settings.load(desk.root / f"{host}-settings.json") for host in ("edge-1", "edge-2")
    )
    assert (first.name, first.lead, first.edges) == (
        "edge-1",
        "edge-1",
        {"edge-2": "10.0.0.2:8080"},
    )
    assert (second.name, second.lead, second.edges) == (
        "edge-2", "edge-1", {"edge-1": "10.0.0.1:8080"},
    )  # fmt: skip
    one, two = ((desk.root / f"{host}-status.conf").read_text() for host in ("edge-1", "edge-2"))
    assert one == two, "edges compare their configurations"
    offered = one.partition("location = /_swap/edge {")[2].partition("}")[0]
    assert [line.strip() for line in offered.splitlines() if "allow" in line or "deny" in line] == [
        "allow 10.0.0.1;", "allow 10.0.0.2;", "deny all;",
    ]  # fmt: skip
