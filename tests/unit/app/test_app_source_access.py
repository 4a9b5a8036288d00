"""Permissions: which clients may use which source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from app.settings import ConfigurationError, Settings
from app.sources import registry
from app.sources.base import Access, Limits, PermanentSourceError
from app.sources.file import FileSource
from app.sources.schemas import ApiConfig, DatabaseConfig, FileConfig, RegisteredDatabase

LIMITS = Limits(max_bytes=20_000, max_records=100, timeout_seconds=2)


def test_a_star_opens_a_listed_source_to_every_client() -> None:
    access = Access({"root:inbox": ["*"], "root:other": ["billing"]})
    assert access.allows("root:inbox", "anyone")
    assert not access.allows("root:other", "anyone")


@pytest.mark.parametrize("auth", [True, False])
def test_a_source_that_is_not_listed_is_nobodys_where_authentication_is_on(
    auth: bool, tmp_path: Path
) -> None:
    sources = registry.build(
        Settings(
            auth_enabled=auth,
            file_roots={"inbox": tmp_path, "shop": tmp_path, "all": tmp_path},
            api_sources_allowed=["ERP.example:443", "crm.example:443"],
            database_sources={"crm": RegisteredDatabase(url="postgresql://reader@db/crm")},
            source_clients={"root:shop": ["billing"], "api:Erp.example:443": ["billing"]},
            open_sources=["root:all"],
        )
    )

    def may(client: str, kind: str, config: Any) -> bool:
        return sources[kind].check(config, client) is None

    def root(name: str) -> FileConfig:
        return FileConfig(root=name, path="a.csv")

    erp = ApiConfig(url="https://erp.example/a.json")
    crm = ApiConfig(url="https://crm.example/a.json")
    database = DatabaseConfig(source="crm", query="SELECT 1")
    for client in ("billing", "shop"):
        assert may(client, "file", root("all"))
        assert may(client, "file", root("inbox")) is not auth
        assert may(client, "api", crm) is not auth
        assert may(client, "database", database) is not auth
    assert may("billing", "file", root("shop"))
    assert may("billing", "api", erp)
    assert not may("shop", "file", root("shop"))
    assert not may("shop", "api", erp)


def test_a_job_of_a_source_that_was_closed_meanwhile_reads_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    source = FileSource({"inbox": tmp_path}, LIMITS, Access(closed=True))
    with pytest.raises(PermanentSourceError, match="no root inbox is registered"):
        anyio.run(source.collect, FileConfig(root="inbox", path="a.csv"), "billing")


def test_what_is_closed_looks_as_if_it_were_not_registered(tmp_path: Path) -> None:
    source = FileSource({"inbox": tmp_path}, LIMITS, Access(closed=True))
    refusal = source.check(FileConfig(root="inbox", path="a.csv"), "billing")
    assert refusal is not None
    assert refusal.message == "no such root is registered on this site (known: none)"


@pytest.mark.parametrize("name", ["SOURCE_CLIENTS", "OPEN_SOURCES"])
def test_a_source_of_no_kind_is_a_wrong_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, '{"inbox": []}' if name == "SOURCE_CLIENTS" else '["inbox"]')
    with pytest.raises(ConfigurationError, match=f"{name}.*must be api:HOST:PORT"):
        Settings.load()
