"""Fixtures: the swap agent in three states of a site."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from swap_agent import nginx, swap
from swap_agent.nginx import Edge

from tests.unit.site.swapkit import World
from tests.unit.site.test_watch import Service


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    monkeypatch.setattr(nginx, "engine", made.engine)
    monkeypatch.setattr(swap, "engine", made.engine)
    monkeypatch.setattr(nginx, "started", lambda _: "1")
    monkeypatch.setattr(Edge, "hup", lambda _: made.hup())
    monkeypatch.setattr(Edge, "answered", lambda _: made.serving)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return made


@pytest.fixture
def serving(world: World) -> World:
    """A site that serves 1.0.0 with blue, and a run that may change it."""
    world.apply()
    world.start()
    world.lock()
    return world


@pytest.fixture
def upgrading(world: World) -> World:
    """A site that serves 1.0.0 with blue, and an upgrade that has begun."""
    world.apply()
    world.start()
    world.begin()
    return world


@pytest.fixture
def services() -> Iterator[list[Service]]:
    """The services of three app hosts."""
    made = [Service(), Service(), Service()]
    yield made
    for one in made:
        one.shutdown()
        one.server_close()
