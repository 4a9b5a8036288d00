"""The playbook on this machine runs every task, changes nothing and shows no secret."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.roles.conftest import ROOT, load, plugin
from tests.unit.site.statuskit import Programs

KEY = hashlib.sha256(b"a key").hexdigest()
HOST = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
SITE = {
    "site_name": "tiny",
    "site_public_name": "tiny.example",
    "site_mgmt_addresses": ["127.0.0.1/32"],
    "ansible_become": False,
    "app_api_keys": [{"client": "shop", "key_sha256": KEY.upper()}],
}
#: One host has every zone, another cannot be reached.
INVENTORY = {
    "all": {
        "vars": SITE,
        "hosts": {
            "here": {**HOST, "site_address": "127.0.0.1"},
            "away": {
                "ansible_host": "127.0.0.9",
                "ansible_port": 1,
                "ansible_ssh_common_args": "-o ConnectTimeout=1",
            },
        },
    },
    **{zone: {"hosts": {"here": None}} for zone in ("dmz", "data", "monitor")},
    "app": {"hosts": {"here": None, "away": None}},
}
COMPONENT = {"manifest_digest": "sha256:m", "config_digest": "sha256:c", "layers": []}


@pytest.fixture
def play(tmp_path: Path) -> Any:
    """Run the playbook; return its exit code and output."""
    folder = tmp_path / "bin"
    folder.mkdir()
    Programs(folder).answer("docker", "info", err="not asked", code=1)
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(INVENTORY))
    manifest = {"version": "1.0.0", "serial": 1, "components": {"app": COMPONENT}, "absent": {}}
    (tmp_path / "manifest.txt").write_text(json.dumps(manifest))

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("ansible-playbook"))]
        command += ["-i", str(tmp_path / "hosts.yml"), "playbooks/status.yml", *options]
        command += ["-e", f"site_manifest_file={tmp_path}/manifest.txt"]
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        environment["DOCKER_HOST"] = f"unix://{tmp_path}/no.sock"
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
        )

    return run


@pytest.mark.slow
def test_every_fault_is_told_and_nothing_is_changed(play: Any, tmp_path: Path) -> None:
    done = play("-vvv")
    assert done.returncode == 0, done.stdout[-2000:]
    report = json.loads((tmp_path / ".airlift/status.json").read_text())
    found = {one["found"]: one for one in report["problems"]}
    assert "away cannot be reached over SSH" in found
    engine = found["no container engine answers on here"]
    assert engine["error"] == "the container engine does not run"
    assert report["sentence"] in " ".join(done.stdout.split())
    assert "changed=0" in done.stdout
    # Even the most verbose output has no key's hash, and no smoke key is created.
    assert KEY not in done.stdout.lower()
    assert not (tmp_path / ".airlift/smoke.key").exists()


@pytest.mark.slow
def test_json_can_be_cut_out_and_a_scheduler_learns_the_verdict(play: Any, tmp_path: Path) -> None:
    done = play("-e", "status_format=json", "-e", "status_fail=true", "--limit", "here")
    assert done.returncode == 2, done.stdout[-2000:]
    printed = done.stdout[done.stdout.index("{\n") : done.stdout.index("\n}\n") + 2]
    assert json.loads(printed) == json.loads((tmp_path / ".airlift/status.json").read_text())
    assert json.loads(printed)["not_asked"] == ["away"]


def test_what_is_asked_is_in_the_flow_table() -> None:
    """The edge queries each replica of both colours; everything else is queried on its own host.

    A host omits the colours that it does not have.
    """
    defaults = load("site", "defaults/main.yml")
    ports = defaults["site_ports"]
    site = {
        "address": "192.0.2.1",
        "addresses": {"app-1": "192.0.2.2"},
        "app_hosts": ["app-1"],
        "ports": ports,
        "colours": ["green", "blue"],
        "ca": "/ca.pem",
        "verify": True,
        "shared": "",
        "exporters": load("status", "vars/main.yml")["status_exporters"],
    }
    make = plugin("status/filter_plugins/status.py").status_asks
    asked = {zone: make({**site, "zones": [zone]}) for zone in defaults["site_zones"]}
    names = {zone: [one["name"] for one in asks] for zone, asks in asked.items()}
    assert names["dmz"] == ["edge", "app-green on app-1", "app-blue on app-1", "nginx-exporter"]
    (shared,) = [
        one
        for one in make({**site, "zones": ["dmz"], "shared": "192.0.2.100"})
        if one["name"] == "shared address"
    ]
    # The flow table lets no edge query another: only the holder of the address does.
    assert shared["held"]
    assert shared["url"] == f"https://192.0.2.100:{ports['https']}/health/ready"
    assert names["app"] == ["app-green", "worker-green", "app-blue", "worker-blue"]
    for one in (ask for asks in (asked["dmz"][1:3], asked["app"]) for ask in asks):
        assert f"-{one['colour']}" in one["name"]
    assert names["data"] == ["postgres-exporter", "redis-exporter"]
    assert names["monitor"] == ["targets"]
    named = {number: name for name, number in ports.items()}
    inside = [one for asks in asked.values() for one in asks if one.get("within")]
    for one in inside[:-1]:
        port = named[int(one["url"].split(":")[2].split("/")[0])]
        assert any(
            port in flow["ports"] and (flow["from"], flow["to"]) == ("dmz", "app")
            for flow in defaults["site_flows"]
        )
