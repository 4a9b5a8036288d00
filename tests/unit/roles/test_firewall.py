"""The rules of one host, made from the flow table, and their installation on the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from tests.unit.roles.conftest import ROLES, plugin

firewall = plugin("firewall/filter_plugins/firewall.py")
table = plugin("firewall/library/nft_table.py")
tools = plugin("site/module_utils/host_tools.py")
PORTS = {"ssh": 22, "https": 443, "app": 8001, "postgres": 5432, "metrics": 9100}
ZONES = {
    "dmz": ["10.0.1.1"],
    "app": ["10.0.2.1", "10.0.2.2"],
    "data": ["10.0.3.1"],
    "monitor": ["10.0.4.1"],
}
FLOWS = [
    {"name": "ssh", "from": "mgmt", "to": "all", "ports": ["ssh"]},
    {"name": "clients", "from": "any", "to": "dmz", "ports": ["https"]},
    {"name": "edge", "from": "dmz", "to": "app", "ports": ["app"]},
    {"name": "database", "from": "app", "to": "data", "ports": ["postgres"]},
    {"name": "exporter", "from": "self", "to": "data", "ports": ["postgres"]},
    {"name": "metrics", "from": "monitor", "to": "all", "ports": ["metrics"]},
]


def rules(zones: list[str], address: str, **changes: Any) -> list[dict[str, Any]]:
    arguments = {
        "host_zones": zones,
        "address": address,
        "zone_addresses": ZONES,
        "ports": PORTS,
        "mgmt": ["10.0.0.5/32"],
        "clients": ["0.0.0.0/0"],
        **changes,
    }
    result: list[dict[str, Any]] = firewall.firewall_rules(FLOWS, **arguments)
    return result


def brief(found: list[dict[str, Any]], direction: str) -> dict[str, tuple[Any, ...]]:
    return {
        rule["name"]: (rule["addresses"], rule["ports"], rule["containers"])
        for rule in found
        if rule["direction"] == direction
    }


def test_data_host_lets_in_the_application_and_opens_nothing() -> None:
    found = rules(["data"], "10.0.3.1")
    assert brief(found, "in") == {
        "ssh": (["10.0.0.5/32"], [22], False),
        "database": (["10.0.2.1/32", "10.0.2.2/32"], [5432], False),
        "exporter": ([], [5432], True),
        "metrics": (["10.0.4.1/32"], [9100], False),
    }
    assert brief(found, "out") == {}


def test_app_host_reaches_data_and_nothing_else() -> None:
    found = rules(["app"], "10.0.2.1")
    assert brief(found, "out") == {"database": (["10.0.3.1/32"], [5432], False)}
    assert brief(found, "in")["edge"] == (["10.0.1.1/32"], [8001], False)


def test_monitor_scrapes_itself_through_its_own_port() -> None:
    found = rules(["monitor"], "10.0.4.1")
    assert brief(found, "in")["metrics"] == ([], [9100], True)
    others = ["10.0.1.1/32", "10.0.2.1/32", "10.0.2.2/32", "10.0.3.1/32"]
    assert brief(found, "out") == {
        "metrics": (firewall._networks([one[:-3] for one in others], ""), [9100], False)
    }


def test_all_zones_on_one_host() -> None:
    one = {zone: ["10.0.9.9"] for zone in ZONES}
    found = rules(list(ZONES), "10.0.9.9", zone_addresses=one)
    assert brief(found, "out") == {}
    assert brief(found, "in")["database"] == ([], [5432], True)


VRRP = {"name": "vrrp", "from": "dmz", "to": "dmz", "protocol": "vrrp", "ports": []}
TWO_EDGES = {**ZONES, "dmz": ["10.0.1.1", "10.0.1.2"]}


def with_vrrp(zones: list[str], address: str, edges: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return only the rules about the shared address."""
    found = firewall.firewall_rules(
        [*FLOWS, VRRP],
        host_zones=zones,
        address=address,
        zone_addresses=edges,
        ports=PORTS,
        mgmt=["10.0.0.5/32"],
        clients=["0.0.0.0/0"],
    )
    return [rule for rule in found if rule["name"] == "vrrp"]


def test_edges_hear_each_other_by_a_protocol_without_ports() -> None:
    both = with_vrrp(["dmz"], "10.0.1.1", TWO_EDGES)
    assert [(rule["direction"], rule["addresses"]) for rule in both] == [
        ("in", ["10.0.1.2/32"]),
        ("out", ["10.0.1.2/32"]),
    ]
    for rule in both:
        # Use the number: nft knows the name only if the host has /etc/protocols.
        assert (rule["protocol"], rule["ports"], rule["containers"]) == (112, [], False)


def test_nobody_else_speaks_it_and_one_edge_has_nobody_to_speak_to() -> None:
    assert with_vrrp(["app"], "10.0.2.1", TWO_EDGES) == []
    assert with_vrrp(["dmz"], "10.0.1.1", ZONES) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "gre"}, "protocol gre is not known"),
        ({"ports": ["ssh"]}, "no ports with vrrp"),
        ({"protocol": "tcp"}, "a port with tcp"),
    ],
)
def test_a_protocol_that_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        firewall.firewall_rules(
            [{**VRRP, **change}],
            host_zones=["dmz"],
            address="10.0.1.1",
            zone_addresses=TWO_EDGES,
            ports=PORTS,
            mgmt=[],
            clients=[],
        )


def test_adjacent_addresses_become_one_network_without_overlap() -> None:
    assert firewall._networks(["10.0.0.1", "10.0.0.0", "10.0.0.0/31"], "x") == ["10.0.0.0/31"]


def test_a_name_is_no_address() -> None:
    with pytest.raises(AnsibleFilterError, match="set site_address"):
        rules(["data"], "10.0.3.1", zone_addresses={**ZONES, "app": ["app-1.example"]})


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ({"name": "x", "from": "dmz", "to": "moon", "ports": ["ssh"]}, "moon is not in site_zones"),
        ({"name": "x", "from": "dmz", "to": "app", "ports": ["sssh"]}, "sssh not in site_ports"),
    ],
)
def test_unknown_names_are_refused(flow: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        firewall.firewall_rules(
            [flow],
            host_zones=["dmz"],
            address="10.0.1.1",
            zone_addresses=ZONES,
            ports=PORTS,
            mgmt=[],
            clients=[],
        )


def test_outside_flows_concern_their_zone_only() -> None:
    flows = [
        {
            "name": "time",
            "zone": "all",
            "direction": "out",
            "addresses": ["10.9.9.9"],
            "protocol": "udp",
            "ports": [123],
        },
        {
            "name": "mail",
            "zone": "monitor",
            "direction": "out",
            "addresses": ["10.9.9.8/32"],
            "protocol": "tcp",
            "ports": [25],
        },
    ]
    assert [rule["name"] for rule in firewall.firewall_outside_rules(flows, ["data"])] == ["time"]
    both = firewall.firewall_outside_rules(flows, ["monitor"])
    assert [(rule["protocol"], rule["addresses"]) for rule in both] == [
        ("udp", ["10.9.9.9/32"]),
        ("tcp", ["10.9.9.8/32"]),
    ]


def test_covers() -> None:
    assert table.covers(["10.0.0.0/24"], "10.0.0.7")
    assert not table.covers(["10.0.0.0/24"], "10.0.1.7")
    assert not table.covers(["10.0.0.0/24"], "2001:db8::1")


# ---------------------------------------------------------------- the address of the jump host
def test_the_connection_is_known_where_sudo_passed_no_environment_on() -> None:
    """With sudo, the login shell has the environment, but the program that root runs does not."""
    code = f"""if True:
        import os, sys
        sys.path.insert(0, {str(ROLES / "site/module_utils")!r})
        import host_tools
        assert "SSH_CONNECTION" not in os.environ
        print(host_tools.login_address())
    """
    (environment := os.environ.copy()).pop("SSH_CONNECTION", None)
    shell = ["sh", "-c", '(env --ignore-environment "$@"; exit $?); exit $?', "sh", sys.executable]
    for connection in ("172.26.2.1 50000 172.26.2.10 22", "2001:db8::7 50000 2001:db8::9 22"):
        done = subprocess.run(
            [*shell, "-c", code],
            env=environment | {"SSH_CONNECTION": connection},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == connection.split()[0]


def process(proc: Path, pid: int, parent: int, environment: bytes | None) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} (a ) b) S {parent} 1 1 0")
    if environment is not None:
        (proc / str(pid) / "environ").write_bytes(environment)


def test_no_connection_of_ssh_is_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "PROC", tmp_path)
    process(tmp_path, 9, 8, b"PATH=/bin\0")
    process(tmp_path, 8, 1, None)
    assert tools.login_address(9) == ""
    process(tmp_path, 12, 11, b"")
    assert tools.login_address(12) == "", "the parent process ended meanwhile"
    process(tmp_path, 11, 9, b"A=1\0SSH_CONNECTION=10.0.0.5 1 10.0.1.1 22\0B=2\0")
    assert tools.login_address(12) == "10.0.0.5"


# ---------------------------------------------------------------- the table on a host
SYSTEMCTL = """case "$1" in
  is-*) [ -e "$here/$1" ] ;;
  enable) touch "$here/is-enabled" ;;
  start) touch "$here/is-active" ;;
  disable) rm -f "$here/is-enabled" "$here/is-active" ;;
esac
"""


class Host:
    """A host with the kernel's table in a file and systemd's state in others."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.kernel = folder, folder / "kernel"
        # A stand-in that loads a file, and lists what was loaded.
        self.program(
            "nft",
            f"""case "$1" in
              --check) grep -q bad "$3" && {{ echo "bad rule" >&2; exit 1; }}; exit 0 ;;
              --file) cp "$2" {self.kernel} ;;
              *) cat {self.kernel} ;;
            esac""",
        )
        self.program("systemctl", f'echo "$@" >> "$here/calls"\n{SYSTEMCTL}')
        self.program("systemd-run", 'echo "undo $@" >> "$here/calls"')
        self.path = folder / "etc/firewall.nft"
        self.unit = folder / "systemd/airlift-firewall.service"

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nhere=$(dirname "$0")\n{text}\n')
        path.chmod(0o755)

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def do(
        self, state: str, content: str = "rules", *, check: bool = False, unit: str = "[Unit]"
    ) -> dict[str, Any]:
        given: dict[str, Any] = {}
        given |= {"host": "app-1", "allowed": ["10.0.0.0/24"], "family": "inet", "table": "airlift"}
        given |= {"path": str(self.path), "unit": str(self.unit), "confirm_seconds": 60}
        module = SimpleNamespace(
            params={**given, "content": content, "unit_content": unit},
            check_mode=check,
            run_command=self.run_command,
        )
        found: dict[str, Any] = getattr(table.Table(module), state)()
        return found

    def calls(self) -> list[str]:
        """Return the calls since the last query."""
        path = self.folder / "calls"
        said = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in said if not line.startswith("is-")]

    def installed(self) -> Host:
        self.do("loaded")
        self.do("confirmed")
        self.calls()
        return self


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(table, "login_address", lambda: "10.0.0.5")
    return Host(tmp_path)


def test_the_unit_follows_what_is_confirmed(host: Host) -> None:
    """A start of the host must not load rules that could lock the jump host out."""
    found = host.do("loaded")
    assert (found["changes"], found["unconfirmed"]) == (["the rules changed"], True)
    assert host.kernel.read_text() == "rules"
    assert [call.split()[0] for call in host.calls()] == ["stop", "undo"]
    assert not host.unit.exists()
    found = host.do("confirmed")
    name = host.unit.name
    assert host.calls() == [
        "stop airlift-firewall-undo.timer",
        *("daemon-reload", f"enable {name}", f"start {name}"),
    ]
    assert host.unit.stat().st_mode & 0o777 == 0o644
    assert host.path.stat().st_mode & 0o777 == 0o600


def test_nothing_to_do_does_nothing(host: Host) -> None:
    found = host.installed().do("loaded")
    assert (found["changes"], found["unconfirmed"], found["diff"]) == ([], False, [])
    assert host.calls() == []


@pytest.mark.parametrize("check", [True, False])
def test_each_difference_is_told_and_mended(check: bool, host: Host) -> None:
    name = host.installed().unit.name
    (host.folder / "is-enabled").unlink()
    assert host.do("loaded", check=check)["changes"] == [f"{name}: not enabled"]
    assert host.calls() == ([] if check else [f"enable {name}"])
    (host.folder / "is-enabled").touch()
    (host.folder / "is-active").unlink()
    assert host.do("loaded", check=check)["changes"] == [f"{name}: not active"]
    (host.folder / "is-active").touch()
    assert host.do("loaded", unit="other", check=check)["changes"] == [f"{name}: other content"]
    host.unit.write_text("[Unit]")
    host.unit.chmod(0o666)
    assert host.do("loaded", check=check)["changes"] == [f"{name}: other content"]
    host.unit.chmod(0o644)
    host.kernel.write_text("more")
    found = host.do("loaded", check=check)
    assert found["changes"] == ["the kernel holds other rules than the file"]
    assert host.kernel.read_text() == ("more" if check else "rules")


def test_a_rehearsal_on_an_empty_host_tells_all_of_it(host: Host) -> None:
    name = host.unit.name
    found = host.do("loaded", check=True)
    assert found["changes"] == [
        "the rules changed",
        *(f"{name}: {deed}" for deed in ("other content", "not enabled", "not active")),
    ]
    assert [one["after"] for one in found["diff"]] == ["rules", "[Unit]"]
    assert not host.path.exists()
    assert not host.unit.exists()
    assert host.calls() == []


def test_rules_that_lock_the_jump_host_out_change_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "login_address", lambda: "10.9.9.9")
    with pytest.raises(table.RefusedError, match=r"app-1 sees .* Add 10\.9\.9\.9/32 to site_mgmt"):
        host.do("loaded")
    assert host.calls() == []
    monkeypatch.setattr(table, "login_address", lambda: "")
    host.do("loaded")


def test_rules_that_the_kernel_refuses_change_nothing(host: Host) -> None:
    host.installed()
    with pytest.raises(table.RefusedError, match="bad rule"):
        host.do("loaded", "bad")
    assert (host.path.read_text(), host.calls()) == ("rules", [])


def test_what_nobody_confirmed_in_time_is_not_kept(host: Host) -> None:
    host.installed().do("loaded", "other")
    host.path.write_text("rules")
    with pytest.raises(table.RefusedError, match="no new SSH connection came"):
        host.do("confirmed", "other")


def test_all_of_it_is_removed(host: Host) -> None:
    name = host.installed().unit.name
    assert len(host.do("absent", check=True)["changes"]) == 4
    assert host.calls() == []
    host.do("absent")
    assert host.calls() == [f"disable --now {name}", "daemon-reload"]
    assert not list(host.path.parent.iterdir())
    assert host.do("absent")["changes"] == []


# ---------------------------------------------------------------- the unit
def test_the_unit_follows_the_one_that_flushes() -> None:
    """Debian's nftables.service flushes every table at its start, restart and reload."""
    text = (ROLES / "firewall/templates/airlift-firewall.service.j2").read_text()
    unit = dict(line.split("=", 1) for line in text.splitlines() if "=" in line[:40])
    for key in ("After", "PartOf", "ReloadPropagatedFrom"):
        assert unit[key] == "nftables.service"
