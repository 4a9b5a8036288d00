"""The address that edges share: where it goes, who has it, and keepalived's file and unit."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roles.preflight.logic import shared
from tests.unit.roles.conftest import load, plugin
from tests.unit.roles.sharedkit import rendered

addresses = plugin("site/module_utils/host_addresses.py")
arp = plugin("preflight/module_utils/host_shared.py")
module = plugin("shared_address/library/shared_address.py")
filters = plugin("preflight/filter_plugins/preflight.py")
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
    """A host whose programs are of paper; a mark is a file beside them."""

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
        """Bring the address about; return what changed."""
        options = {"state": state, "host": "edge-1", "address": "10.0.1.10", "shared": SHARED}
        options |= {"interface": "", "path": str(self.path), "unit": str(self.unit)}
        options |= {"content": "on @interface@\n", "unit_content": "[Unit]\n"}
        options |= {"running": str(self.running), **given}
        made = module.Shared(SimpleNamespace(params=options, check_mode=check))
        found: list[str] = made.bring()["changes"]
        return found

    def calls(self) -> list[str]:
        """Return what was called since the last question."""
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
    assert [one.interface for one in found] == ["ens192", "ens224"], "without Ethernet: none"
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


# ---------------------------------------------------------------- what the module does
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
    (host.folder / "keepalived").unlink()
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


# ---------------------------------------------------------------- who has the address now
PLACE = addresses.Place("ens192", "10.0.1.10", 24, "00:50:56:00:00:01")


def reply(sender: str, mac: bytes, operation: int = 2) -> bytes:
    packed: bytes = arp.ARP.pack(
        *(1, 0x0800, 6, 4, operation, mac, socket.inet_aton(sender)),
        *(bytes(6), socket.inet_aton("10.0.1.10")),
    )
    return bytes(12) + b"\x08\x06" + packed + bytes(18)


def test_the_segment_is_asked_who_has_it() -> None:
    frame = arp.request(bytes.fromhex("005056000001"), "10.0.1.10", "10.0.1.100")
    # As tcpdump reads it: request who-has 10.0.1.100 tell 10.0.1.10, length 28.
    assert frame.hex() == (
        "ffffffffffff005056000001080600010800060400010050560000010a00010a0000000000000a000164"
    )


def test_only_an_answer_for_the_address_counts() -> None:
    mac = bytes.fromhex("0050560000ff")
    assert arp.answer_in(reply("10.0.1.100", mac), "10.0.1.100") == "00:50:56:00:00:ff"
    assert arp.answer_in(reply("10.0.1.101", mac), "10.0.1.100") == ""
    assert arp.answer_in(reply("10.0.1.100", mac, 1), "10.0.1.100") == "", "a question"
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
    host.path.touch()
    assert arp.look({**given, "shared": ""})["configured"], "left behind by an emptied setting"
    assert "correct site_shared_address" in arp.look({**given, "shared": "10.0.2.1/24"})["problem"]
    assert arp.look({**given, "shared": "nonsense"})["problem"]
    host.links([{**LINKS[1], "addr_info": [*LINKS[1]["addr_info"], HELD]}])
    found = arp.look(given)
    assert (found["held"], found["answered"]) == ("ens192", []), "this host would answer itself"


# ---------------------------------------------------------------- preflight's rows
SITE: dict[str, Any] = {
    "shared": SHARED,
    "router_id": 51,
    "addresses": {"edge-1": "10.0.1.10", "edge-2": "10.0.1.11", "app-1": "10.0.2.11"},
    "published": {"edge-1": shared.ANYWHERE, "edge-2": shared.ANYWHERE},
    "containers": "198.18.240.0/20",
}
FACTS: dict[str, Any] = {
    "problem": "",
    "interface": "ens192",
    "mac": "m1",
    "held": "",
    "answered": [],
    "configured": True,
    "installed": True,
}


def rows(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    made = filters.preflight_findings(found, "site")
    assert all(one["check"] == "shared address" and one["fix"] for one in made)
    return [(one["level"], one["fact"]) for one in made]


@pytest.mark.parametrize(
    ("change", "level", "fact"),
    [
        ({"shared": "10.0.1.100"}, "error", "site_shared_address 10.0.1.100"),
        ({"shared": "edge.example/24"}, "error", "site_shared_address edge.example/24"),
        ({"shared": "10.0.1.0/24"}, "error", "site_shared_address 10.0.1.0/24"),
        ({"shared": "10.0.1.255/24"}, "error", "site_shared_address 10.0.1.255/24"),
        ({"shared": "10.0.1.11/24"}, "error", "10.0.1.11 is the own address of edge-2"),
        ({"shared": "198.18.241.7/24"}, "error", "198.18.241.7 is inside 198.18.240.0/20"),
        ({"router_id": 0}, "error", "site_shared_router_id 0"),
        ({"router_id": "many"}, "error", "site_shared_router_id many"),
        (
            {"published": {"edge-1": shared.ANYWHERE}},
            "warning",
            "edge-1 is the only host in zone dmz",
        ),
        (
            {"published": {"edge-1": shared.ANYWHERE, "edge-2": "10.0.1.11"}},
            "error",
            "edge-2 publishes the ports of its containers on 10.0.1.11 only",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_a_row(change: dict[str, Any], level: str, fact: str) -> None:
    ((found_level, found_fact),) = rows(shared.of_settings({**SITE, **change}))
    assert (found_level, found_fact[: len(fact)]) == (level, fact)


def test_good_settings_and_no_shared_address_are_no_row() -> None:
    assert shared.of_settings(SITE) == []
    said = {
        "facts": FACTS,
        "packages": "/none",
        "system": {},
        "hardware": ["m1", "m2"],
        "first": True,
    }
    assert shared.of_host(SITE, said) == []
    none = {**SITE, "shared": "", "router_id": 0, "published": {}}
    assert shared.of_settings(none) == []
    assert shared.of_host(none, {**said, "facts": {**FACTS, "installed": False}}) == []


def test_another_machine_with_the_address_is_a_row_and_another_edge_is_none() -> None:
    said = {"packages": "/none", "system": {}, "hardware": ["m1", "m2"], "first": True}
    facts = {**FACTS, "answered": ["m2", "m9"]}
    found = rows(shared.of_host(SITE, {**said, "facts": facts}))
    assert found == [("error", "m9 answers for 10.0.1.100 on ens192")]
    # An edge that was not asked may be the one that answers.
    found = rows(shared.of_host(SITE, {**said, "facts": facts, "hardware": ["m2", ""]}))
    assert [level for level, _ in found] == ["warning"]
    assert rows(shared.of_host(SITE, {**said, "facts": {**FACTS, "answered": ["m2"]}})) == []


def test_a_release_without_the_package_is_a_row(tmp_path: Path) -> None:
    said: dict[str, Any] = {"packages": str(tmp_path), "hardware": ["m1"], "first": True}
    said |= {"system": {"shared_address": ["keepalived"]}, "facts": {**FACTS, "installed": False}}
    ((level, fact),) = rows(shared.of_host(SITE, said))
    assert (level, fact) == ("error", "no keepalived, and the release has no package keepalived "
                             "for it")  # fmt: skip
    (tmp_path / "Packages").write_text("Package: keepalived\nVersion: 1\n\nPackage: other\n")
    assert shared.of_host(SITE, said) == []


def test_the_first_time_the_number_is_told() -> None:
    said: dict[str, Any] = {"packages": "/none", "system": {}, "hardware": ["m1"], "first": True}
    facts = {**FACTS, "configured": False, "problem": "x is wrong: correct site_shared_address"}
    found = shared.of_host(SITE, {**said, "facts": facts})
    assert rows(found) == [("error", "x is wrong"), ("info", "site_shared_router_id is 51")]
    assert found[0]["fix"] == "correct site_shared_address"
    assert len(shared.of_host(SITE, {**said, "facts": facts, "first": False})) == 1, "once"


def test_where_it_is_published_by_default() -> None:
    assert load("container", "defaults/main.yml")["container_publish_address"] == shared.ANYWHERE
    edges = [{"inventory_hostname": "a"}, {"inventory_hostname": "b",
             "container_publish_address": "10.0.1.11"}]  # fmt: skip
    assert filters.preflight_published(edges) == {"a": shared.ANYWHERE, "b": "10.0.1.11"}


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
    for name, own, other, priority in (("edge-1", 10, 11, 200), ("edge-2", 11, 10, 199)):
        table, conf = two[name]["firewall"], two[name]["keepalived"]
        assert f"ip saddr {{ 10.0.1.{other}/32 }} meta l4proto 112 accept" in table
        assert f"ip daddr {{ 10.0.1.{other}/32 }} meta l4proto 112 accept" in table
        assert table.count("112") == 2, "not through the chain of containers"
        assert f"unicast_src_ip 10.0.1.{own}\n" in conf
        assert f"        10.0.1.{other} min_ttl 255 max_ttl 255\n    }}" in conf
        assert f"priority {priority}\n" in conf
        assert "virtual_router_id 77\n" in conf
        assert "auth" not in conf
        assert conf.count("nopreempt") == 1
    one = rendered(tmp_path, {"edge-1": "10.0.1.10"}, site_shared_address=SHARED)["edge-1"]
    assert "        127.0.0.1 min_ttl" in one["keepalived"], "without a peer it would multicast"
    assert "112" not in one["firewall"]
    none = rendered(tmp_path, {"edge-1": "10.0.1.10", "edge-2": "10.0.1.11"})
    assert "112" not in none["edge-1"]["firewall"]
