"""A task with a secret reports problem and place, but never the secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.roles.conftest import ROLES, ROOT

SECRET = "hunter2-hunter2-hunter2"
#: Files whose results are secrets themselves.
HIDDEN = {"app/tasks/keys.yml"}


def tasks_of(found: Any) -> list[dict[str, Any]]:
    """Return the tasks of a file, including those inside blocks."""
    inner = [one for task in found for part in ("block", "rescue") for one in task.get(part) or ()]
    return [*found, *(tasks_of(inner) if inner else ())]


def test_no_reason_is_hidden_but_where_the_result_is_the_secret() -> None:
    hidden = {
        str(path.relative_to(ROLES))
        for path in ROLES.glob("*/tasks/*.yml")
        for task in tasks_of(yaml.safe_load(path.read_text()) or [])
        if "no_log" in task
    }
    assert hidden == HIDDEN


PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: tls, tasks_from: TASKS}
"""


@pytest.mark.slow
@pytest.mark.parametrize("tasks", ["deploy", "authority"])
def test_file_and_reason_without_the_secret(tasks: str, tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAY.replace("TASKS", tasks))
    (tmp_path / "host.key").write_text(f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n")
    (tmp_path / "ca.pem").write_text("public\n")
    # A file in place of a folder fails for root as for any other user.
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    given: dict[str, Any] = {
        "site_name": "acme",
        "site_public_name": "acme.example",
        "site_mgmt_addresses": ["10.0.0.1/32"],
        "site_release_dir": str(ROOT),
        "site_tls_dir": f"{blocked}/tls",
        "tls_public_files": {"ca.pem": f"{tmp_path}/ca.pem"},
        "tls_private_files": {"host.key": f"{tmp_path}/host.key"},
        "tls_dir": str(tmp_path),
        "tls_ca_key": f"{blocked}/ca.key",
        "tls_edge_problem": "",
        "tls_ca_passphrase": SECRET,
    }
    (tmp_path / "given.json").write_text(json.dumps(given))
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", "localhost,", "-c", "local", "-vvvv", "play.yml", "-e", "@given.json"),
        ],
        env=os.environ
        | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": str(ROLES),
            "ANSIBLE_REMOTE_TMP": str(tmp_path / "tmp"),
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert SECRET not in said
    assert str(blocked) in said
    assert "File exists" in said or "does not exist" in said, "the reason is missing"
    assert "censored" not in said
