"""A change of files that a process can reload does not restart it, tested with a real engine."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.roles.conftest import plugin
from tests.unit.roles.enginekit import docker, require_image, settings_in

pytestmark = [pytest.mark.docker, pytest.mark.slow]
containers = plugin("container/library/containers.py")
shape = plugin("container/module_utils/container_shape.py")
action = plugin("container/action_plugins/containers.py")
READ = ["sh", "-c", "cat /etc/airlift/$HOSTNAME/again.conf /run/secrets/key > /tmp/read"]


class Host:
    """One container of a host, created as by the role."""

    def __init__(self, folder: Path) -> None:
        (folder / "key").write_text("key 1")
        self.settings = settings_in(folder)
        self.folder = folder
        self.entry: dict[str, Any] = {
            "name": f"reload-{uuid.uuid4().hex[:8]}",
            "component": "redis",
            "command": ["sleep", "600"],
            "user": "999:999",
            "network": "none",
            "configs": {"again.conf": "again 1\n", "once.conf": "once 1\n"},
            "secret_files": {"key": str(folder / "key")},
            "reload": {"files": ["again.conf", "key"], "command": READ},
            "memory": "64m",
            "stop_signal": "SIGKILL",
        }
        self.entry["env"] = {"HOSTNAME": self.entry["name"]}

    def bring(self, *, check_mode: bool = False) -> dict[str, Any]:
        one = action.complete(self.entry, self.settings)
        module = SimpleNamespace(
            check_mode=check_mode,
            params={
                "wanted": [{**one, "secrets": []}],
                "secrets": {one["name"]: one["secrets"]},
                "settings": self.settings,
            },
            run_command=None,
        )
        told: dict[str, Any] = containers.Bringing(module).all()[0]
        return told

    def config(self, name: str, text: str) -> None:
        self.entry["configs"] = {**self.entry["configs"], name: text}

    @property
    def name(self) -> str:
        return shape.name_of(self.entry)  # type: ignore[no-any-return]

    def identity(self) -> str:
        return docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", self.name)

    def read(self) -> str:
        return docker("exec", self.name, "cat", "/tmp/read")  # noqa: S108


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    require_image()
    found = Host(tmp_path)
    yield found
    subprocess.run(["docker", "rm", "--force", found.name], check=False, capture_output=True)


def test_only_what_is_not_read_again_replaces_it(host: Host) -> None:
    assert "created" in host.bring()["why"]
    assert host.bring()["why"] == []
    first = host.identity()
    host.config("again.conf", "again 2\n")
    (host.folder / "key").write_text("key 2")
    compared = host.bring(check_mode=True)
    assert (compared["due"], compared["replaces"]) == (True, False)
    assert host.bring()["why"] == ["secret key", "again.conf", "reloaded"]
    assert (host.identity(), host.read()) == (first, "again 2\nkey 2")
    assert host.bring()["why"] == []
    host.config("once.conf", "once 2\n")
    assert host.bring(check_mode=True)["replaces"]
    assert "once.conf" in host.bring()["why"]
    assert host.identity() != first
    assert host.bring()["why"] == []


def test_a_file_that_was_edited_on_the_host_is_restored_and_read(host: Host) -> None:
    host.bring()
    first = host.identity()
    Path(host.settings["services"], host.entry["name"], "again.conf").write_text("by hand\n")
    assert host.bring()["why"] == ["again.conf", "reloaded"]
    assert (host.identity(), host.read()) == (first, "again 1\nkey 1")


def test_a_run_killed_before_the_process_was_told_is_finished(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.bring()
    first = host.identity()
    host.config("again.conf", "again 2\n")
    with monkeypatch.context() as killed:
        killed.setattr(containers.Reload, "take_up", lambda _: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            host.bring()
    assert host.bring(check_mode=True)["due"]
    assert host.bring()["why"] == ["reloaded"]
    assert (host.identity(), host.read()) == (first, "again 2\nkey 1")


def test_a_process_that_does_not_take_it_up_is_told(host: Host) -> None:
    host.bring()
    host.config("again.conf", "again 2\n")
    host.entry["reload"] = {**host.entry["reload"], "command": ["sh", "-c", "echo no! >&2; exit 1"]}
    told = host.bring()
    assert told["problem"] == "its process does not read its changed files again: no!"
    assert host.bring()["problem"], "the process still uses the old file"


def test_one_that_was_made_before_there_was_a_reload_stays(host: Host) -> None:
    """The previous release's label is a fingerprint of all files."""
    reload = host.entry.pop("reload")
    host.bring()
    first = host.identity()
    host.entry["reload"] = reload
    assert not host.bring(check_mode=True)["due"]
    host.config("again.conf", "again 2\n")
    assert not host.bring(check_mode=True)["replaces"]
    assert host.bring()["why"] == ["again.conf", "reloaded"]
    assert (host.identity(), host.read()) == (first, "again 2\nkey 1")
    assert host.bring()["why"] == []
    held = json.loads(Path(host.settings["services"], f"{host.entry['name']}.reload").read_text())
    assert held["pending"] is False
