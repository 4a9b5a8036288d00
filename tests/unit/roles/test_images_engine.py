"""An engine that does not answer is not treated as one without images."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.unit.roles.conftest import plugin

engine = plugin("images/library/images_engine.py")
facts = plugin("preflight/library/preflight_facts.py")
cost = plugin("images/filter_plugins/images_cost.py")

# The client of engine 26.1 describes a stopped daemon like this, and exits with 0.
DOWN = {"ServerVersion": "", "Driver": "", "DockerRootDir": "", "ServerErrors": ["cannot connect"]}
UP = {"ServerVersion": "26.1.5", "Driver": "overlay2", "DockerRootDir": "/", "DriverStatus": None}
IMAGE = {"Id": "sha256:c1", "RootFS": {"Layers": ["sha256:d"]}, "RepoTags": []}


class Docker:
    """A fake client of the engine that answers by subcommand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answer("info", stdout=json.dumps(UP))
        program = folder / "docker"
        program.write_text(
            '#!/bin/sh\ncd "$(dirname "$0")"\n[ -f "$1-$2.sh" ] && . "./$1-$2.sh"\n'
            '[ -f "$1.sh" ] && . "./$1.sh"\nexit 0\n'
        )
        program.chmod(0o755)

    def answer(self, verb: str, *, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        text = f"echo '{stdout}'; echo '{stderr}' >&2; exit {code}\n"
        (self.folder / f"{verb}.sh").write_text(text)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return Docker(tmp_path)


def test_an_engine_that_is_down_is_not_an_engine(docker: Docker) -> None:
    assert engine.image_folder(engine.about_engine()) == "/"
    assert facts.engine({})["said"] == ""
    docker.answer("info", stdout=json.dumps(DOWN))
    with pytest.raises(engine.EngineError, match="cannot connect"):
        engine.about_engine()
    assert facts.engine({})["said"] == "cannot connect"


def test_a_list_that_fails_is_not_an_empty_one(docker: Docker) -> None:
    docker.answer("image-ls", stderr="cannot connect", code=1)
    with pytest.raises(engine.EngineError, match="cannot connect"):
        engine.prune({}, set(), check=True)
    docker.answer("image-inspect", stdout="[]", stderr="Error: No such image: x", code=1)
    with pytest.raises(engine.EngineError, match="cannot connect"):
        engine.look({"app": COMPONENT}, UP, 0)


@pytest.mark.parametrize(
    "words",
    [
        "Error response from daemon: No such image: sha256:c1",
        "Error: No such object: x",
        "WARNING: Error loading config file",
    ],
)
def test_an_image_that_is_absent_is_no_error(words: str, docker: Docker) -> None:
    docker.answer("image-inspect", stdout="[]", stderr=words, code=1)
    assert engine.inspect("sha256:c1") == {}


def test_an_engine_that_fails_in_between_is_one(docker: Docker) -> None:
    docker.answer("image-inspect", stdout="[]", stderr="Cannot connect to it", code=1)
    with pytest.raises(engine.EngineError, match="Cannot connect"):
        engine.inspect("sha256:c1")


COMPONENT = {
    "version": "1.0",
    "repository": "airlift/app",
    "manifest_digest": "sha256:m1",
    "config_digest": "sha256:c1",
    "diff_ids": ["sha256:d"],
    "probe": ["app", "--version"],
}


def settled(capsys: pytest.CaptureFixture[str], **more: Any) -> dict[str, Any]:
    other = {**COMPONENT, "config_digest": "sha256:c2"}
    given = {"state": "settle", "components": {"app": COMPONENT, "redis": other}, **more}
    with patch_module_args(given), pytest.raises(SystemExit):
        engine.answer(engine.run, engine.OPTIONS)
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def test_what_is_absent_is_told_and_what_is_there_must_start(
    docker: Docker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "flush", lambda _: None)
    none = "Error: No such image"
    docker.answer("image-inspect", stdout=json.dumps([IMAGE]), stderr=none, code=1)
    said = settled(capsys, optional=True)
    assert (said["absent"], said["images"]) == (["redis"], {"app": "sha256:c1"})
    assert "redis: image sha256:c2 does not exist" in settled(capsys)["msg"]
    docker.answer("run", stderr="exec format error", code=1)
    assert "exec format error" in settled(capsys, optional=True)["msg"]


def test_an_estimate_above_the_limit_is_a_warning() -> None:
    one = {"delivered": ["app"], "bytes": 9, "disk": 9, "free": 9, "seconds": 3600.0, "limit": 1800}
    lines = cost.images_cost({"slow": one, "quick": {**one, "seconds": 20.0}})
    (warning,) = [line for line in lines if line.startswith("warning")]
    assert "slow may need about 60 min" in warning
    assert "set images_timeout to more than 3600" in warning
