"""Render with real Ansible what the roles write for edges that share an address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.unit.roles.conftest import ROLES, ROOT

TEXTS = {
    "firewall": ("firewall", "firewall.nft.j2"),
    "keepalived": ("shared_address", "keepalived.conf.j2"),
    "unit": ("shared_address", "airlift-address.service.j2"),
}
#: Addresses of zones besides the edges.
OTHERS = {"app": "10.0.2.11", "data": "10.0.3.10", "monitor": "10.0.4.10"}


def rendered(folder: Path, edges: Mapping[str, str], **settings: Any) -> dict[str, dict[str, str]]:
    """Return by edge (name: address) its firewall table, and keepalived's file and unit."""
    site = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "site_name": "tiny",
        "site_public_name": "tiny.example",
        "site_mgmt_addresses": ["10.0.0.10/32"],
        "site_release_dir": str(ROOT),
        **settings,
    }
    hosts = {name: {"ansible_host": address} for name, address in edges.items()}
    others = {f"{zone}-1": {"ansible_host": address} for zone, address in OTHERS.items()}
    inventory = {
        "all": {"vars": site, "hosts": {**hosts, **others}},
        "dmz": {"hosts": dict.fromkeys(hosts)},
        **{zone: {"hosts": {f"{zone}-1": None}} for zone in OTHERS},
    }
    lookups = {
        name: f"{{{{ lookup('ansible.builtin.template', '{ROLES}/{role}/templates/{file}') }}}}"
        for name, (role, file) in TEXTS.items()
    }
    copy = {"dest": f"{folder}/{{{{ inventory_hostname }}}}.json", "mode": "0600"}
    files = [f"{role}/vars/main.yml" for role in ("swap_agent", "firewall", "shared_address")]
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.import_role": {"name": "site"}},
        *(
            {"ansible.builtin.include_vars": {"file": f"{ROLES}/{file}"}}
            for file in ("firewall/defaults/main.yml", *files)
        ),
        {"ansible.builtin.copy": {**copy, "content": "{{ texts | to_json }}"}},
    ]
    play = [{"hosts": "dmz", "gather_facts": False, "vars": {"texts": lookups}, "tasks": tasks}]
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (folder / "play.yml").write_text(yaml.safe_dump(play))
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", str(folder / "hosts.yml"), str(folder / "play.yml")),
        ],
        env=os.environ | {"ANSIBLE_FILTER_PLUGINS": str(ROLES / "firewall/filter_plugins")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in edges}
