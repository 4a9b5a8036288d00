"""Regressions from fuzzing: how hosts read answers and logs, each with its smallest input."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roles.status.logic import model
from tests.unit.roles.conftest import plugin

DEEP = "[" * 5000


@pytest.mark.parametrize("text", ["7", "{}", DEEP, '"x"'])
def test_status_survives_damaged_files_and_logins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    rules = plugin("status/module_utils/status_rules.py")
    engine = plugin("status/module_utils/status_engine.py")
    (tmp_path / "x.confirmed").write_text(text)
    (tmp_path / "x.nft").write_text("")
    monkeypatch.setattr(rules, "run", lambda *_: (0, "table"))
    assert rules.our_table("inet", "x", tmp_path / "x.nft") == "unconfirmed"
    process = SimpleNamespace(communicate=lambda **_: (text, ""))
    monkeypatch.setattr(engine, "_begin", lambda *_: process)
    one = {"service": "x", "name": "x", "component": "app", "running": True, "state": "healthy"}
    raw = {"Id": "1", "Image": "2", "Config": {"Env": []}}
    assert isinstance(engine.Logins([one], [raw], "").results()["x"], dict)
    (tmp_path / "1.0.0").mkdir()
    (tmp_path / "1.0.0" / "manifest.json").write_text(text)
    assert model.manifest_of({"releases_dir": tmp_path}, "1.0.0") == {}


@pytest.mark.parametrize("checks", ['"x"', "[1]", "7", DEEP])
def test_status_survives_a_service_that_answers_anything(
    monkeypatch: pytest.MonkeyPatch, checks: str
) -> None:
    asks = plugin("status/module_utils/status_asks.py")
    body = f'{{"checks": {checks}, "data": {{"activeTargets": {checks}}}}}'.encode()
    monkeypatch.setattr(asks, "get", lambda _: asks.Answer(200, body, ""))
    assert asks.ready({})["checks"] == {}
    assert asks.targets({})["down"] == []
    monkeypatch.setattr(asks, "get", lambda _: asks.Answer(200, b"pg_up +.e\n", ""))
    assert asks.gauge({"gauge": "pg_up"}) == {"value": None, "error": "it shows no pg_up"}


@pytest.mark.parametrize(
    "target", ["7", "{}", '{"health": "down"}', '{"health": "down", "labels": 1}']
)
def test_status_survives_a_list_of_targets_of_another_form(
    monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    asks = plugin("status/module_utils/status_asks.py")
    body = f'{{"data": {{"activeTargets": [{target}]}}}}'.encode()
    monkeypatch.setattr(asks, "get", lambda _: asks.Answer(200, body, ""))
    assert asks.targets({}) == {"down": [], "error": "HTTP 200"}


@pytest.mark.parametrize("line", [f'{{"level": {DEEP}', '{"level": ["error"]}', '{"level": {}}'])
def test_the_last_words_of_a_container_are_told_whatever_it_logs(
    monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    text = '{"level": "error", "reason": "no space left"}\n' + line

    def said(*words: str, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 0, text, "")

    client = plugin("site/module_utils/engine_client.py")
    monkeypatch.setattr(client, "docker", said)
    assert client.last_words("x") == "no space left"
    assert plugin("app/filter_plugins/app.py").app_reason(text) == "no space left"
    assert plugin("status/module_utils/status_engine.py").reason_in(text) == "no space left"
