"""The shared address of edges: its interface, its holder, and keepalived's file and unit."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from tests.unit.roles.conftest import load, plugin
from tests.unit.roles.sharedkit import rendered

addresses = plugin("site/module_utils/host_addresses.py")
arp = plugin("preflight/module_utils/host_shared.py")
module = plugin("shared_address/library/shared_address.py")
Refused = module.RefusedError

LINKS: list[dict[str, Any]] = [
    {"ifname": "lo", "address": "00:00:00:00:00:00", "addr_info": []},
    {
        "ifname": "ens192",
        "address": "00:50:56:00:00:01",
        "addr_info": [
            {"family": "inet", "local": "10.0.1.10", "prefixlen": 24},
            {"family": "inet6", "local": "fe80::1", "prefixlen": 64},
        ],
    },
    {"ifname": "wg0", "addr_info": [{"family": "inet", "local": "10.9.0.1", "prefixlen": 24}]},
    {
        "ifname": "ens224",
        "address": "00:50:56:00:00:02",
        "addr_info": [{"family": "inet", "local": "10.0.9.10", "prefixlen": 24}],
    },
]
HELD = {"family": "inet", "local": "10.0.1.100", "prefixlen": 32}
SHARED = "10.0.1.100/24"


class Host:
    """A host with fake programs; a mark is a file beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path, self.unit = folder / "keepalived.conf", folder / "airlift-address.service"
        self.running = folder / "running.conf"
        self.links(LINKS)
        self.program("ip", 'cat "$here/links.json"')
        self.program(
            "keepalived",
            """[ "$1" != --version ] || exit 0
            grep -q bad "$3" && { echo "($3: Line 1) Unknown keyword 'bad'" >&2; exit 5; }
            echo "test" >> "$here/calls" """,
        )
        self.program(
            "systemctl",
            """case "$1" in
              show) for one in NeedDaemonReload=no UnitFileState=disabled ActiveState=inactive; do
                  grep -h "^${one%%=*}=" "$here/state" 2>/dev/null || echo "$one"; done; exit ;;
              daemon-reload) ;;
              enable) sed -i /^UnitFileState/d "$here/state" 2>/dev/null
                  echo UnitFileState=enabled >> "$here/state" ;;
              restart|reload) [ ! -e "$here/broken" ] || { echo "it broke" >&2; exit 1; }
                  cp "$here/keepalived.conf" "$here/running.conf"
                  sed -i /^ActiveState/d "$here/state" 2>/dev/null
                  echo ActiveState=active >> "$here/state" ;;
              disable) rm -f "$here/state" ;;
            esac
            echo "$1" >> "$here/calls" """,
        )

    def links(self, links: list[dict[str, Any]]) -> None:
        (self.folder / "links.json").write_text(json.dumps(links))

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\nhere=$(dirname "$0")\n{text}\n')
        path.chmod(0o755)

    def bring(self, state: str = "present", *, check: bool = False, **given: Any) -> list[str]:
        """Run the module; return its changes."""
        options = {"state": state, "host": "edge-1", "address": "10.0.1.10", "shared": SHARED}
        options |= {"interface": "", "path": str(self.path), "unit": str(self.unit)}
        options |= {"content": "on @interface@\n", "unit_content": "[Unit]\n"}
        options |= {"running": str(self.running), **given}
        made = module.Shared(SimpleNamespace(params=options, check_mode=check))
        found: list[str] = made.bring()["changes"]
        return found

    def calls(self) -> list[str]:
        """Return the calls since the last query."""
        path = self.folder / "calls"
        said = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return said


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    return Host(tmp_path)


# ---------------------------------------------------------------- the interface
def test_the_interface_is_found_by_the_hosts_own_address(host: Host) -> None:
    found = addresses.places()
    assert [one.interface for one in found] == ["ens192", "ens224"], (
        "only Ethernet interfaces count"
    )
    assert addresses.interface_of(found, "10.0.1.10", SHARED) == "ens192"
    assert addresses.holder(found, "10.0.1.100") == ""
    held = [{**one, "addr_info": [*one["addr_info"], HELD]} for one in LINKS[1:2]]
    host.links(held)
    found = addresses.places()
    assert addresses.holder(found, "10.0.1.100") == "ens192"
    assert addresses.interface_of(found, "10.0.1.10", SHARED) == "ens192"


@pytest.mark.parametrize(
    ("own", "wanted", "given", "words"),
    [
        ("10.0.1.10", "10.0.2.100/24", "", "is not in the network of 10.0.1.10 on ens192"),
        ("10.0.1.10", "10.0.1.100/16", "", "its prefix included"),
        ("10.0.1.10", SHARED, "ens224", r"on ens224 \(10.0.9.10/24\)"),
        ("10.0.1.10", SHARED, "eth9", r"on eth9 \(no IPv4 address\)"),
        ("192.0.2.7", SHARED, "", "no interface of this host has its address 192.0.2.7"),
    ],
)
def test_an_address_that_nobody_could_reach_is_refused(
    own: str, wanted: str, given: str, words: str, host: Host
) -> None:
    with pytest.raises(Refused, match=words):
        addresses.interface_of(addresses.places(), own, wanted, given)


def test_without_the_program_ip_it_says_so(host: Host) -> None:
    host.program("ip", "echo nonsense")
    with pytest.raises(Refused, match="ip does not tell the addresses"):
        addresses.places()


# ---------------------------------------------------------------- the module
def test_a_new_edge_gets_file_unit_and_start_and_then_nothing(host: Host) -> None:
    assert host.bring() == [
        f"{host.path}: written",
        f"{host.unit}: written",
        "airlift-address.service: enabled",
        "airlift-address.service: started",
    ]
    assert host.calls() == ["test", "daemon-reload", "enable", "restart"]
    assert host.path.read_text() == "on ens192\n"
    assert host.bring() == []
    assert host.calls() == []


def test_another_configuration_is_loaded_and_nothing_restarts(host: Host) -> None:
    host.bring()
    host.calls()
    changes = host.bring(content="other @interface@\n")
    assert changes == [f"{host.path}: other content", "airlift-address.service: reloaded"]
    assert host.calls() == ["test", "reload"]


def test_a_run_that_was_killed_before_the_reload_is_completed(host: Host) -> None:
    host.bring()
    host.path.write_text("other ens192\n")
    assert host.bring(content="other @interface@\n") == ["airlift-address.service: reloaded"]


def test_another_unit_or_one_that_does_not_run_is_started_again(host: Host) -> None:
    host.bring()
    changes = host.bring(unit_content="[Unit]\n# other\n")
    assert changes[-1] == "airlift-address.service: restarted"
    (host.folder / "state").write_text("UnitFileState=enabled\nActiveState=failed\n")
    assert host.bring(unit_content="[Unit]\n# other\n") == ["airlift-address.service: started"]


def test_a_configuration_that_keepalived_refuses_is_never_put_in_place(host: Host) -> None:
    host.bring()
    with pytest.raises(Refused, match=r"keepalived.conf: Line 1\) Unknown keyword 'bad'"):
        host.bring(content="bad\n")
    assert host.path.read_text() == "on ens192\n"


def test_a_rehearsal_tells_and_changes_nothing(host: Host) -> None:
    # Not only removed: this machine may have one of its own.
    host.program("keepalived", "exit 127")
    assert host.bring(check=True)[-1] == "airlift-address.service: started"
    assert not host.path.exists()
    assert host.calls() == []
    with pytest.raises(Refused, match="edge-1 has no keepalived"):
        host.bring()


def test_a_unit_that_does_not_start_names_its_log(host: Host) -> None:
    (host.folder / "broken").touch()
    with pytest.raises(Refused, match="`journalctl -u airlift-address"):
        host.bring()


def test_an_emptied_setting_removes_everything_and_then_nothing(host: Host) -> None:
    host.bring()
    host.calls()
    assert host.bring("absent", check=True) == [f"{host.unit}: removed", f"{host.path}: removed"]
    assert host.path.exists()
    assert host.bring("absent") == [f"{host.unit}: removed", f"{host.path}: removed"]
    assert host.calls() == ["disable", "daemon-reload"]
    assert not host.path.exists()
    assert host.bring("absent") == []
    assert host.calls() == []


# ---------------------------------------------------------------- the present holder
PLACE = addresses.Place("ens192", "10.0.1.10", 24, "00:50:56:00:00:01")


def reply(sender: str, mac: bytes, operation: int = 2) -> bytes:
    packed: bytes = arp.ARP.pack(
        *(1, 0x0800, 6, 4, operation, mac, socket.inet_aton(sender)),
        *(bytes(6), socket.inet_aton("10.0.1.10")),
    )
    return bytes(12) + b"\x08\x06" + packed + bytes(18)


def test_the_segment_is_asked_who_has_it() -> None:
    frame = arp.request(bytes.fromhex("005056000001"), "10.0.1.10", "10.0.1.100")
    # tcpdump prints it as: request who-has 10.0.1.100 tell 10.0.1.10, length 28.
    assert frame.hex() == (
        "ffffffffffff005056000001080600010800060400010050560000010a00010a0000000000000a000164"
    )


def test_only_an_answer_for_the_address_counts() -> None:
    mac = bytes.fromhex("0050560000ff")
    assert arp.answer_in(reply("10.0.1.100", mac), "10.0.1.100") == "00:50:56:00:00:ff"
    assert arp.answer_in(reply("10.0.1.101", mac), "10.0.1.100") == ""
    assert arp.answer_in(reply("10.0.1.100", mac, 1), "10.0.1.100") == "", "a request is no answer"
    assert arp.answer_in(reply("10.0.1.100", mac)[:30], "10.0.1.100") == ""
    assert arp.answer_in(b"\0" * 60, "10.0.1.100") == ""


def test_what_an_edge_says_before_an_installation(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"own": "10.0.1.10", "shared": SHARED, "interface": "", "path": str(host.path)}
    monkeypatch.setattr(arp, "who_has", lambda place, _: [f"seen from {place.interface}"])
    found = arp.look(given)
    assert (found["interface"], found["mac"]) == ("ens192", "00:50:56:00:00:01")
    assert found["answered"] == ["seen from ens192"]
    assert not found["configured"]
    assert found["peers"] == []
    host.path.touch()
    assert arp.look({**given, "shared": ""})["configured"], "left behind by an emptied setting"
    host.path.write_text("  unicast_peer {\n    10.0.1.11 min_ttl 255\n    10.0.1.12\n  }\n")
    assert arp.look(given)["peers"] == ["10.0.1.11", "10.0.1.12"]
    host.path.write_text("    unicast_peer {\n        127.0.0.1 min_ttl 255\n    }\n")
    assert arp.look(given)["peers"] == [], "an edge alone speaks to itself"
    assert "correct site_shared_address" in arp.look({**given, "shared": "10.0.2.1/24"})["problem"]
    assert arp.look({**given, "shared": "nonsense"})["problem"]
    host.links([{**LINKS[1], "addr_info": [*LINKS[1]["addr_info"], HELD]}])
    found = arp.look(given)
    assert (found["held"], found["answered"]) == ("ens192", []), "this host would answer itself"


# ---------------------------------------------------------------- effects of the setting
@pytest.mark.parametrize(
    ("shared_address", "zones", "names", "packages", "flow"),
    [
        ("", ["dmz"], ["a.example", "10.0.1.10"], [], False),
        (SHARED, ["dmz"], ["a.example", "10.0.1.10", "10.0.1.100"], ["shared_address"], True),
        (SHARED, ["app"], ["a.example", "10.0.1.10", "10.0.1.100"], [], True),
    ],
)
def test_certificate_packages_and_flow_follow_from_the_setting(
    shared_address: str, zones: list[str], names: list[str], packages: list[str], *, flow: bool
) -> None:
    """Without the setting nothing changes on a site, so no certificate is issued again."""
    wanted = {
        "site_shared_ip": load("site", "vars/main.yml")["site_shared_ip"],
        "site_flows_used": load("site", "vars/main.yml")["site_flows_used"],
        "tls_edge_names": load("tls", "vars/main.yml")["tls_edge_names"],
        "container_engine_also": load("container_engine", "vars/main.yml")["container_engine_also"],
    }
    context = {
        **{name: trust_as_template(value) for name, value in wanted.items()},
        "site_shared_address": shared_address,
        "site_host_zones": zones,
        "site_public_name": "a.example",
        "site_public_aliases": [],
        "site_address": "10.0.1.10",
        "site_flows": load("site", "defaults/main.yml")["site_flows"],
    }
    templar = Templar(loader=DataLoader(), variables=context)
    found = {name: templar.template(trust_as_template(f"{{{{ {name} }}}}")) for name in wanted}
    assert list(found["tls_edge_names"]) == names
    assert list(found["container_engine_also"]) == packages
    assert any("protocol" in one for one in found["site_flows_used"]) is flow


# ---------------------------------------------------------------- the rendered files
@pytest.mark.slow
def test_only_edges_that_share_an_address_have_its_flow_and_they_name_each_other(
    tmp_path: Path,
) -> None:
    two = rendered(
        tmp_path,
        {"edge-1": "10.0.1.10", "edge-2": "10.0.1.11"},
        site_shared_address=SHARED,
        site_shared_router_id=77,
    )
    for name, own, other in (("edge-1", 10, 11), ("edge-2", 11, 10)):
        table, conf = two[name]["firewall"], two[name]["keepalived"]
        assert f"ip saddr {{ 10.0.1.{other}/32 }} meta l4proto 112 accept" in table
        assert f"ip daddr {{ 10.0.1.{other}/32 }} meta l4proto 112 accept" in table
        assert table.count("112") == 2, "not through the chain of containers"
        assert f"unicast_src_ip 10.0.1.{own}\n" in conf
        assert f"        10.0.1.{other} min_ttl 255 max_ttl 255\n    }}" in conf
        (tmp_path / "conf").write_text(conf)
        assert arp.peers_of(tmp_path / "conf") == [f"10.0.1.{other}"]
        assert "virtual_router_id 77\n" in conf
        assert "auth" not in conf
    one = rendered(tmp_path, {"edge-1": "10.0.1.10"}, site_shared_address=SHARED)["edge-1"]
    assert "        127.0.0.1 min_ttl" in one["keepalived"], "without a peer it would multicast"
    assert "112" not in one["firewall"]
    none = rendered(tmp_path, {"edge-1": "10.0.1.10", "edge-2": "10.0.1.11"})
    assert "112" not in none["edge-1"]["firewall"]


def priority(conf: str, *, fit: bool, holds: bool) -> int:
    """Return the priority of an edge, as keepalived adds it up."""
    found = re.search(r"^ +priority (\d+)$", conf, re.MULTILINE)
    assert found
    tracked = re.search(r"track_script \{(.*?)\}", conf, re.DOTALL)
    assert tracked
    weights = dict(re.findall(r"^vrrp_script (\w+) \{.*?weight (\d+)$.*?^\}", conf, re.M | re.S))
    assert set(weights) == set(tracked[1].split()), "one without a weight would be a fault"
    assert 0 not in map(int, weights.values()), "that is a fault, too"
    there = {"fit": fit, "holds": holds}
    return int(found[1]) + sum(int(one) for name, one in weights.items() if there[name])


@pytest.mark.slow
def test_who_gets_the_address_follows_from_the_priorities(tmp_path: Path) -> None:
    """keepalived takes it from a lower priority only, and from an equal one never."""
    names = {f"edge-{one}": f"10.0.1.{10 + one}" for one in range(1, 5)}
    files = rendered(tmp_path, names, site_shared_address=SHARED)
    confs = [files[name]["keepalived"] for name in names]
    for first, one in enumerate(confs):
        # A flag of its own would keep the address at an edge that runs and cannot serve.
        assert not re.search("^ *nopreempt", one, re.MULTILINE)
        assert priority(one, fit=True, holds=True) < 255, "255 is another protocol"
        for second, other in enumerate(confs):
            if first == second:
                continue
            held = {fit: priority(one, fit=fit, holds=True) for fit in (True, False)}
            wants = {fit: priority(other, fit=fit, holds=False) for fit in (True, False)}
            assert wants[True] > held[False], "a fit edge takes it from one that is not"
            assert wants[True] <= held[True], "an edge that returns leaves it where it is"
            assert wants[False] <= held[False], "also while none is fit, and one still has it"
            # One that was frozen and continues: two hold it, both as far as they know fit.
            if first < second:
                assert held[True] > priority(other, fit=True, holds=True), "the lead keeps it"
