"""Two edges: what each serves, its generation number, and how one follows after a missed change."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from swap_agent import drained, edges, follow, swap
from swap_agent.edges import Offer, judge
from swap_agent.nginx import Edge
from swap_agent.state import State, SwapError
from swap_agent.swap import Together

from tests.unit.site.edgekit import One, two
from tests.unit.site.swapkit import World

BASE = State("blue", None, "1.0.0", 1, 7, "2026-01-01T00:00:00Z")
APP_2 = {"app-2": {"by": "ann", "since": "2026-01-01T00:00:00Z"}}


def offer(name: str, *, run: bool = False, out: bool = False, **state: object) -> Offer:
    held = dataclasses.replace(BASE, **state)  # type: ignore[arg-type]
    return Offer(name, held, APP_2 if out else {}, "hash", run=run)


def test_equal_edges_may_take_traffic() -> None:
    same = offer("edge-1"), offer("edge-2")
    assert judge(same[0], [same[1]], "edge-1", joined=False) == edges.Verdict()
    assert judge(same[1], [same[0]], "edge-1", joined=False) == edges.Verdict()
    assert judge(same[1], [], "edge-1", joined=False) == edges.Verdict(), (
        "a lone edge is up to date"
    )


def test_an_edge_that_missed_something_follows() -> None:
    lead = offer("edge-1", generation=9, active="green")
    said = judge(offer("edge-2"), [lead], "edge-1", joined=False)
    assert said.adopt is lead
    assert said.unfit == "edge-1 serves generation 9, this edge 7"
    # A third edge that has already followed is as good while the lead is away.
    third = offer("edge-3", generation=9, active="green")
    assert judge(offer("edge-2"), [third], "edge-1", joined=False).adopt is third


def test_during_a_run_it_waits() -> None:
    """A run changes one edge after the other; an edge that has just booted must not serve."""
    lead = offer("edge-1", generation=9, active="green", run=True)
    said = judge(offer("edge-2"), [lead], "edge-1", joined=True)
    assert (said.adopt, said.unfit, said.behind) == (None, "", True)
    said = judge(offer("edge-2"), [lead], "edge-1", joined=False)
    assert (said.adopt, said.unfit[-21:]) == (None, "; a run is in progress"[-21:])


def test_the_lead_follows_nobody_by_itself() -> None:
    said = judge(offer("edge-1"), [offer("edge-2", generation=9)], "edge-1", joined=True)
    assert said.adopt is None
    assert "sudo airlift-swap adopt --from edge-2" in said.unfit


@pytest.mark.parametrize("other", [{"active": "green"}, {"standby": "green"}, {"out": True}])
def test_one_number_stands_for_one_configuration(other: dict[str, object]) -> None:
    lead = offer("edge-1", **other)  # type: ignore[arg-type]
    assert (
        "under the same generation" in judge(offer("edge-2"), [lead], "edge-1", joined=True).unfit
    )
    assert judge(lead, [offer("edge-2")], "edge-1", joined=True).unfit == "", "the lead decides"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"active": '"; }'}, "a colour in it is unknown"),
        ({"active": "green", "standby": "green"}, "impossible"),
        ({"generation": 10**9}, "impossible"),
        ({"release": "1\n2"}, "not printable"),
        ({"serial": "1"}, "another type"),
    ],
)
def test_what_another_edge_says_is_checked(change: dict[str, object], why: str) -> None:
    """The answer becomes part of Nginx's configuration."""
    state = dataclasses.asdict(BASE) | change
    text = json.dumps({"name": "edge-1", "state": state, "drained": {}, "shared": "x"})
    with pytest.raises(ValueError, match=why):
        edges.read(text)
    with pytest.raises(SwapError, match=why):
        follow.record_of(text)


def test_a_follower_takes_state_number_and_drained_hosts(serving: World) -> None:
    """The follower takes the lead's number, not its own next one."""
    wanted = dataclasses.replace(serving.held(), active="green", standby="blue", generation=5)
    said = follow.adopt(serving.edge, wanted, {})
    assert said["changed"]
    assert serving.serving == serving.edge.live_generation() == serving.held().generation == 5
    assert serving.held() == wanted
    calls = list(serving.calls)
    assert not follow.adopt(serving.edge, wanted, {})["changed"], "a second call changes nothing"
    assert "hup" not in serving.calls[len(calls) :]


def test_an_outdated_run_can_do_no_harm(serving: World) -> None:
    newer = dataclasses.replace(serving.held(), generation=5)
    follow.adopt(serving.edge, newer, {})
    with pytest.raises(SwapError, match="serves generation 5, which is newer than 4"):
        follow.adopt(serving.edge, dataclasses.replace(newer, generation=4, active="green"), {})
    with pytest.raises(SwapError, match="something else under the same generation, 5"):
        follow.adopt(serving.edge, dataclasses.replace(newer, active="green"), {})
    assert serving.held() == newer


def test_killed_between_the_tree_and_the_record_it_is_finished(serving: World) -> None:
    """The live link is new, but Nginx and the record are old."""
    wanted = dataclasses.replace(serving.held(), active="green", standby="blue", generation=5)
    before = serving.settings.state_file.read_bytes()
    follow.adopt(serving.edge, wanted, {})
    serving.settings.state_file.write_bytes(before)
    serving.serving = 1
    follow.adopt(serving.edge, wanted, {})
    assert serving.held() == wanted
    assert serving.serving == 5


def test_a_test_changes_nothing(serving: World) -> None:
    before = sorted(str(path) for path in serving.root.rglob("*"))
    held = serving.held()
    said = swap.switch(
        serving.edge, run="run-1", to="green", release="1.1.0", serial=2, warm=60,
        how=Together(test=True),
    )  # fmt: skip
    assert said["differs"]
    assert said["record"]["state"]["active"] == "green"
    assert serving.held() == held
    assert serving.calls.count("run") == 2, "Nginx tested the configuration"
    assert sorted(p for p in map(str, serving.root.rglob("*")) if not p.endswith(".pulse")) == [
        one for one in before if not one.endswith(".pulse")
    ]
    serving.refuses = "no"
    state, out = follow.record_of(json.dumps(said["record"]))
    with pytest.raises(SwapError, match="Nginx rejects"):
        follow.stage(serving.edge, state, out)


def test_the_number_of_all_edges_is_imposed(serving: World) -> None:
    how = Together(generation=9, later=True)
    said = swap.switch(
        serving.edge, run="run-1", to="green", release="1.1.0", serial=2, warm=60, how=how
    )
    assert said["generation"] == serving.serving == 9
    # Without other changes, the number alone is a new generation.
    assert swap.apply(serving.edge, "1.1.0", 2, Together(generation=12))["generation"] == 12
    with pytest.raises(SwapError, match="12 is not newer"):
        swap.put_in_place(serving.edge, serving.held(), 12)


class Peer:
    """The watch of edge-2 in a world of paper, and a lead that says what it is told."""

    def __init__(self, world: World, patch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.settings = dataclasses.replace(
            world.settings, name="edge-2", lead="edge-1", edges={"edge-1": "10.0.0.1:8080"}
        )
        self.edge = Edge(self.settings)
        self.follower = follow.Follower(self.edge)
        self.follower.clock = lambda: self.now
        self.held = world.held()
        self.lead(1)
        patch.setattr(edges, "ask", lambda *_: self.said)

    def lead(self, generation: int, *, run: bool = False) -> None:
        state = dataclasses.replace(self.held, generation=generation)
        self.said = Offer("edge-1", state, {}, edges.shared(self.edge.served(), {}), run=run)

    def unfit(self) -> str:
        self.follower.compare()
        return str(edges.shown(self.settings)["unfit"])


@pytest.fixture
def peer(serving: World, monkeypatch: pytest.MonkeyPatch) -> Peer:
    return Peer(serving, monkeypatch)


def test_a_run_that_was_seen_to_begin_excuses_an_edge_for_half_a_minute(peer: Peer) -> None:
    assert peer.unfit() == ""
    peer.lead(1, run=True)
    assert peer.unfit() == ""
    peer.lead(2, run=True)
    assert peer.unfit() == "", "the run changes it next"
    peer.now += 29
    assert peer.unfit() == ""
    peer.now += 2
    assert peer.unfit() == ("edge-1 serves generation 2, this edge 1; a run is in progress"), (
        "the run may have been killed between the edges"
    )


def test_an_edge_that_thaws_during_a_run_is_not_excused(peer: Peer) -> None:
    """It missed a whole run before; its clock did not go on, and its watch had not ended."""
    assert peer.unfit() == ""
    peer.lead(2, run=True)
    assert peer.unfit().endswith("; a run is in progress")
    assert peer.edge.live_generation() == 1


def test_no_traffic_until_it_has_adopted(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a run it follows at once; while it does, keepalived hears that it is unfit."""
    assert peer.unfit() == ""
    meanwhile: list[str] = []
    adopt = follow.adopt

    def slow(*words: Any, **options: Any) -> dict[str, Any]:
        meanwhile.append(edges.shown(peer.settings)["unfit"])
        return adopt(*words, **options)

    monkeypatch.setattr(follow, "adopt", slow)
    peer.lead(2)
    assert peer.unfit() == ""
    assert meanwhile == ["edge-1 serves generation 2, this edge 1"]
    assert peer.edge.live_generation() == 2


def switch(lead: One, number: int, *, test: bool = False) -> dict[str, object]:
    how = Together(test=test, generation=number, later=True)
    return swap.switch(
        lead.edge, run="run-1", to="green", release="1.1.0", serial=2, warm=60, how=how
    )


@pytest.mark.docker
@pytest.mark.slow
def test_an_edge_that_returns_serves_what_the_other_serves(tmp_path: Path) -> None:
    """Real agents, each with a real Nginx, which shows its state to the other."""
    with two(tmp_path) as (lead, peer):
        assert (lead.compare(), peer.compare()) == ("", "")
        peer.stop()
        lead.lock()
        drained.save(lead.settings, APP_2)
        switch(lead, 2)
        lead.compare()
        # The peer returns with its earlier state, and its watch starts again.
        peer.start()
        peer.follower = follow.Follower(peer.edge)
        assert peer.compare().endswith("a run is in progress"), "the peer waits for the run"
        assert peer.edge.answered() == 1
        lead.end()
        assert peer.compare() == ""
        assert peer.edge.answered() == 2
        assert peer.state() == lead.state()
        assert (peer.out(), lead.out()) == ({"app-2"}, {"app-2"})

        # An edge that has seen the run begin keeps serving until the run reaches it.
        lead.lock()
        lead.compare()
        assert peer.compare() == ""
        how = Together(generation=3)
        swap.retire(lead.edge, run="run-1", how=how)
        lead.compare()
        assert peer.compare() == ""
        assert peer.edge.answered() == 2
        lead.end()
        assert peer.compare() == ""
        assert peer.state() == lead.state()

        # A run brings another configuration, not the watch.
        lead.want("second")
        swap.apply(lead.edge, "1.1.0", 2)
        lead.compare()
        assert "with another configuration than this edge has" in peer.compare()
        assert peer.edge.answered() == 3
        peer.want("second")
        peer.follower = follow.Follower(peer.edge)
        assert peer.compare() == ""
        assert peer.state().generation == lead.state().generation == 4

        # A lead with an older record reports it, and takes over on request.
        old = dataclasses.replace(lead.state(), generation=9, active="blue", standby=None)
        follow.adopt(peer.edge, old, {})
        peer.compare()
        assert "sudo airlift-swap adopt --from edge-2" in lead.compare()
        assert lead.edge.answered() == 4
        follow.take_over(lead.edge, "edge-2")
        assert (lead.compare(), lead.edge.answered(), lead.out()) == ("", 9, set())
