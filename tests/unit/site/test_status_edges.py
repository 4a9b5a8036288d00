"""Two edges in the report: a line for each, and the next step if they differ."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.unit.site import statuskit
from tests.unit.site.statuskit import of, problems, report, text


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    """Return a site whose edges serve the same."""
    made = statuskit.site(tmp_path)
    made["edge"] |= {"generation": 7, "live_generation": 7, "served_generation": 7}
    made["edge"] |= {"watcher": {"alive": True}, "edges": {"unfit": ""}}
    made["zones"] = {**made["zones"], "dmz": ["edge-1", "edge-2"]}
    made["asked"] = [*made["asked"], "edge-2"]
    made["hosts"]["edge-2"] = copy.deepcopy(made["hosts"]["edge-1"])
    of(made, "edge-2")["edge"] = copy.deepcopy(made["edge"])
    return made


def second(found: dict[str, Any], **change: Any) -> None:
    of(found, "edge-2")["edge"] |= change


def test_equal_edges_have_a_line_each(found: dict[str, Any]) -> None:
    assert problems(found) == []
    said = text(found)
    assert "edge edge-1, which leads: generation 7, blue active, release 1.0.0" in said
    assert "edge edge-2, which follows: generation 7, blue active, release 1.0.0" in said
    assert report(found)["edges"]["edge-2"] == {
        "generation": 7, "active": "blue", "standby": None, "release": "1.0.0", "lead": False,
        "unfit": "",
    }  # fmt: skip


def test_one_edge_has_no_such_line(tmp_path: Path) -> None:
    made = statuskit.site(tmp_path)
    assert "which leads" not in text(made)
    assert report(made)["edges"] == {}


def test_edges_that_differ(found: dict[str, Any]) -> None:
    second(found, generation=6, live_generation=6, served_generation=6, active="green")
    assert problems(found) == ["edge-2 serves generation 6 (green), edge-1 generation 7 (blue)"]
    assert report(found)["next"] == "ansible-playbook playbooks/install.yml"


def test_a_host_that_only_one_edge_has_drained(found: dict[str, Any]) -> None:
    second(found, drained={"app-2": {"by": "ann", "since": "now"}})
    assert problems(found) == ["edge-2 serves generation 7 (blue), edge-1 generation 7 (blue)"]


def test_an_unfit_edge_says_why(found: dict[str, Any]) -> None:
    second(found, edges={"unfit": "edge-1 serves generation 7, this edge 6"})
    (said,) = problems(found)
    assert said == ("the edge edge-2 may take no traffic: edge-1 serves generation 7, this edge 6")


def test_a_lead_with_an_older_record(found: dict[str, Any]) -> None:
    command = "sudo airlift-swap adopt --from edge-2"
    why = f"its record is older; to take over what edge-2 serves, run here: {command}"
    found["edge"]["edges"] = {"unfit": why}
    (said,) = problems(found)
    assert said == "the edge edge-1 may take no traffic: its record is older"
    assert report(found)["first"] == f"on edge-1, run {command}"


def test_an_edge_that_does_not_answer(found: dict[str, Any]) -> None:
    found["hosts"]["edge-2"] = {"unreachable": True, "msg": "timed out"}
    (said,) = problems(found)
    assert said.startswith("edge-2 ")
    assert "edge edge-2, which follows: no answer" in text(found)


def test_a_new_edge_is_installed_next(found: dict[str, Any]) -> None:
    of(found, "edge-2")["edge"] = {"installed": False}
    assert "edge-2 serves nothing yet: it is a new edge" in problems(found)


def test_nginx_and_watch_of_the_second_edge(found: dict[str, Any]) -> None:
    second(found, served_generation=6, watcher={"alive": False})
    assert sorted(problems(found)) == [
        "Nginx serves generation 6, the disk holds 7",
        "the watcher on edge-2 does not run, so a failing replica would get requests",
    ]


def test_a_replica_that_only_one_edge_reaches(found: dict[str, Any]) -> None:
    of(found, "edge-2")["answers"]["app-blue on app-1"] |= {"error": "timed out"}
    assert problems(found) == ["edge-2 cannot reach app-blue on app-1"]
    # A replica that neither edge reaches is one problem.
    of(found, "edge-1")["answers"]["app-blue on app-1"] |= {"error": "timed out"}
    assert problems(found) == ["the edge cannot reach app-blue on app-1"]


def test_the_service_through_the_second_edge(found: dict[str, Any]) -> None:
    of(found, "edge-2")["answers"]["edge"] |= {"error": "timed out"}
    assert "the edge edge-2 does not answer" in problems(found)
