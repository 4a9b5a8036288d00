"""Fixtures of the service's tests, in this process or with real processes and datastores."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.main import create_app
from app.settings import Settings
from tests.unit.app.appkit import Client, Postgres, Redis, Site
from tests.unit.app.gate import Gate


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the settings of the machine that runs the tests."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / "no-secrets"))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Return the settings of a service without dependencies, as in a plain `docker run`."""
    folder = tmp_path_factory.mktemp("service")
    return Settings(drain_file=folder / "drain", file_roots={"inbox": folder})


@pytest.fixture(scope="session")
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Client:
    return Client(app)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres.start() as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with Redis.start() as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: Postgres, redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of a migrated database that the others are copied from."""
    folder = tmp_path_factory.mktemp("template")
    Site.create(postgres, redis, folder).command("migrate")
    return f"{folder.name}-db"


@contextlib.contextmanager
def _site(postgres: Postgres, redis: Redis, folder: Path, template: str) -> Iterator[Site]:
    site = Site.create(postgres, redis, folder, template)
    try:
        yield site
    finally:
        site.stop_all()


@pytest.fixture
def site(postgres: Postgres, redis: Redis, tmp_path: Path, template: str) -> Iterator[Site]:
    """Provide a migrated database of its own, and start processes on it."""
    with _site(postgres, redis, tmp_path, template) as site:
        yield site


@pytest.fixture
def empty_site(postgres: Postgres, redis: Redis, tmp_path: Path) -> Iterator[Site]:
    """Provide a database without a schema."""
    with _site(postgres, redis, tmp_path, "template1") as site:
        yield site


@pytest.fixture(scope="module")
def shared(
    postgres: Postgres, redis: Redis, tmp_path_factory: pytest.TempPathFactory, template: str
) -> Iterator[Site]:
    """Provide one site for those tests of a module that do not disturb each other."""
    with _site(postgres, redis, tmp_path_factory.mktemp("shared"), template) as site:
        yield site


@pytest.fixture(scope="module")
def gates() -> Iterator[Gate]:
    """Keep one address for all gates of a module, which the service allows."""
    with Gate.start() as gate:
        yield gate


@pytest.fixture
def gate(gates: Gate) -> Gate:
    gates.close()
    return gates
