"""Preflight's findings about the address that edges share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roles.preflight.logic import shared
from tests.unit.roles.conftest import load, plugin

filters = plugin("preflight/filter_plugins/preflight.py")
SHARED = "10.0.1.100/24"
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
    "peers": ["10.0.1.11"],
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
    # An edge that was not queried may be the one that answers.
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
    assert len(shared.of_host(SITE, {**said, "facts": facts, "first": False})) == 1, "reported once"


def test_an_edge_that_leaves_the_inventory_is_told_to_let_the_address_go() -> None:
    said: dict[str, Any] = {"packages": "/none", "system": {}, "hardware": ["m1"], "first": True}
    said["facts"] = {**FACTS, "peers": ["10.0.1.11", "10.0.1.12"]}
    found = shared.of_host(SITE, said)
    assert rows(found) == [("warning", "10.0.1.12 shares 10.0.1.100, and is no edge any more")]
    assert "10.0.1.12 and type: sudo systemctl disable --now airlift-address;" in found[0]["fix"]
    assert shared.of_host(SITE, {**said, "first": False}) == [], "once"
    moved = {**SITE, "published": {"edge-1": shared.ANYWHERE}, "addresses": SITE["addresses"]}
    assert len(shared.of_host(moved, said)) == 2, "as a host of another group it still shares"


def test_where_it_is_published_by_default() -> None:
    assert load("container", "defaults/main.yml")["container_publish_address"] == shared.ANYWHERE
    edges = [{"inventory_hostname": "a"}, {"inventory_hostname": "b",
             "container_publish_address": "10.0.1.11"}]  # fmt: skip
    assert filters.preflight_published(edges) == {"a": shared.ANYWHERE, "b": "10.0.1.11"}
