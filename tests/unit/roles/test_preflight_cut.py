"""Preflight reports connections that the firewall would end, and other firewalls."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.unit.roles.conftest import ROLES, load, plugin

filters = plugin("preflight/filter_plugins/preflight.py")
sockets = plugin("preflight/module_utils/host_sockets.py")
neighbours = plugin("preflight/module_utils/host_neighbours.py")
firewall = plugin("firewall/filter_plugins/firewall.py")
DEFAULTS = load("site", "defaults/main.yml")
ZONES = {"dmz": ["10.0.1.1"], "app": ["10.0.2.1"], "data": ["10.0.3.1"], "monitor": ["10.0.4.1"]}
SITE: dict[str, Any] = {
    "flows": DEFAULTS["site_flows"],
    "outside": [],
    "zones": ["data"],
    "address": "10.0.3.1",
    "zone_addresses": ZONES,
    "ports": DEFAULTS["site_ports"],
    "mgmt": ["10.0.0.5/32"],
    "clients": ["0.0.0.0/0"],
    "containers": "198.18.240.0/20",
    "ssh": 22,
    "client": "10.0.0.5",
}


def connection(program: str, direction: str, address: str, protocol: str, port: int) -> Any:
    return {
        "program": program,
        "direction": direction,
        "address": address,
        "protocol": protocol,
        "port": port,
    }


NTP = connection("chronyd", "out", "10.9.0.1", "udp", 123)
BACKUP = connection("bacula-fd", "in", "10.9.0.2", "tcp", 9102)


@pytest.mark.parametrize(
    "harmless",
    [
        connection("postgres", "in", "10.0.2.1", "tcp", 5432),
        connection("sshd", "in", "10.0.0.5", "tcp", 22),
        connection("docker-proxy", "out", "198.18.240.7", "tcp", 5432),
        connection("systemd-network", "out", "10.0.3.254", "udp", 67),
        connection("agent", "out", "10.0.3.1", "tcp", 8125),
    ],
    ids=lambda one: one["program"],
)
def test_what_the_firewall_lets_through_is_not_told(harmless: Any) -> None:
    assert filters.preflight_cut([harmless], SITE) == []


def test_what_it_would_cut_is_told_with_program_peer_port_and_the_setting() -> None:
    told = filters.preflight_cut([NTP, BACKUP, {**BACKUP, "address": "10.9.0.3"}, NTP], SITE)
    assert [one["fact"] for one in told] == [
        "bacula-fd serves 10.9.0.2, 10.9.0.3 (tcp 9102); the firewall will cut it",
        "chronyd connects to 10.9.0.1 (udp 123); the firewall will cut it",
    ]
    assert {one["level"] for one in told} == {"warning"}


@pytest.mark.parametrize("one", [NTP, BACKUP])
def test_the_setting_that_is_printed_lets_it_through(one: Any) -> None:
    (told,) = filters.preflight_cut([one], SITE)
    _, _, line = told["fix"].partition("site_outside_flows: ")
    flows = yaml.safe_load(line)
    assert filters.preflight_cut([one], {**SITE, "outside": flows}) == []
    spec = load("site", "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    assert set(flows[0]) == set(spec["site_outside_flows"]["options"])


def test_another_administrator_belongs_to_the_management_addresses() -> None:
    admin = connection("sshd", "in", "10.9.0.9", "tcp", 2222)
    site = {**SITE, "ssh": 2222}
    (told,) = filters.preflight_cut([admin], site)
    assert told["fix"].endswith("add 10.9.0.9/32 to site_mgmt_addresses")
    assert filters.preflight_cut([admin], {**site, "mgmt": ["10.9.0.9/32"]}) == []


def test_the_table_passes_no_ipv6() -> None:
    (told,) = filters.preflight_cut([connection("nslcd", "out", "fd00::1", "tcp", 389)], SITE)
    assert "IPv4" in told["fix"]


def test_many_peers_are_counted() -> None:
    many = [{**BACKUP, "address": f"10.9.1.{number}"} for number in range(20)]
    (told,) = filters.preflight_cut(many, SITE)
    assert "and 12 more" in told["fact"]


def test_a_wrong_flow_table_is_another_finding() -> None:
    wrong = [{"name": "x", "from": "nowhere", "to": "data", "ports": ["postgres"]}]
    assert filters.preflight_cut([NTP], {**SITE, "flows": wrong}) == []


# ---------------------------------------------------------------- the host's facts
@contextlib.contextmanager
def pair(address: str) -> Iterator[tuple[int, int]]:
    """Yield the ports of two connected sockets of this process."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        port = server.getsockname()[1]
        with socket.create_connection((address, port)) as client, server.accept()[0]:
            yield port, client.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_kernels_lines_are_understood(address: str) -> None:
    with pair(address) as (port, other):
        there = [one for one in sockets.sockets() if {one.port, one.peer_port} == {port, other}]
        assert {(one.local, one.peer, one.state) for one in there} == {(address, address, "01")}
        held = sockets.owners({one.inode for one in there})
    assert set(held.values()) == {os.getpid()}


def listed(protocol: str, local: str, peer: str, state: str, inode: str = "0") -> Any:
    (here, port), (there, other) = (one.rsplit(":", 1) for one in (local, peer))
    return sockets.Socket(protocol, here, int(port), there, int(other), state, inode)


def test_connections_with_other_hosts_only_and_by_the_port_that_is_served() -> None:
    found = sockets.connections(
        [
            listed("tcp", "0.0.0.0:9102", "0.0.0.0:0", "0A"),
            listed("tcp", "10.0.3.1:9102", "10.9.0.2:40000", "01"),
            listed("tcp", "10.0.3.1:40001", "10.9.0.4:389", "01"),
            listed("tcp", "10.0.3.1:40002", "10.9.0.5:389", "02"),
            listed("udp", "10.0.3.1:40003", "10.9.0.1:123", "01"),
            # Ended; of this host with itself; over loopback; waiting.
            listed("tcp", "10.0.3.1:40004", "10.9.0.6:389", "06"),
            listed("tcp", "10.0.3.1:40005", "10.0.3.1:9102", "01"),
            listed("tcp", "127.0.0.1:40006", "127.0.0.53:53", "01"),
            listed("udp", "0.0.0.0:68", "0.0.0.0:0", "07"),
        ]
    )
    assert [(one["direction"], one["address"], one["port"]) for one in found] == [
        ("in", "10.9.0.2", 9102),
        ("out", "10.9.0.4", 389),
        ("out", "10.9.0.5", 389),
        ("out", "10.9.0.1", 123),
    ]
    assert {one["program"] for one in found} == {"the kernel"}


def test_an_ipv4_peer_of_an_ipv6_socket_is_one() -> None:
    assert sockets.address_of("0000000000000000FFFF00000500000A") == "10.0.0.5"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a fake host: programs in a folder, and two files."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(plugin("site/module_utils/host_tools.py"), "PLACES", str(tmp_path))
    monkeypatch.setattr(sys.modules["ansible.module_utils.host_tools"], "PLACES", str(tmp_path))
    monkeypatch.setattr(neighbours, "UFW", tmp_path / "ufw.conf")
    monkeypatch.setattr(neighbours, "RESOLVERS", (tmp_path / "resolv.conf",))
    return tmp_path


def program(host: Path, name: str, script: str) -> None:
    (host / name).write_text(f"#!/bin/sh\n{script}\n")
    (host / name).chmod(0o755)


def test_a_host_with_nothing_else_on_it(host: Path) -> None:
    nothing = {"firewalls": [], "docker_is_podman": False, "podman_containers": 0}
    assert neighbours.neighbours() == nothing
    assert neighbours.needed() == []


def test_other_firewalls_and_podman_are_told(host: Path) -> None:
    program(host, "systemctl", '[ "$1 $2" = "is-active firewalld" ] && echo active')
    (host / "ufw.conf").write_text("# ufw\nENABLED=yes\nLOGLEVEL=low\n")
    program(host, "docker", "echo Emulate Docker CLI >&2; echo podman version 4.3.1")
    program(host, "podman", "echo 1a; echo 2b")
    found = {"firewalls": ["firewalld", "ufw"], "docker_is_podman": True, "podman_containers": 2}
    assert neighbours.neighbours() == found


def test_a_stopped_firewall_is_none(host: Path) -> None:
    program(host, "systemctl", "echo inactive; exit 3")
    (host / "ufw.conf").write_text("ENABLED=no\n")
    assert neighbours.neighbours()["firewalls"] == []


def test_servers_of_names_and_time_are_needed_though_nothing_is_open_now(host: Path) -> None:
    (host / "resolv.conf").write_text("search x\nnameserver 10.9.0.7\nnameserver 127.0.0.53\n")
    program(host, "chronyc", "echo '^,*,10.9.0.1,2,6,377,1,0,0,0'; echo '#,*,PPS0,0,4,377,1,0,0,0'")
    program(host, "timedatectl", "echo 10.9.0.8")
    assert [(one["program"], one["address"], one["port"]) for one in neighbours.needed()] == [
        ("name resolution", "10.9.0.7", 53),
        ("chronyd", "10.9.0.1", 123),
        ("systemd-timesyncd", "10.9.0.8", 123),
    ]


# ---------------------------------------------------------------- sudo
MINE = "type the command again with --ask-become-pass"


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("MODULE FAILURE sudo: sorry, you must have a tty to run sudo", "!requiretty"),
        ("sudo: a password is required", MINE),
        ("Missing sudo password", MINE),
        ("Incorrect sudo password", MINE),
        ("Sorry, try again. sudo: 1 incorrect password attempt", MINE),
        ("/bin/sh: 1: sudo: not found", "install sudo"),
        ("airlift-admin is not in the sudoers file.", "NOPASSWD"),
    ],
)
def test_each_refusal_of_sudo_has_its_own_advice(said: str, fix: str) -> None:
    fixes = load("preflight", "vars/main.yml")["preflight_sudo_fixes"]
    given = filters.preflight_sudo_fix(said, fixes)
    given = given.replace("{{ preflight_no_password }}", "NOPASSWD")
    assert fix in given
    assert ("requiretty" in given) == ("tty" in said)


def test_every_firewall_that_is_told_has_its_command() -> None:
    data = load("preflight", "vars/main.yml")
    source = (ROLES / "preflight/module_utils/host_neighbours.py").read_text()
    for name, command in data["preflight_firewall_ends"].items():
        assert f'["{name}"]' in source
        assert name in command


@pytest.mark.parametrize(
    ("options", "told"),
    [(None, False), (["name=apparmor", "name=seccomp"], False), (["name=selinux"], True)],
)
def test_an_engine_with_selinux_is_told_with_the_labels(options: Any, told: bool) -> None:
    """Only parsing is tested: no host with SELinux was available."""
    data, site = load("preflight", "vars/main.yml"), load("site", "defaults/main.yml")
    names = ("site_services_dir", "site_secrets_dir", "site_config_dir", "site_data_dir")
    context = {name: trust_as_template(site[name]) for name in names}
    context["preflight_security"] = trust_as_template(data["preflight_security"])
    context["preflight_labelled"] = [trust_as_template(one) for one in data["preflight_labelled"]]
    info = {"stdout": json.dumps({"SecurityOptions": options})}
    context["preflight_engine"] = {"told": info if options else {}}
    templar = Templar(loader=DataLoader(), variables=context)
    (check,) = [one for one in data["preflight_root_checks"] if one["name"] == "SELinux"]
    assert templar.template(trust_as_template(check["ok"])) is not told
    fix = templar.template(trust_as_template(check["fix"]))
    pattern = re.search(r"'(\S+)'", fix)
    assert pattern
    assert re.fullmatch(pattern[1], "/etc/airlift/secrets/app/database_password")
    assert re.fullmatch(pattern[1], "/var/lib/airlift/postgres")
    assert not re.fullmatch(pattern[1], "/etc/airlift/firewall.nft"), (
        "this file is read by systemd, not by a container"
    )
