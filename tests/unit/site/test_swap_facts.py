"""Facts for a plan, collected from a host in one call: a fake engine behind a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.unit.roles.conftest import plugin
from tests.unit.site import enginekit
from tests.unit.site.enginekit import Engine

module = plugin("swap/library/swap_facts.py")


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Engine]:
    monkeypatch.setattr(module, "TEMPORARY", tmp_path / "tmp")
    with enginekit.running() as one:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{one.path}")
        yield one


def asked(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    with patch_module_args(options), pytest.raises(SystemExit):
        module.answer(module.run, module.OPTIONS)
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said.pop("changed") is False
    assert not said.get("failed")
    return said


def test_a_host_says_all_at_once(
    paper: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = {"airlift.component": "redis"}
    paper.known["/containers/json"] = [{"Id": "1", "ImageID": "sha256:r", "Labels": labels}]
    paper.known["/images/json"] = [
        {"Id": "sha256:r", "RepoTags": ["airlift/redis:8"], "RepoDigests": None},
        {"Id": "sha256:x", "RepoTags": None, "RepoDigests": ["airlift/app@sha256:2"]},
    ]
    left = tmp_path / "tmp/.ansible-root/ansible-tmp-1"
    left.mkdir(parents=True)
    ours = tmp_path / "home/.ansible/tmp/ansible-tmp-2"
    ours.mkdir(parents=True)
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("1.0.0-to-1.1.0-1.json", "1.0.0-to-1.1.0-1.dump"):
        (tmp_path / name).touch()
    said = asked(capsys, backups=str(tmp_path))
    about = said.pop("engine")
    # The role site derives the image store from these fields of `docker info`.
    assert plugin("site/module_utils/image_identity.py").image_store(about) == "overlay2"
    assert about["ServerVersion"] == "26.1"
    assert "Name" not in about
    assert said.pop("invocation")
    assert said == {
        "error": "",
        "components": {"redis": "sha256:r"},
        "images": {"sha256:r": ["airlift/redis:8"], "sha256:x": ["airlift/app@sha256:2"]},
        "backups": ["1.0.0-to-1.1.0-1.json"],
        "leftovers": [str(ours), str(left)],
        "problem": "",
    }


def test_an_engine_that_is_down_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = asked(capsys, standby={"container": "app-blue", "seconds": 1})
    assert (said["engine"], said["components"], said["backups"]) == ({}, {}, [])
    assert said["error"] == "there is no container engine on this host"
    assert said["problem"] == "there is no container engine on this host"
