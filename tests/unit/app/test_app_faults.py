"""Endpoints that fail on purpose exist in the local stack and never on a site."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from app.main import create_app
from app.settings import ConfigurationError, Settings
from tests.unit.app.appkit import ROOT, Client

PATHS = ("/faults/error", "/faults/exception", "/faults/slow")


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Client:
    """Return the service with the module mounted, as docker-compose.yml does it."""
    (tmp_path / "airlift_faults.py").write_text((ROOT / "stack/faults.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "airlift_faults", raising=False)
    return Client(create_app(Settings(faults_enabled=True, rate_limit_per_min=1)))


def test_without_the_setting_there_are_none(client: Client) -> None:
    assert [client.get(path).status_code for path in PATHS] == [404, 404, 404]


def test_they_fail_as_they_are_asked_to(armed: Client) -> None:
    assert armed.get("/faults/error").status_code == 500
    answer = armed.get("/faults/error?status=503")
    assert answer.status_code == 503
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert armed.get("/faults/exception").status_code == 500
    assert armed.get("/faults/slow?seconds=0").json() == {"slept_seconds": 0}
    text = armed.get("/metrics").text
    assert 'app_errors_total{endpoint="/faults/exception",error="OnPurposeError"}' in text
    assert 'app_errors_total{endpoint="/faults/error",error="on-purpose"}' in text


@pytest.mark.parametrize("query", ["error?status=200", "error?status=x", "slow?seconds=11"])
def test_they_do_nothing_else(armed: Client, query: str) -> None:
    assert armed.get(f"/faults/{query}").status_code == 422


def test_the_api_does_not_tell_of_them(armed: Client) -> None:
    assert "faults" not in armed.get("/openapi.json").text


def test_the_image_does_not_have_them() -> None:
    """No image contains the code, so the setting alone makes the service stop with an error."""
    sent = (ROOT / ".dockerignore").read_text().split()
    assert [word for word in sent if word.startswith("!")] == ["!app", "!wheels"]
    assert not list((ROOT / "app").rglob("*fault*"))
    sys.modules.pop("airlift_faults", None)
    with pytest.raises(ConfigurationError, match="only the local stack"):
        create_app(Settings(faults_enabled=True))


@pytest.mark.parametrize("setting", [{"AUTH_ENABLED": "true"}, {"COLOUR": "blue"}])
def test_the_settings_of_a_site_refuse_them(
    monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]
) -> None:
    for name, value in {"FAULTS_ENABLED": "true", **setting}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"FAULTS_ENABLED.*local stack only"):
        Settings.load()


def test_the_roles_never_set_it_and_refuse_who_does() -> None:
    roles = ROOT / "roles"
    naming = {
        path.relative_to(roles).as_posix()
        for path in roles.rglob("*")
        if path.suffix in {".yml", ".j2", ".py"} and "FAULTS_ENABLED" in path.read_text()
    }
    assert naming == {"app/tasks/database.yml"}
    tasks = yaml.safe_load((roles / "app/tasks/database.yml").read_text())
    assert tasks[0]["ansible.builtin.assert"]["that"] == [
        "'FAULTS_ENABLED' not in app_settings | map('upper')"
    ]
