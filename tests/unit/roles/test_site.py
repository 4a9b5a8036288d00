"""The table of flows, and the values that a site derives."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import context
from ansible.parsing.vault import VaultLib, VaultSecret

from tests.unit.roles.conftest import ROLES, load, plugin

SITE: dict[str, Any] = load("site", "defaults/main.yml")
site = plugin("site/filter_plugins/site.py")


@pytest.mark.parametrize("flow", SITE["site_flows"], ids=lambda flow: flow["name"])
def test_flow_names_known_zones_and_ports(flow: dict[str, Any]) -> None:
    assert flow["from"] in {*SITE["site_zones"], "mgmt", "any", "self"}
    assert flow["to"] in {*SITE["site_zones"], "all"}
    assert bool(flow["ports"]) != ("protocol" in flow)
    assert set(flow["ports"]) <= set(SITE["site_ports"])


def test_flows_have_names_of_their_own() -> None:
    names = [flow["name"] for flow in SITE["site_flows"]]
    assert len(names) == len(set(names))


def test_only_jump_hosts_reach_ssh() -> None:
    assert [flow["from"] for flow in SITE["site_flows"] if "ssh" in flow["ports"]] == ["mgmt"]


def test_only_the_application_reaches_data() -> None:
    sources = {
        flow["from"]
        for flow in SITE["site_flows"]
        if {"postgres", "redis"} & set(flow["ports"]) and flow["from"] != "self"
    }
    assert sources == {"app"}


def test_ports_are_different() -> None:
    assert len(set(SITE["site_ports"].values())) == len(SITE["site_ports"])


def test_components_and_zones_are_those_of_the_image_lock() -> None:
    lock = yaml.safe_load((ROLES.parent / "bundle/images.lock.yml").read_text())
    images = lock["images"]
    zones = {
        name: sorted(entry["zones"])
        for name, entry in (images.items() if isinstance(images, dict) else ())
    }
    every = sorted(SITE["site_zones"])
    ours = {
        name: every if "all" in wanted else sorted(wanted)
        for name, wanted in SITE["site_components"].items()
    }
    assert ours == zones


def test_host_zones_follow_groups() -> None:
    assert site.site_host_zones({"dmz": "front", "app": "app"}, ["front", "x"]) == ["dmz"]


def test_addresses_prefer_the_sites_view() -> None:
    hostvars = {
        "a": {"ansible_host": "10.0.0.1"},
        "b": {"ansible_host": "jump-view", "site_address": "10.0.0.2"},
        "c": {},
    }
    groups = {"app": ["b", "a"], "data": ["c", "a"]}
    zones = {"app": "app", "data": "data", "dmz": "none"}
    assert site.site_zone_addresses(zones, groups, hostvars) == {
        "app": ["10.0.0.1", "10.0.0.2"],
        "data": ["10.0.0.1", "c"],
        "dmz": [],
    }
    assert site.site_host_addresses(zones, groups, hostvars) == {
        "a": "10.0.0.1",
        "b": "10.0.0.2",
        "c": "c",
    }


def test_image_ids_follow_the_image_store() -> None:
    components = {"app": {"manifest_digest": "sha256:m", "config_digest": "sha256:c"}}
    containerd = {
        "Driver": "overlayfs",
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
    }
    overlay2 = {"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]]}
    filters = site.FilterModule().filters()
    assert filters["site_image_store"](containerd) == "containerd"
    assert filters["site_image_store"](overlay2) == "overlay2"
    assert filters["site_image_ids"](components, "containerd") == {"app": "sha256:m"}
    assert filters["site_image_ids"](components, "overlay2") == {"app": "sha256:c"}


def test_components_of_zones() -> None:
    components = {"app": ["app"], "node-exporter": ["all"], "redis": ["data"]}
    assert site.site_components_of(components, ["app"]) == ["app", "node-exporter"]
    assert site.site_components_of(components, []) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"vault_ids": ("acme@prompt",)}, " --vault-id=acme@prompt"),
        ({"vault_password_files": ("/a b",)}, " '--vault-password-file=/a b'"),
        ({"ask_vault_pass": True}, " --ask-vault-pass"),
    ],
)
def test_a_command_to_copy_has_the_vault_options_of_the_run(
    given: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "CLIARGS", given)
    said = site.site_command("/opt/airlift/sites/acme")
    start = "./venv/bin/ansible-playbook -i /opt/airlift/sites/acme"
    assert said == f"{start}{words} playbooks/"


def test_the_command_that_moves_a_secret_into_the_vault_does_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "password").write_text("the vault's")
    (tmp_path / "smoke.key").write_text("s3cr3t" * 8 + "\n")
    monkeypatch.setattr(context, "CLIARGS", {"vault_ids": ("acme@password",)})
    command = site.site_vault_command("smoke.key", "site_smoke_api_key", "smoke.yml")
    assert "s3cr3t" not in command
    subprocess.run(["sh", "-ec", command], cwd=tmp_path, check=True, capture_output=True)
    assert "s3cr3t" not in (tmp_path / "smoke.yml").read_text()
    name, _, sealed = (tmp_path / "smoke.yml").read_text().partition(": !vault |\n")
    assert name == "site_smoke_api_key"
    vault = VaultLib([("acme", VaultSecret(b"the vault's"))])
    assert vault.decrypt("\n".join(sealed.split()).encode()) == b"s3cr3t" * 8
