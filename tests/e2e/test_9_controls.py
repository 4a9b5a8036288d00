"""Negative controls: without the swap's rules requests fail, and the same load reports it.

Without these, "0 failed" could mean that the load cannot see failures. Each breaks one rule of
the swap on the real edge, with the clients and the release of earlier tests.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from scripts.journey import Journey
from scripts.load import Result
from tests.e2e.upgrades import APP_HOSTS, agent, services

RUN = "controls"
HTTP = "/etc/airlift/edge/desired/conf.d/http.conf"
RULE = "keepalive_min_timeout"


@pytest.fixture(scope="module", autouse=True)
def locked(installed: Journey) -> Iterator[Journey]:
    """Both colours run the active release, and this run may switch between them."""
    said = agent(installed, "show")
    for host in APP_HOSTS:
        there = services(installed, host)
        if {there.get("app-blue", ("", ""))[0], there.get("app-green", ("", ""))[0]} != {"running"}:
            pytest.skip("both colours are needed: run test_8_round_trip before")
    agent(installed, "lock", "--run", RUN, "--owner", "tests", "--verb", "rollback")
    yield installed
    agent(installed, "unlock", "--run", RUN)
    assert agent(installed, "show")["active"] == said["active"]


def switch(journey: Journey, colour: str) -> None:
    """Make a colour active, with the release that its containers run."""
    release, serial = ("1.0.0", "2") if colour == "blue" else ("1.1.0", "10")
    words = ["--run", RUN, "--to", colour, "--release", release, "--serial", serial]
    agent(journey, "switch", *words)


def back_and_forth(journey: Journey, times: int) -> Result:
    """Switch while many clients have a long delay, which makes the race likely."""
    with journey.load(50, far=0.8, delay=0.025, slow_every=0) as load:
        time.sleep(4)
        for _ in range(times):
            switch(journey, "green")
            time.sleep(1)
            switch(journey, "blue")
            time.sleep(1)
    print(load.result)
    return load.result


@contextmanager
def without_the_rule(journey: Journey) -> Iterator[None]:
    """Let Nginx close idle connections as soon as it reloads, as it does by default."""
    words = ["--release", "1.0.0", "--serial", "2"]
    edit = f"sed -i 's/{RULE} .*;/{RULE} 0;/' {HTTP} && grep -c '{RULE} 0;' {HTTP}"
    original = journey.lab.read("edge-1", HTTP)
    assert journey.lab.console("edge-1", edit).output.strip() == "1"
    agent(journey, "apply", *words)
    try:
        yield
    finally:
        journey.lab.send("edge-1", f"cat > {HTTP}", data=original)
        agent(journey, "apply", *words)


def test_without_a_minimum_for_kept_connections_requests_are_lost(locked: Journey) -> None:
    with without_the_rule(locked):
        broken = back_and_forth(locked, 6)
    assert broken.failed > 0, "the load would not notice a lost request"


def test_with_it_none_is_lost(locked: Journey) -> None:
    assert back_and_forth(locked, 1).failed == 0


def test_stopping_the_old_colour_right_after_the_reload_loses_requests(locked: Journey) -> None:
    """The agent waits for the old Nginx workers; here the old colour does not wait for them."""
    # Without a standby, as before a first upgrade: old workers know no other colour.
    agent(locked, "retire", "--run", RUN)
    generation = agent(locked, "show")["live_generation"]
    with ThreadPoolExecutor(3) as pool, locked.load(50, far=0.5, slow_every=0) as load:
        time.sleep(4)
        switching = pool.submit(switch, locked, "green")
        while agent(locked, "show")["served_generation"] == generation:
            time.sleep(0.05)
        stop = "docker stop --time 0 airlift-app-blue"
        list(pool.map(lambda host: locked.lab.console(host, stop), APP_HOSTS))
        switching.result()
        time.sleep(2)
    print(load.result)
    for host in APP_HOSTS:
        locked.lab.console(host, "docker start airlift-app-blue")
    wait = "until docker exec airlift-app-blue python -m app healthcheck; do sleep 1; done"
    for host in APP_HOSTS:
        locked.lab.console(host, wait)
    switch(locked, "blue")
    assert load.result.failed > 0, "the load would not notice a lost request"
