"""Drain an app host and bring it back: real files and replicas, and a fake Nginx."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swap_agent import drain, drained, probe, replicas, runs, swap, watch
from swap_agent.state import SwapError
from swap_agent.swap import journal_of

from tests.unit.site.swapkit import World
from tests.unit.site.test_watch import Service, refuse, until, watching


def want(site: World, services: list[Service], names: list[str]) -> None:
    """Write the wanted configuration of these app hosts; both colours are the same services."""
    for primary, other in (("blue", "green"), ("green", "blue")):
        lines = [
            f"    server {one.address} max_fails=20; # {name}\n"
            for name, one in zip(names, services, strict=False)
        ]
        backups = [line.replace(";", " backup;", 1).replace("0.0.1", "0.0.9") for line in lines]
        preview = "".join(lines).replace("0.0.1", "0.0.9")
        for name, body in ((primary, lines), (f"{primary}-{other}", lines + backups)):
            text = f"upstream app {{\n{''.join(body)}}}\n\nupstream preview {{\n{preview}}}\n"
            (site.edge.desired / f"upstreams/{name}.conf").write_text(text)


@pytest.fixture
def site(serving: World, services: list[Service], monkeypatch: pytest.MonkeyPatch) -> World:
    """Provide a site with app-1 and app-2, and a run that holds the lock."""
    monkeypatch.setattr(watch, "INTERVAL", 0.02)
    monkeypatch.setattr(replicas, "APART", 0.01)
    monkeypatch.setattr(drain, "PAUSE", 0.01)
    monkeypatch.setattr(probe, "LIFETIME", 5.0)
    want(serving, services, ["app-1", "app-2"])
    serving.apply()
    serving.calls.clear()
    return serving


def take_out(site: World, *hosts: str, look: bool = False, gone: bool = False) -> dict[str, Any]:
    return drain.drain(site.edge, run="run-1", hosts=hosts, look=look, gone=gone)


def back(site: World, host: str = "app-2") -> dict[str, Any]:
    return drain.bring_back(site.edge, run="run-1", host=host)


def hosts(site: World) -> list[str]:
    """Return the hosts in the live tree, of both blocks, which name them in comments."""
    return drained.names(site.edge.upstream())


def test_a_drained_host_is_in_no_upstream_and_its_requests_have_ended(site: World) -> None:
    before = site.workers
    said = take_out(site, "app-2")
    assert said["changed"]
    assert site.serving == said["generation"] == site.edge.live_generation()
    assert not before & site.workers
    assert hosts(site) == ["app-1"]
    # The lines of the drained host stay as comments.
    assert site.edge.upstream().count("# drained: server") == 2
    assert list(said["drained"]) == ["app-2"]
    assert swap.show(site.edge)["drained"]["app-2"]["by"] == "ann"
    assert swap.show(site.edge)["app_hosts"] == ["app-1"]


def test_the_command_waits_for_the_workers_that_still_send_requests(site: World) -> None:
    site.slow = True
    old = site.workers

    def hup() -> None:
        site.serving = site.edge.live_generation()
        site.workers = old | {max(old) + 1}

    site.hup = hup  # type: ignore[method-assign]
    with pytest.raises(SwapError, match="still serve"):
        take_out(site, "app-2")
    # The host is drained all the same, and the same command continues to wait.
    assert list(drained.load(site.settings)) == ["app-2"]
    site.retiring = set()
    assert not take_out(site, "app-2")["changed"]


def test_it_stays_out_over_every_other_change(site: World) -> None:
    take_out(site, "app-2")
    since = drained.load(site.settings)
    site.want("# another configuration\n")
    site.apply()
    assert hosts(site) == ["app-1"]
    site.switch()
    assert hosts(site) == ["app-1"]
    swap.retire(site.edge, run="run-1")
    assert hosts(site) == ["app-1"]
    swap.undo(site.edge, run="run-1")
    assert hosts(site) == ["app-1"]
    assert drained.load(site.settings) == since
    assert not site.apply("1.1.0", 2)["changed"]


def test_the_watch_does_not_bring_it_back(site: World, services: list[Service]) -> None:
    take_out(site, "app-2")
    made = watching(site)
    asked = services[1].asked
    until(site, made, lambda: any(one.successes > 5 for one in made.board.values()))
    assert list(swap.show(site.edge)["replicas"]) == ["app-1"]
    # The host is not probed, so that its reboot causes no event.
    assert services[1].asked == asked
    assert hosts(site) == ["app-1"]


def test_the_last_app_host_stays_and_the_refusal_says_why_the_others_are_out(
    site: World, services: list[Service]
) -> None:
    take_out(site, "app-2")
    with pytest.raises(SwapError, match=r"app-1 would leave .*: app-2 is drained by ann since 20"):
        take_out(site, "app-1")
    back(site)
    refuse(services[1])
    with pytest.raises(SwapError, match=r"app-2 does not serve \(connection refused\)"):
        take_out(site, "app-1")
    with pytest.raises(SwapError, match="the only app host"):
        take_out(site, "app-1", "app-2")
    assert hosts(site) == ["app-1", "app-2"]
    assert drained.load(site.settings) == {}


def test_an_unready_host_may_leave_and_one_that_the_watch_marked_does_not_count(
    site: World, services: list[Service]
) -> None:
    services[1].status = 503
    made = watching(site)
    until(site, made, lambda: bool(site.edge.out()))
    services[1].status = 200
    # It answers again, but gets no requests yet.
    with pytest.raises(SwapError, match="app-2 does not serve"):
        take_out(site, "app-1")
    assert take_out(site, "app-2")["changed"]


def test_looking_changes_nothing_and_needs_no_lock(site: World) -> None:
    said = drain.drain(site.edge, run="somebody", hosts=["app-2"], look=True, gone=False)
    assert not said["changed"]
    assert (drained.load(site.settings), site.calls) == ({}, [])
    with pytest.raises(SwapError, match="no app host app-9; its app hosts are app-1, app-2"):
        take_out(site, "app-9", look=True)


def test_only_the_run_that_holds_the_lock_may(site: World) -> None:
    with pytest.raises(SwapError, match="does not hold the lease"):
        drain.drain(site.edge, run="another", hosts=["app-2"], look=False, gone=False)
    with pytest.raises(SwapError, match="does not hold the lease"):
        drain.bring_back(site.edge, run="another", host="app-2")
    assert hosts(site) == ["app-1", "app-2"]


def test_a_host_comes_back_only_if_it_is_ready(site: World, services: list[Service]) -> None:
    take_out(site, "app-2")
    services[1].status = 503
    with pytest.raises(SwapError, match=r"app-2 stays drained.*HTTP 503, postgres"):
        back(site)
    assert hosts(site) == ["app-1"]
    services[1].status = 200
    asked = services[1].asked
    assert back(site)["changed"]
    assert services[1].asked - asked >= replicas.SUCCESSES
    assert hosts(site) == ["app-1", "app-2"]
    assert drained.load(site.settings) == {}
    assert not back(site)["changed"]
    with pytest.raises(SwapError, match="no app host app-9"):
        back(site, "app-9")


def test_what_nginx_refuses_leaves_no_record(site: World) -> None:
    site.refuses = "unknown directive"
    with pytest.raises(SwapError, match="unknown directive"):
        take_out(site, "app-2")
    assert drained.load(site.settings) == {}
    site.refuses = ""
    take_out(site, "app-2")
    site.refuses = "unknown directive"
    with pytest.raises(SwapError, match="unknown directive"):
        back(site)
    assert list(drained.load(site.settings)) == ["app-2"]
    assert hosts(site) == ["app-1"]


@pytest.mark.parametrize("moment", ["stage", "point", "hup"])
def test_killed_at_any_moment_the_same_command_finishes(
    site: World, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Killed(BaseException):
        """Stands for the end of the process."""

    def die(*_: object) -> None:
        raise Killed

    commands: list[Callable[[], Any]] = [lambda: take_out(site, "app-2"), lambda: back(site)]
    for command in commands:
        with monkeypatch.context() as patch:
            patch.setattr(type(site.edge), moment, die)
            with pytest.raises(Killed):
                command()
        command()
        assert site.serving == site.edge.live_generation()
        assert (hosts(site) == ["app-1"]) is bool(drained.load(site.settings))
    assert hosts(site) == ["app-1", "app-2"]


def test_hosts_that_left_the_inventory_leave_the_edge_first(
    site: World, services: list[Service]
) -> None:
    take_out(site, "app-2", gone=True)
    assert hosts(site) == ["app-1"]
    want(site, services, ["app-1"])
    site.apply()
    drain.forget(site.edge)
    assert drained.load(site.settings) == {}
    assert "app-2" not in site.edge.upstream()


def test_a_host_that_left_is_the_last_only_if_it_serves(
    site: World, services: list[Service]
) -> None:
    refuse(services[0])
    with pytest.raises(SwapError, match="app-2 would leave no app host that serves"):
        take_out(site, "app-2", gone=True)
    refuse(services[1])
    said = take_out(site, "app-2", gone=True)
    # A repair that replaces the hosts continues; the edge gets the new ones at its end.
    assert (said["changed"], drained.load(site.settings)) == (False, {})
    assert "would leave no app host" in said["why"]


def test_an_inventory_with_nothing_but_drained_hosts_is_refused(
    site: World, services: list[Service]
) -> None:
    take_out(site, "app-2")
    want(site, services[1:], ["app-2"])
    with pytest.raises(SwapError, match=r"every app host .* is drained \(app-2\): bring one back"):
        site.apply()
    assert hosts(site) == ["app-1"]


def test_an_added_host_joins_and_drained_ones_stay_out(
    site: World, services: list[Service]
) -> None:
    take_out(site, "app-2")
    want(site, services, ["app-1", "app-2", "app-3"])
    assert site.apply()["changed"]
    assert hosts(site) == ["app-1", "app-3"]
    back(site)
    assert hosts(site) == ["app-1", "app-2", "app-3"]


def test_the_journal_says_which_host(site: World) -> None:
    site.begin(verb="drain", release="1.0.0", host="app-2")
    take_out(site, "app-2")
    runs.end(site.edge, run="run-1", why="the disk is full", data={"release": "1.0.0"})
    last = journal_of(site.edge).last_end()
    assert last is not None
    assert (last["step"], last["event"], last["data"]["host"]) == ("drain", "failed", "app-2")


@pytest.mark.parametrize("text", ["{", "[]", '{"app-2": {}}', '{"app-2": {"by": 1, "since": ""}}'])
def test_a_damaged_record_is_named(site: World, text: str) -> None:
    path: Path = drained.file_of(site.settings)
    path.write_text(text)
    with pytest.raises(SwapError, match=r"drained\.json, cannot be read"):
        swap.show(site.edge)
    path.write_text(json.dumps({}))
    assert swap.show(site.edge)["drained"] == {}
