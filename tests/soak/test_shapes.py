"""Sites of other shapes: one host, four app hosts, and a second edge for a site that had one.

One named part of `make soak`: `make soak-shapes`. Each shape is a file of molecule/lab/shapes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from scripts import power
from scripts.journey import SITE, Journey
from scripts.shapes import Shape, load
from tests.e2e.support import LOG
from tests.e2e.upgrades import offer, services

pytestmark = pytest.mark.timeout(2 * 3600)

RATE = 12
#: After so many seconds without the edge that had the shared address, no request may fail.
GRACE = 5.0
FIRST, SECOND = "1.0.0", "1.1.0"
SHARED = load("two-edges").settings["site_shared_address"].partition("/")[0]
Record = Callable[[str, object], None]


@contextmanager
def in_the_lab(request: pytest.FixtureRequest, shape: Shape) -> Iterator[Journey]:
    """Install a site of a shape in a lab of its own; `shape.name` is the lab's shape."""
    if len({item.path for item in request.session.items}) > 1:
        pytest.skip("it takes the lab from the others: make soak-shapes")
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with LOG.open("a") as file:

        def listen(line: str) -> None:
            file.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            file.flush()

        journey = Journey(shape=shape, listen=listen)
        journey.lab.down()
        journey.prepare()
        journey.preflight()
        journey.install()
        journey.fetch_access()
        yield journey
        journey.lab.down()


@pytest.fixture(scope="module", params=["one", "four-apps"])
def site(request: pytest.FixtureRequest) -> Iterator[Journey]:
    """A site of each shape, one after the other."""
    with in_the_lab(request, load(request.param)) as journey:
        yield journey


@pytest.fixture(scope="module")
def edges(request: pytest.FixtureRequest) -> Iterator[Journey]:
    """A site that has one edge, and a second machine for another."""
    with in_the_lab(request, load("two-edges").without("edge-2")) as journey:
        yield journey


def shown(journey: Journey, edge: str = "edge-1") -> dict[str, Any]:
    """Return what the agent on an edge reports."""
    found: dict[str, Any] = json.loads(journey.lab.console(edge, "airlift-swap show").output)
    return found


@contextmanager
def nobody_notices(journey: Journey, record: Record, **options: Any) -> Iterator[None]:
    """Send requests all the while; none may fail."""
    with journey.load(RATE, **options) as load:
        yield
    record("requests", load.result.sent)
    record("failed", load.result.failed)
    assert load.result.sent > 0
    assert load.result.failed == 0, str(load.result)


def until_well(journey: Journey, release: str, seconds: float = 180) -> None:
    """Wait until every edge serves the release, every host has it, and status finds nothing."""
    deadline = time.monotonic() + seconds
    while True:
        journey.play("status", release=release)
        report = json.loads(journey.lab.read("jump", f"{SITE}/.airlift/status.json"))
        if report["verdict"] == "ok":
            break
        assert time.monotonic() < deadline, report["problems"]
        time.sleep(3)
    serves = [shown(journey, edge) for edge in journey.shape.zones["dmz"]]
    assert {one["release"] for one in serves} == {release}
    assert len({(one["generation"], one["active"]) for one in serves}) == 1
    colour = serves[0]["active"]
    for host in journey.shape.zones["app"]:
        there = services(journey, host)
        assert there[f"app-{colour}"] == there[f"worker-{colour}"] == ("running", release)


def test_every_app_host_of_the_shape_serves(site: Journey, record_property: Record) -> None:
    apps = set(site.shape.zones["app"])
    record_property("hosts", len(site.hosts()))
    assert set(shown(site)["app_hosts"]) == apps
    assert set(shown(site)["replicas"]) == apps
    site.smoke()
    until_well(site, FIRST)


def test_install_again_changes_nothing(site: Journey) -> None:
    site.install()
    assert site.facts.changed["install"] == 0


def test_upgrade_and_rollback_lose_no_request(site: Journey, record_property: Record) -> None:
    offer(site)
    with nobody_notices(site, record_property):
        site.play("upgrade", release=SECOND)
        until_well(site, SECOND)
        site.play("rollback", release=SECOND)
    until_well(site, FIRST)


def test_after_a_power_cut_of_all_hosts_it_serves_by_itself(
    site: Journey, record_property: Record
) -> None:
    power.cut(site, site.hosts())
    record_property("seconds", round(power.until_it_serves(site, seconds=90)))
    until_well(site, FIRST)


# ---------------------------------------------------------------- two edges, in this order
def holders(journey: Journey) -> list[str]:
    """Return the running edges that have the shared address."""
    found = []
    for edge in journey.shape.zones["dmz"]:
        if journey.lab.is_up(edge):
            said = journey.lab.console(edge, "ip -4 -oneline address show").output
            found += [edge] if f" {SHARED}/" in said else []
    return found


def until_fit(journey: Journey, edge: str, seconds: float = 90) -> None:
    """Wait until an edge may take traffic: it then serves what the other one serves."""
    script = f"timeout {seconds:.0f} sh -c 'until airlift-swap fit; do sleep 1; done' 2>&1"
    journey.lab.console(edge, script, timeout=seconds + 60)


def test_a_second_edge_is_added_by_a_line_of_the_inventory(
    edges: Journey, record_property: Record
) -> None:
    until_well(edges, FIRST)
    with nobody_notices(edges, record_property):
        edges.shape = load("two-edges")
        edges.place_site()
        edges.play("preflight")
        edges.install()
    until_fit(edges, "edge-2")
    until_well(edges, FIRST)
    assert len(holders(edges)) == 1
    with nobody_notices(edges, record_property, url=f"https://{SHARED}"):
        edges.install()
    assert edges.facts.changed["install"] == 0


def test_an_upgrade_changes_both_edges(edges: Journey, record_property: Record) -> None:
    offer(edges)
    with nobody_notices(edges, record_property, url=f"https://{SHARED}"):
        edges.play("upgrade", release=SECOND)
    until_well(edges, SECOND)


@pytest.mark.parametrize("turn", ["first", "the other"])
def test_the_edge_that_has_the_address_loses_power(
    edges: Journey, record_property: Record, turn: str
) -> None:
    (edge,) = holders(edges)
    name = edges.lab.name(edge)
    record_property("edge", edge)
    with edges.load(RATE, url=f"https://{SHARED}") as load:
        time.sleep(15)
        cut = time.monotonic()
        load.phase("without it")
        edges.lab.docker("kill", "--signal", "KILL", name)
        time.sleep(30)
        (other,) = holders(edges)
        load.phase("back")
        edges.lab.docker("start", name)
        edges.lab.console(edge, "until docker info > /dev/null 2>&1; do sleep 1; done")
        until_fit(edges, edge)
        time.sleep(10)
    assert other != edge
    lost = [one for one in load.result.records if not one.ok]
    record_property("requests", load.result.sent)
    record_property("failed", len(lost))
    # What was under way, or sent in the first seconds after, or on an idle connection to that edge.
    late = [
        one
        for one in lost
        if one.due + one.latency < cut or (one.due > cut + GRACE and one.opened > cut)
    ]
    record_property("failed later", len(late))
    assert late == [], f"{turn}: {load.result}"
    until_well(edges, SECOND)


def test_a_rollback_with_one_edge_down_and_the_edge_adopts_it(
    edges: Journey, record_property: Record
) -> None:
    """The first edge has the lock and the journal; the other one is off."""
    off = edges.lab.name("edge-2")
    edges.lab.docker("kill", "--signal", "KILL", off)
    time.sleep(GRACE)
    with nobody_notices(edges, record_property, url=f"https://{SHARED}"):
        edges.play("rollback", release=SECOND)
        assert shown(edges)["release"] == FIRST
        edges.lab.docker("start", off)
        until_fit(edges, "edge-2")
    until_well(edges, FIRST)
