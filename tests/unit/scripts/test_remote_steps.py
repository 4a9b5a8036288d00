"""The counter of remote steps, in real Ansible runs whose hosts are all this machine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts.lab import ROOT
from scripts.remote_steps import totals

#: A connection to this machine that Ansible does not treat as local.
NEAR = """
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = '''
name: near
short_description: this machine, as if it were another
description: as the local connection
'''


class Connection(Local):
    transport = "near"
"""
COUNTER = (ROOT / "scripts/remote_steps.py").read_text()
CALL = {"ansible.builtin.command": "true"}


def counted(folder: Path, *plays: dict[str, object]) -> dict[str, float]:
    for plugin, text in (("connection/near", NEAR), ("callback/remote_steps", COUNTER)):
        path = folder / f"{plugin}.py"
        path.parent.mkdir()
        path.write_text(text)
    (folder / "play.yml").write_text(yaml.safe_dump(list(plays)))
    hosts = {"hosts": {name: {"ansible_connection": "near"} for name in "abc"}}
    (folder / "hosts.yml").write_text(yaml.safe_dump({"site": hosts}))
    settings = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CONNECTION_PLUGINS": str(folder / "connection"),
        "ANSIBLE_CALLBACK_PLUGINS": f"{folder / 'callback'}:{ROOT / 'playbooks/callback_plugins'}",
        "ANSIBLE_CALLBACKS_ENABLED": "remote_steps",
        "ANSIBLE_REMOTE_TMP": str(folder / "remote"),
        "AIRLIFT_STEPS": str(folder / "counts"),
    }
    done = subprocess.run(
        [ROOT / ".venv/bin/ansible-playbook", "-i", "hosts.yml", "play.yml"],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in folder.glob("counts*")) == ["counts"]
    found: dict[str, float] = json.loads((folder / "counts").read_text())
    return found


@pytest.mark.slow
def test_steps_are_those_of_the_busiest_host_of_each_task(tmp_path: Path) -> None:
    play: dict[str, object] = {
        "hosts": "site",
        "gather_facts": False,
        "tasks": [
            # One step: the three hosts run in parallel.
            {"name": "All", **CALL},
            # One step of a single host.
            {"name": "One of them", **CALL, "when": "inventory_hostname == 'b'"},
            # Three steps of a single host: a loop runs one item after the other.
            {"name": "A loop", **CALL, "loop": [1, 2, 3], "when": "inventory_hostname == 'c'"},
            # No steps: these run on the controller or nowhere.
            {"name": "A fact", "ansible.builtin.set_fact": {"known": True}},
            {"name": "Here", **CALL, "delegate_to": "localhost"},
            {"name": "Skipped", **CALL, "when": False},
        ],
    }
    found = counted(tmp_path, play, {"hosts": "site", "gather_facts": False, "tasks": [CALL]})
    assert (found["steps"], found["alone"], found["calls"]) == (6, 4, 10)


def test_work_is_what_a_step_takes_beyond_the_quickest_call() -> None:
    steps = [(1, 10, 1.0), (1, 11, 1.0), (2, 12, 4.0), (2, 13, 2.0), (3, 14, 1.0), (3, 14, 2.5)]
    assert totals(steps) == {"steps": 4, "alone": 2, "calls": 6, "work": 4.5}
    assert totals([]) == {"steps": 0, "alone": 0, "calls": 0, "work": 0}
