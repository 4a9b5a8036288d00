"""Give every test its own cache, without the settings of the machine that runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bundle.builder.images import engine
from tests.unit.images.imagekit import Registry, StandInEngine, running_registry


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRLIFT_REGISTRY_MIRROR", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    if "shared_cache" not in request.fixturenames:
        monkeypatch.setenv("AIRLIFT_CACHE", str(request.getfixturevalue("tmp_path") / "cache"))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandInEngine:
    return StandInEngine(tmp_path / "engine", monkeypatch)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="session")
def engine_here() -> None:
    engine.require()


@pytest.fixture
def notes() -> list[str]:
    """Collect the messages of a build."""
    return []


@pytest.fixture(scope="session")
def tree() -> Path:
    return Path(__file__).parents[3]
