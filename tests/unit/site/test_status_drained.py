"""A drained host is a warning in the report, and nothing that it lacks is a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.site import statuskit
from tests.unit.site.statuskit import note, of, problems, remove, report, text

SAID = "app-2 is drained by ann@jump since 2026-01-01T20:00:00Z"


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    """Return a site whose app-2 was drained: its worker is gone, its replica runs."""
    made = statuskit.site(tmp_path)
    made["edge"]["drained"] = {"app-2": {"by": "ann@jump", "since": "2026-01-01T20:00:00Z"}}
    remove(made, "app-2", "worker-blue")
    del of(made, "app-2")["answers"]["worker-blue"]
    return made


def is_warned_of(found: dict[str, Any]) -> None:
    said = report(found)
    assert problems(found) == [SAID]
    assert said["verdict"] == "warning"
    assert said["next"] == "ansible-playbook playbooks/drain_host.yml -e bring_back=app-2"
    assert list(said["drained"]) == ["app-2"]
    assert f"what serves is as it should be, but {SAID}" in text(found)


def test_a_drained_host_is_a_warning(found: dict[str, Any]) -> None:
    is_warned_of(found)
    lines = [line for line in text(found).splitlines() if "missing" in line]
    assert lines == []


@pytest.mark.parametrize("said", [{"unreachable": True}, {"late": 45}, {"msg": "no python"}])
def test_it_may_be_switched_off(found: dict[str, Any], said: dict[str, Any]) -> None:
    found["hosts"]["app-2"] = said
    of(found, "edge-1")["answers"]["app-blue on app-2"] |= {"error": "timed out", "status": 0}
    target = {"job": "node", "host": "app-2", "instance": "app-2", "colour": "", "error": "gone"}
    of(found, "mon-1")["answers"] = {"targets": {"down": [target], "error": ""}}
    is_warned_of(found)
    assert ["app-2", "-", "-", "-", "-", "drained", "-"] in map(str.split, text(found).splitlines())


def test_it_may_run_what_it_likes(found: dict[str, Any]) -> None:
    statuskit.one_of(found, "app-2", "app-blue")["image"] = "sha256:older"
    of(found, "app-2")["firewall"]["table"] = "missing"
    is_warned_of(found)


def test_the_rollback_is_as_warm_as_the_hosts_that_serve(
    found: dict[str, Any], tmp_path: Path
) -> None:
    made = statuskit.upgrade(found, tmp_path)
    remove(made, "app-2", "app-blue")
    remove(made, "app-2", "worker-green")
    of(made, "app-2")["images"] = []
    assert report(made)["rollback"]["warm"]
    assert problems(made) == [SAID]
    made["edge"]["drained"] = {}
    assert not report(made)["rollback"]["warm"]


def test_a_worker_that_still_runs_is_told(found: dict[str, Any]) -> None:
    of(found, "app-2")["containers"].append(statuskit.container("worker-blue"))
    (said,) = problems(found)
    assert said == f"{SAID}, and its worker still runs"
    assert report(found)["next"].endswith("drain_host.yml -e drain=app-2")


def test_other_faults_come_first(found: dict[str, Any]) -> None:
    remove(found, "app-1", "worker-blue")
    assert problems(found) == ["worker-blue is missing on app-1", SAID]
    assert report(found)["verdict"] == "attention"


def test_a_host_that_is_not_of_the_site_any_more_is_not_told(found: dict[str, Any]) -> None:
    found["edge"]["drained"] = {"app-9": {"by": "ann", "since": "now"}}
    remove(found, "app-1", "worker-blue")
    assert "drained" not in text(found)


@pytest.mark.parametrize(
    ("verb", "words", "command"),
    [
        ("drain", "drain of app-2", "drain_host.yml -e drain=app-2"),
        ("bring_back", "bring back of app-2", "drain_host.yml -e bring_back=app-2"),
    ],
)
def test_an_interrupted_run_is_finished_by_its_own_command(
    found: dict[str, Any], verb: str, words: str, command: str
) -> None:
    found["edge"]["unfinished"] = [
        note(verb, release="1.0.0", host="app-2"),
        note("edge", seq=2),
    ]
    said = report(found)
    assert (
        said["problems"][0]["found"]
        == f"{words} was interrupted in step edge; resume with {command}"
    )
    assert said["next"].endswith(command)
    found["edge"] |= {"unfinished": [], "last_run": note(verb, "failed", host="app-2", why="full")}
    said = report(found)
    assert said["problems"][0]["fix"].endswith(command)
    assert f"the last {words} failed" in text(found)
