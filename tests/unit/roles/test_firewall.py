"""The rules of one host, from the flow table."""

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from tests.unit.roles.conftest import ROLES, plugin

firewall = plugin("firewall/filter_plugins/firewall.py")
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
    assert firewall.firewall_covers(["10.0.0.0/24"], "10.0.0.7")
    assert not firewall.firewall_covers(["10.0.0.0/24"], "10.0.1.7")


def test_the_unit_follows_the_one_that_flushes() -> None:
    """Debian's nftables.service flushes every table at its start, restart and reload."""
    text = (ROLES / "firewall/templates/airlift-firewall.service.j2").read_text()
    unit = dict(line.split("=", 1) for line in text.splitlines() if "=" in line[:40])
    for key in ("After", "PartOf", "ReloadPropagatedFrom"):
        assert unit[key] == "nftables.service"
