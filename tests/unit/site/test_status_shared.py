"""The address that edges share in the report: its holder, none, or two at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin
from tests.unit.site import statuskit
from tests.unit.site.statuskit import Programs, answer, of, problems, report, text

facts = plugin("status/module_utils/status_shared.py")
WELL: dict[str, Any] = {"held": "", "error": "", "runs": True, "enabled": True, "unfit": ""}
LINE = "shared address 10.0.1.100 held by "


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    """Return a site of two edges, of which the first has the address."""
    made = statuskit.site(tmp_path)
    made["zones"] = {**made["zones"], "dmz": ["edge-1", "edge-2"]}
    made["asked"] = [*made["asked"], "edge-2"]
    services = [one["service"] for one in of(made, "edge-1")["containers"]]
    made["hosts"]["edge-2"] = {"facts": statuskit.facts(services)}
    # The second edge serves the same as the first one.
    of(made, "edge-2")["edge"] = dict(statuskit.EDGE)
    made["shared"] = {
        "address": "10.0.1.100",
        "unit": "airlift-address.service",
        "edges": {"edge-1": "10.0.1.10", "edge-2": "10.0.1.11"},
    }
    of(made, "edge-1")["shared_address"] = {**WELL, "held": "ens192"}
    of(made, "edge-1")["answers"]["shared address"] = answer()
    of(made, "edge-2")["shared_address"] = dict(WELL)
    return made


def test_the_edge_that_has_it_now_is_named(found: dict[str, Any]) -> None:
    assert problems(found) == []
    assert f"{LINE}edge-1" in text(found).splitlines()
    assert report(found)["shared_address"] == {"address": "10.0.1.100", "held_by": ["edge-1"]}


def test_a_site_without_one_says_nothing(found: dict[str, Any]) -> None:
    for shared in ({}, {"address": "", "unit": "x", "edges": {}}):
        found["shared"] = shared
        assert "shared address" not in text(found)
        assert report(found)["shared_address"]["address"] is None


def test_nobody_has_it_and_why(found: dict[str, Any]) -> None:
    of(found, "edge-1")["shared_address"] |= {"held": "", "unfit": "Nginx does not answer"}
    of(found, "edge-2")["shared_address"]["unfit"] = "the watch does not run"
    assert problems(found) == ["no edge holds the shared address 10.0.1.100"]
    said = report(found)
    assert said["problems"][0]["error"] == (
        "edge-1: Nginx does not answer; edge-2: the watch does not run"
    )
    assert (said["verdict"], said["next"]) == (
        "attention",
        "ansible-playbook playbooks/install.yml",
    )
    assert f"{LINE}no edge" in text(found).splitlines()


def test_two_have_it_and_what_lets_them_hear_each_other(found: dict[str, Any]) -> None:
    of(found, "edge-2")["shared_address"]["held"] = "ens192"
    of(found, "edge-2")["answers"]["shared address"] = answer()
    (problem,) = report(found)["problems"]
    assert "edge-1 and edge-2 both hold the shared address" in problem["found"]
    assert problem["before"] == (
        "let IP protocol 112 (VRRP) pass between 10.0.1.10 and 10.0.1.11, in the hypervisor's "
        "filters too; until then, on edge-2: systemctl stop airlift-address.service"
    )
    assert f"{LINE}edge-1 and edge-2" in text(found).splitlines()


@pytest.mark.parametrize(
    ("edge", "change", "level", "words"),
    [
        ("edge-2", {"runs": False}, "warning", "of edge-2 does not run: it cannot take 10.0.1.100"),
        ("edge-2", {"enabled": False}, "warning", "of edge-2 would not start at boot"),
        # Without keepalived the address stays on this edge when it fails.
        ("edge-1", {"runs": False}, "problem", "of edge-1 does not run"),
    ],
)
def test_an_edge_without_keepalived(
    edge: str, change: dict[str, Any], level: str, words: str, found: dict[str, Any]
) -> None:
    of(found, edge)["shared_address"] |= change
    (problem,) = report(found)["problems"]
    assert (problem["level"], problem["host"]) == (level, edge)
    assert words in problem["found"]
    assert problem["fix"] == f"ansible-playbook playbooks/install.yml --limit {edge}"


def test_it_has_to_answer_as_the_service(found: dict[str, Any]) -> None:
    of(found, "edge-1")["answers"]["shared address"] |= {"error": "timed out", "status": 0}
    assert problems(found) == ["10.0.1.100 on edge-1 does not answer as the service"]


def test_an_edge_that_was_not_asked_may_have_it(found: dict[str, Any]) -> None:
    of(found, "edge-1")["shared_address"]["held"] = ""
    found["asked"].remove("edge-2")
    del found["hosts"]["edge-2"]
    assert problems(found) == []
    assert f"{LINE}no edge that was asked; no answer of edge-2" in text(found).splitlines()


def test_the_facts_of_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    made = Programs(tmp_path)
    link = '[{"ifname": "ens192", "address": "00:50:56:00:00:01", "addr_info": [%s]}]'
    one = '{"family": "inet", "local": "10.0.1.100", "prefixlen": 32}'
    made.answer("ip", "-json address show", out=link % one)
    made.answer("systemctl", "is-active", out="active\n")
    made.answer("systemctl", "is-enabled", out="enabled\n")
    made.answer("airlift-swap", "fit", err="airlift-swap: not fit: no answer\n", code=1)
    given = {"address": "10.0.1.100", "unit": "airlift-address.service", "agent": "airlift-swap"}
    assert facts.look({}) == {}
    said = facts.look(given)
    assert said == {**WELL, "held": "ens192", "unfit": "not fit: no answer"}
    made.answer("ip", "-json address show", out=link % "")
    made.answer("airlift-swap", "fit", out="fit: this edge may take traffic\n")
    made.answer("systemctl", "is-active", out="failed\n", code=3)
    assert facts.look(given) == {**WELL, "runs": False}
    made.answer("ip", "-json address show", err="no", code=1)
    assert "ip does not tell" in facts.look(given)["error"]
