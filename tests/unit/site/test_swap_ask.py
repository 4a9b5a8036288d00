"""A host that may be down is queried for a few seconds: real Ansible, on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.roles.conftest import ROLES

LOCAL = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
CLOSED = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}


def asked(folder: Path, host: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Query a host in a play whose errors are fatal; return the plugin's result."""
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {"host-1": host}}}))
    answer = folder / "answer"
    play = {
        "hosts": "all",
        "gather_facts": False,
        "any_errors_fatal": True,
        "tasks": [
            {"swap_ask": options, "register": "said"},
            {
                "ansible.builtin.copy": {"content": "{{ said | to_json }}", "dest": str(answer)},
                "delegate_to": "localhost",
                "vars": LOCAL,
            },
        ],
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    environment = {
        **os.environ,
        "HOME": str(folder),
        "ANSIBLE_ACTION_PLUGINS": str(ROLES / "swap/action_plugins"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_REMOTE_TMP": str(folder / "tmp"),
    }
    program = Path(sys.executable).with_name("ansible-playbook")
    words = [str(program), "-i", str(folder / "hosts.yml"), str(folder / "play.yml")]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def test_what_a_host_answers_is_handed_on(tmp_path: Path) -> None:
    said = asked(tmp_path, LOCAL, module="ansible.legacy.ping", seconds=20)
    assert (said["answered"], said["result"]["ping"]) == (True, "pong")


@pytest.mark.parametrize(
    ("host", "why"), [(LOCAL, "no answer within 2 s"), (CLOSED, "Connection refused")]
)
def test_one_that_does_not_answer_ends_nothing(
    tmp_path: Path, host: dict[str, Any], why: str
) -> None:
    """A frozen host keeps an open connection; one that is switched off refuses a new one."""
    words = {"argv": ["sleep", "20"]}
    said = asked(tmp_path, host, module="ansible.legacy.command", args=words, seconds=2)
    assert said["answered"] is False
    assert why in said["said"]
