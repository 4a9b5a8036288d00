"""A failed run is recorded as failed: real playbooks and agent, with roles that only fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from swap_agent import lease, runs, swap
from swap_agent.journal import Journal
from swap_agent.nginx import Edge
from swap_agent.state import Settings, State

from tests.unit.roles.conftest import ROLES, ROOT, plugin

failure = plugin("swap/filter_plugins/swap_failure.py")
PROGRAM = Path(sys.executable).with_name("ansible-playbook")
HOSTS = {"dmz": ["edge-1"], "app": ["app-1", "app-2"], "data": ["data-1"], "monitor": ["monitor-1"]}
#: Task files of each role that install.yml uses.
PARTS = {
    "container_engine": ["main"],
    "firewall": ["main"],
    "tls": ["main"],
    "images": ["main", "identify"],
    "container": ["compare"],
    "postgres": ["main", "cluster", "database"],
    "redis": ["main", "kernel"],
    "app": ["main", "database", "sources", "remove"],
    "edge": ["main", "prove", "served"],
    "shared_address": ["main"],
    "monitoring": ["main", "targets"],
}
#: All containers are due, so that every part of the playbook runs.
CONTAINERS = {f"{role}_containers": [{"name": role}] for role in PARTS}
COMPARED = {"containers": [{"name": role, "due": True} for role in PARTS]}
#: What the failing task of these roles does, on one host.
DEEDS: dict[str, list[dict[str, Any]]] = {
    "fail": [{"ansible.builtin.fail": {"msg": "Can't open\n  the append only file: 13"}}],
    "hide": [
        {"name": "Password", "ansible.builtin.command": "/no/pass {{ secret }}", "no_log": True}
    ],
    "vanish": [
        {
            "ansible.builtin.set_fact": {
                "ansible_connection": "ssh",
                "ansible_host": "127.0.0.1",
                "ansible_port": 1,
            }
        },
        {"ansible.builtin.command": "/bin/true"},
    ],
}


class Site:
    """The jump host's directory and the edge's state, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_file = folder / "swap/state.json"
        settings = {
            "root": str(folder / "edge"),
            "state_file": str(self.state_file),
            "files": [],
            "container": "x",
            "image": "x",
            "user": "0:0",
            "probe_address": "127.0.0.1",
            "probe_port": 1,
        }
        (folder / "swap.json").write_text(json.dumps(settings))
        self.edge = Edge(Settings.load(folder / "swap.json"))
        agent = folder / "airlift-swap"
        main = f"import sys; sys.path.insert(0, {str(ROLES / 'swap_agent/files')!r}); "
        main += "from swap_agent.__main__ import main; main()"
        agent.write_text(
            f'#!/bin/sh\nexec {sys.executable} -c "{main}" --settings {folder}/swap.json "$@"\n'
        )
        agent.chmod(0o755)
        for role in PARTS:
            (folder / "roles" / role / "tasks").mkdir(parents=True)
        swap = folder / "roles/swap"
        (swap / "action_plugins").mkdir(parents=True)
        for name in ("tasks", "vars", "defaults", "filter_plugins"):
            (swap / name).symlink_to(ROLES / "swap" / name)
        action = (ROLES / "swap_agent/action_plugins/swap_agent.py").read_text()
        (swap / "action_plugins/swap_agent.py").write_text(
            action.replace("/usr/local/sbin/airlift-swap", str(agent))
        )
        for part in ("guard", "state"):
            (folder / f"roles/edge/tasks/{part}.yml").symlink_to(ROLES / "edge/tasks/state.yml")
        playbooks = folder / "playbooks"
        playbooks.mkdir()
        install = (ROOT / "playbooks/install.yml").read_text()
        (playbooks / "install.yml").write_text(
            "- name: Every host" + install.split("- name: Every host")[1]
        )
        for verb in ("retire", "drain_host"):
            (playbooks / f"{verb}.yml").symlink_to(ROOT / f"playbooks/{verb}.yml")
        (folder / "inventory.yml").write_text(
            yaml.safe_dump(
                {
                    group: {"hosts": {host: {"ansible_connection": "local"} for host in hosts}}
                    for group, hosts in HOSTS.items()
                }
            )
        )

    def arm(self, place: str, deed: str, victim: str) -> None:
        """Let one host run the given task in this place, and remove all other tasks.

        Even a skipped task costs a process per host.
        """
        tasks = [{**task, "when": f"inventory_hostname == '{victim}'"} for task in DEEDS[deed]]
        for role, parts in PARTS.items():
            for part in parts:
                found = tasks if f"{role}/{part}" == place else []
                file = self.folder / "roles" / role / "tasks" / f"{part}.yml"
                file.write_text(yaml.safe_dump(found))

    def installed(self) -> Site:
        """Serve a release, so that the agent exists and runs are locked."""
        State("blue", None, "1.0.0", 1, 1, "2026-01-01T00:00:00Z").save(self.state_file)
        return self

    def play(
        self,
        verb: str = "install",
        place: str = "",
        deed: str = "fail",
        victim: str = "",
        check: bool = False,
        **more: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook in which one task fails."""
        self.arm(place, deed, victim)
        variables = {
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "site_name": "lab",
            "site_zones": {zone: zone for zone in HOSTS},
            "site_version": "1.0.0",
            "site_manifest": {"serial": 1},
            "site_release_dir": str(self.folder),
            "swap_agent_state_file": str(self.state_file),
            "edge_state_host": "edge-1",
            "edge_state": {"active": "blue"},
            "site_host_zones": "{{ group_names }}",
            "site_colours": ["blue", "green"],
            "site_host_addresses": {host: host for hosts in HOSTS.values() for host in hosts},
            "secret": "SECRET-1",
            "site_engine_known": False,
            "container_compared": COMPARED,
            **CONTAINERS,
            **more,
        }
        environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(self.folder / "roles"),
            "ANSIBLE_FILTER_PLUGINS": ":".join(
                str(ROLES / role / "filter_plugins") for role in ("site", "container", "app")
            ),
            "ANSIBLE_SSH_RETRIES": "0",
        }
        return subprocess.run(
            [
                *[str(PROGRAM), "-i", str(self.folder / "inventory.yml")],
                *[str(self.folder / f"playbooks/{verb}.yml"), "-e", json.dumps(variables)],
                *(["--check"] if check else []),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )

    def journal(self) -> list[tuple[str, str, str]]:
        """Return the runs in the edge's journal: operation, event, reason."""
        records = Journal(self.state_file.with_name("journal")).records()
        return [(r["step"], r["event"], r["data"].get("why", "")) for r in records]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


OPEN = "Can't open the append only file: 13"
HIDDEN = "Password (its message is hidden; see site_no_log)"
#: A place in each block under the lock: the host, the failing task, and the reason.
PLACES = {
    "redis/main": ("data-1", "fail", OPEN),
    "app/main": ("app-2", "hide", HIDDEN),
    "edge/prove": ("edge-1", "fail", OPEN),
}


def test_all_that_a_run_does_under_the_lock_has_the_same_rescue() -> None:
    """Then a place in each block stands for the whole block."""
    plays = yaml.safe_load((ROOT / "playbooks/install.yml").read_text())[1:]
    blocks = [task for play in plays for task in play["tasks"] if "block" in task]
    assert len(blocks) == len(plays) == len(PLACES)
    others = [task["name"] for play in plays for task in play["tasks"] if "block" not in task]
    change = "Changed settings of the service"
    # The first one changes nothing, the other has its own rescues.
    assert {*others} == {"Omit drained hosts", change}
    settings = yaml.safe_load((ROOT / "roles/swap/tasks/settings.yml").read_text())
    rescued = [one for task in settings for one in task.get("rescue", ())]
    rescues = [one["ansible.builtin.import_tasks"] for one in rescued]
    assert rescues == ["failed.yml", "abort.yml"]
    (record,) = blocks[0]["rescue"]
    assert record["ansible.builtin.import_role"] == {"name": "swap", "tasks_from": "failed"}
    assert record["tags"] == ["always"]
    for play, place in zip(plays, PLACES, strict=True):
        rescued = [task["rescue"] for task in play["tasks"] if "block" in task]
        assert rescued == [[record]], play["name"]
        assert not {"roles", "post_tasks", "handlers"} & set(play), play["name"]
        assert f"'name': '{place.partition('/')[0]}'" in str(play["tasks"])


@pytest.mark.parametrize(
    "place",
    ["redis/main", *(pytest.param(p, marks=pytest.mark.slow) for p in PLACES if p != "redis/main")],
)
def test_a_failed_install_is_noted_and_unlocked(site: Site, place: str) -> None:
    """A hidden failure is reported by the task's name."""
    victim, deed, why = PLACES[place]
    done = site.installed().play(place=place, deed=deed, victim=victim)
    assert done.returncode == 2, done.stdout + done.stderr
    assert site.journal() == [("install", "intent", ""), ("install", "failed", why)]
    assert f"install of lab failed: {why}." in " ".join(done.stdout.split())
    found = lease.held(swap.lease_file(site.edge))
    assert found is not None
    assert found.given_back()
    assert "The failure is recorded" in done.stdout
    assert "SECRET-1" not in str(site.journal()) + done.stdout + done.stderr


@pytest.mark.slow
def test_a_good_install_is_done(site: Site) -> None:
    done = site.installed().play()
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.journal() == [("install", "intent", ""), ("install", "done", "")]


@pytest.mark.slow
def test_a_host_that_goes_away(site: Site) -> None:
    done = site.installed().play(place="tls/main", deed="vanish", victim="data-1")
    assert done.returncode != 0
    assert site.journal()[-1] == ("install", "failed", "a host can no longer be reached")


@pytest.mark.slow
def test_the_edge_goes_away_itself(site: Site) -> None:
    """The edge cannot be told, so the run fails and status reports it as interrupted."""
    done = site.installed().play(place="tls/main", deed="vanish", victim="edge-1")
    assert done.returncode != 0
    assert "install of lab failed: a host can no longer be reached." in " ".join(
        done.stdout.split()
    )
    assert site.journal() == [("install", "intent", "")]


@pytest.mark.slow
def test_a_first_install_has_nothing_to_note(site: Site) -> None:
    done = site.play(place="redis/main", victim="data-1")
    assert done.returncode == 2
    assert "The failure is recorded" not in done.stdout
    assert site.journal() == []


@pytest.mark.slow
def test_a_run_that_was_refused_the_lock_notes_nothing(site: Site) -> None:
    site.installed()
    runs.begin(
        site.edge,
        run="elsewhere.1.2.3.4",
        owner="ann@other",
        verb="upgrade",
        seconds=600,
        instead_of="",
        data={},
    )
    for verb in ("install", "retire"):
        done = site.play(verb)
        assert done.returncode == 2, done.stdout
        assert "by ann@other is in progress" in " ".join(done.stdout.split())
    assert site.journal() == [("upgrade", "intent", "")]


@pytest.mark.slow
def test_a_failed_retirement_is_noted(site: Site) -> None:
    """The agent refuses, because there is no standby."""
    done = site.installed().play("retire")
    assert done.returncode == 2, done.stdout
    assert [(step, event) for step, event, _ in site.journal()] == [
        ("retire", "intent"),
        ("retire", "failed"),
    ]


# ---------------------------------------------------------------- the reason in a sentence
def said(msg: str, **more: Any) -> dict[str, Any]:
    return {"ansible_failed_result": {"msg": msg, **more}, "ansible_failed_task": {"name": "Name"}}


def test_each_reason_once_in_order() -> None:
    hosts = [said("b\n"), {}, said("a"), said("b")]
    assert failure.swap_reasons(hosts) == ["b", "a"]


def test_a_loop_tells_which_of_its_results() -> None:
    results = [{"msg": "fine"}, {"failed": True, "msg": "disk full"}]
    assert failure.swap_reasons([said("One or more items failed", results=results)]) == [
        "disk full"
    ]


def test_silence_and_secrets() -> None:
    assert failure.swap_reasons([said("")]) == ["Name failed without a message"]
    for hidden in (said("pw", _ansible_no_log=True), said("pw", censored="hidden")):
        (words,) = failure.swap_reasons([hidden])
        assert words.startswith("Name (")
        assert "pw" not in words


def test_a_sentence_is_one_line_of_bounded_length() -> None:
    assert failure.swap_sentence(" a\n  b.\n") == "a b"
    for long in ("word " * 200, "x" * 999):
        short = failure.swap_sentence(long)
        assert len(short) <= failure.SENTENCE
        assert short.endswith("…")
