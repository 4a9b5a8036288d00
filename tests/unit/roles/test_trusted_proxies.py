"""The service trusts X-Forwarded-For only from Nginx, wherever it runs."""

from __future__ import annotations

import json

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from app.settings import Settings
from tests.unit.roles.conftest import load

EDGES = {"edge-1": "10.0.1.10", "edge-2": "10.0.1.11"}
SUBNET = load("site", "defaults/main.yml")["site_container_subnet"]


def trusted(zones: list[str], edges: list[str]) -> list[str]:
    """Return the trusted proxies of a service on a host in these zones."""
    context = {
        "site_zones": {"dmz": "dmz"},
        "groups": {"dmz": edges},
        "site_host_addresses": {**EDGES, "app-1": "10.0.2.11"},
        "site_host_zones": zones,
        "site_container_subnet": SUBNET,
    }
    template = load("app", "vars/main.yml")["app_web_environment"]["TRUSTED_PROXIES"]
    templar = Templar(loader=DataLoader(), variables=context)
    found: list[str] = json.loads(templar.template(trust_as_template(template)))
    return found


@pytest.mark.parametrize("edges", [["edge-1"], ["edge-1", "edge-2"]])
def test_an_app_host_trusts_the_edges_and_none_of_its_own_containers(edges: list[str]) -> None:
    assert trusted(["app"], edges) == [EDGES[edge] for edge in edges]


def test_an_edge_on_the_same_host_comes_from_the_containers_network() -> None:
    found = trusted(["dmz", "app", "data", "monitor"], ["edge-1"])
    assert found == [EDGES["edge-1"], SUBNET]
    assert Settings(trusted_proxies=found).trusted_proxies == found
