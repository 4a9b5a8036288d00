"""Plans for several edges, and the generation number that all of them get."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from tests.unit.roles.conftest import plugin
from tests.unit.site import test_swap_plan as plans
from tests.unit.site.test_swap_plan import back, found

__all__ = ["back", "found"]

filters = plugin("swap/filter_plugins/swap_edges.py")
EDGES = ["edge-1", "edge-2"]


def says(generation: int, *, differs: bool = False) -> dict[str, Any]:
    return {"live_generation": generation, "differs": differs}


@pytest.mark.parametrize(
    ("lead", "peers", "number"),
    [
        (says(7, differs=True), [says(7, differs=True)], 8),
        (says(7), [says(7)], 7),
        # An edge's own certificate, for instance: one number would mean two configurations.
        (says(7), [says(7, differs=True)], 8),
        # An edge that missed something, or a new one, gets the lead's number.
        (says(7), [says(6, differs=True)], 7),
        (says(7), [says(0, differs=True), says(7)], 7),
        (says(7, differs=True), [{"skipped": True}], 8),
        ({"changed": False, "why": "it does not answer"}, [], None),
    ],
)
def test_a_number_stands_for_one_configuration(
    lead: dict[str, Any], peers: list[dict[str, Any]], number: int | None
) -> None:
    options = {"later": None, **({"generation": number} if number else {})}
    assert filters.swap_together(lead, peers, "edge-1") == options


def test_a_lead_with_an_older_record_changes_nothing() -> None:
    with pytest.raises(AnsibleFilterError, match="run on edge-1: sudo airlift-swap adopt"):
        filters.swap_together(says(5), [says(7)], "edge-1")


def test_which_edges_take_part() -> None:
    there: dict[str, Any] = {
        "edge-2": {"answered": True, "result": {"stat": {"exists": True}}},
        "edge-3": {"answered": True, "result": {"stat": {"exists": False}}},
        "edge-4": {"answered": False, "result": {}},
        "edge-5": {},
    }
    assert filters.swap_edges_ready(there) == ["edge-2"]
    assert filters.swap_edges_silent(there) == ["edge-4", "edge-5"]


def test_a_rollback_goes_on_without_an_edge_that_follows(back: dict[str, Any]) -> None:
    made = plans.way_back(back | {"edges": EDGES, "silent_edges": ["edge-2"]})
    assert made["problems"] == []
    assert made["silent"] == ["edge-2"]
    said = "edge-2 does not answer and is not changed: it takes over what edge-1 serves when it "
    assert made["lines"][-1] == f"{said}is back"


def test_without_the_lead_nothing_is_changed(back: dict[str, Any]) -> None:
    back |= {"edges": EDGES, "edge": {"msg": "the edge cannot be reached: timed out"}}
    (said,) = plans.way_back(back)["problems"]
    assert said == (
        "the swap agent on the edge does not answer: the edge cannot be reached: timed out. edge-1 "
        "holds the record of the site, so nothing is changed without it; what edge-2 serves goes "
        "on. Bring edge-1 back, or remove it from hosts.yml and run ansible-playbook "
        "playbooks/install.yml"
    )


def test_a_lead_with_an_older_record_is_named_before_anything_is_done(back: dict[str, Any]) -> None:
    why = "edge-2 serves generation 9; run here: sudo airlift-swap adopt --from edge-2"
    back["edge"]["edges"] = {"unfit": why}
    assert plans.way_back(back | {"edges": EDGES})["problems"] == [f"edge-1: {why}"]
    # Other reasons do not concern the lead's record.
    back["edge"]["edges"] = {"unfit": "it serves nothing yet; run install.yml"}
    assert plans.way_back(back | {"edges": EDGES})["problems"] == []


def test_an_upgrade_needs_every_edge(found: dict[str, Any]) -> None:
    found["hosts"]["edge-2"] = {"answered": False, "said": "timed out", "result": {}}
    assert plans.problem(found | {"edges": EDGES}) == (
        "edge-2 does not answer (timed out): bring it back"
    )
