"""The policy that keeps services down while packages are installed does not stay."""

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.unit.roles.conftest import plugin

packages = plugin("container_engine/library/offline_packages.py")


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "policy-rc.d"
    monkeypatch.setattr(packages, "POLICY", path)
    monkeypatch.setattr(packages, "apt_options", lambda _: [])
    return path


def run(
    missing: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    **more: Any,
) -> dict[str, Any]:
    monkeypatch.setattr(packages, "missing_packages", lambda *_: missing)
    given = {"packages": ["docker.io"], "repository": "/nonexistent", **more}
    with patch_module_args(given), pytest.raises(SystemExit):
        packages.main()
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


@pytest.mark.parametrize("before", [None, packages.DENY, "#!/bin/sh\nexit 0\n"])
def test_only_the_clients_own_policy_stays(
    before: str | None,
    policy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if before is not None:
        policy.write_text(before)
    seen = []
    monkeypatch.setattr(packages, "_run", lambda *_: seen.append(policy.read_text()))
    assert run(["docker.io"], monkeypatch, capsys)["changed"]
    theirs = before not in (None, packages.DENY)
    assert seen == [before if theirs else packages.DENY] * 2
    assert policy.exists() is theirs


@pytest.mark.parametrize("state", ["query", "present"])
def test_a_policy_that_a_power_cut_left_goes(
    state: str, policy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([], monkeypatch, capsys, state=state)["changed"] is False
    policy.write_text(packages.DENY)
    assert run([], monkeypatch, capsys, state=state, _ansible_check_mode=True)["changed"]
    assert policy.exists()
    assert run([], monkeypatch, capsys, state=state)["changed"]
    assert not policy.exists()
    policy.write_text("#!/bin/sh\nexit 101\n")
    assert run([], monkeypatch, capsys, state=state)["changed"] is False
    assert policy.exists()
