"""Regressions from fuzzing: the edge's agent, each with its smallest input."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from swap_agent import lease, probe, swap, watch
from swap_agent.journal import Journal
from swap_agent.nginx import Edge
from swap_agent.state import Settings, State, SwapError

from tests.unit.roles.conftest import plugin

DEEP = "[" * 5000
LEASE = {"run": "r", "owner": "ann", "verb": "upgrade", "epoch": 1, "expires": 9e9}
STATE = {"active": "blue", "standby": None, "release": "1.0.0", "serial": 1, "generation": 1}
STATE["since"] = "2026-01-02T03:04:05Z"


# ------------------------------------------------------------------ the edge's records
@pytest.mark.parametrize(
    "text", [DEEP, "7", *(json.dumps({**LEASE, name: []}) for name in LEASE), '{"run": "r"}']
)
def test_a_damaged_lease_is_told_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease.json").write_text(text)
    with pytest.raises(SwapError, match=r"lease\.json cannot be read"):
        lease.held(tmp_path / "lease.json")


@pytest.mark.parametrize("text", [DEEP, "[]", *(json.dumps({**STATE, k: {}}) for k in STATE)])
def test_a_damaged_state_is_told_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(SwapError, match=r"state\.json cannot be read"):
        State.load(tmp_path / "state.json")


@pytest.mark.parametrize(
    "text", [DEEP, "{}", '{"seq": "1"}', '{"seq": 1, "run": "r"}', '[["a", 1]]']
)
def test_a_damaged_journal_is_told_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal").write_text(text + "\n")
    with pytest.raises(SwapError, match=r"line 1 of .*journal is damaged"):
        Journal(tmp_path / "journal").last()


def test_settings_that_are_nested_without_end_are_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "swap.json").write_text(DEEP)
    with pytest.raises(SwapError, match="settings"):
        Settings.load(tmp_path / "swap.json")


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        '{"clock": []}',
        '{"clock": 1, "reloads": "x"}',
        '{"clock": 1, "taken_out": {"a": []}}',
        '{"clock": 1, "generation": 0, "served": [[]]}',
        '{"clock": 1, "generation": 0}',
    ],
)
def test_the_watch_begins_anew_where_its_own_file_is_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / watch.STATE).write_text(text)
    settings = Settings(tmp_path, tmp_path / "s", (), "c", "i", "u", "a", 1, watch_dir=tmp_path)
    watch.Watch(Edge(settings)).tell()
    assert watch.shown(tmp_path)["watcher"]["alive"] is True


def test_an_undo_of_a_damaged_journal_is_told_in_words(tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path / "state.json", (), "c", "i", "u", "a", 1)
    edge = Edge(settings)
    with pytest.raises(SwapError, match=r"record 3 of .* is damaged: from"):
        swap._noted(edge, {"seq": 3, "data": {}}, "from")


# ------------------------------------------------------------------ answers
def asked(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> str:
    class Writer:
        def write(self, _: bytes) -> None: ...

        def close(self) -> None: ...

    async def connect(*_: object) -> tuple[asyncio.StreamReader, Writer]:
        reader = asyncio.StreamReader()
        reader.feed_data(answer)
        reader.feed_eof()
        return reader, Writer()

    monkeypatch.setattr(asyncio, "open_connection", connect)
    return asyncio.run(probe.ask("192.0.2.1:8001"))


@pytest.mark.parametrize(
    "body", [DEEP, '{"checks": {"a": "\\n\\u001b[2J"}}', '{"checks": [1]}', '{"checks": 1}']
)
def test_a_replica_that_answers_anything_is_one_that_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    why = asked(monkeypatch, b"HTTP/1.1 503 No\r\n\r\n" + body.encode())
    assert why.startswith("HTTP 503")
    assert why.isprintable()


@pytest.mark.parametrize("stdout", ["[]", "7", "{}", DEEP, '{"unfinished": [1]}'])
def test_an_edge_that_answers_anything_fails_the_task_in_words(
    monkeypatch: pytest.MonkeyPatch, stdout: str
) -> None:
    module = plugin("swap_agent/action_plugins/swap_agent.py")
    action = module.ActionModule.__new__(module.ActionModule)
    action._task = type("Task", (), {"check_mode": False, "args": {"command": "show"}})()
    action._execute_module = lambda **_: {"rc": 0, "stdout": stdout, "stderr": ""}
    monkeypatch.setattr(module.ActionBase, "run", lambda *_, **__: {})
    found = action.run(None, {})
    assert found["failed"] is True
    assert found["msg"].startswith("unexpected answer of the swap agent: ")
